"""The helper's offloads do what the kernel does, byte for byte."""

import fcntl
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from kernelkit import in_namespace, run_named_test
from offloadkit import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    HEADER,
    IFF_NAPI,
    NEEDS_CSUM,
    TUN_F_CSUM,
    TUN_F_TSO4,
    TUN_F_TSO6,
    TUN_F_USO4,
    TUN_F_USO6,
    TUNSETOFFLOAD,
    Bridge,
    Driver,
    Spec,
    random_segments,
    random_spec,
)

PLAIN = bytes(HEADER.size)


@contextmanager
def running_driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()


def takes_uso(bridge: Bridge) -> bool:
    """Linux 6.2 and newer."""
    try:
        fcntl.ioctl(bridge.far, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6)
    except OSError:
        return False
    fcntl.ioctl(bridge.far, TUNSETOFFLOAD, 0)
    return True


def check_cut(bridge: Bridge, driver: Driver, spec: Spec, gso_size: int, pseudo_sum: int | None = None) -> int:
    """Returns the number of segments; the sum is another than that of the addresses in the headers."""
    header, frame = spec.header(gso_size), spec.build()
    if pseudo_sum is not None:
        place = spec.transport() + (6 if spec.udp else 16)
        frame = frame[:place] + pseudo_sum.to_bytes(2, "big") + frame[place + 2 :]
    expected = bridge.pass_through(header, frame)
    found, drops = driver.run("segment", [(header, frame)])
    text = f"{replace(spec, payload=b'')} {len(spec.payload)} by {gso_size}"
    assert drops == 0, text
    assert len(found) == len(expected) > 1, f"{text}: {len(found)} segments, the kernel has {len(expected)}"
    for i, (theirs, ours) in enumerate(zip(expected, found, strict=True)):
        flags, gso_type, *_ = HEADER.unpack(theirs[0])
        assert not flags & NEEDS_CSUM and gso_type == GSO_NONE, text
        assert ours.header == PLAIN, text
        assert ours.frame == theirs[1], f"{text}: segment {i}:\n{ours.frame[:120].hex()}\n{theirs[1][:120].hex()}"
    return len(found)


@in_namespace
def test_segments_are_the_kernels() -> None:
    bridge = Bridge()
    dice = random.Random(1)
    udp = takes_uso(bridge)
    segments = 0
    with running_driver() as driver:
        for i in range(600):
            # A routing header makes the final destination count, which only the sender knows.
            pseudo_sum = dice.randrange(1, 0x10000) if i % 5 == 0 else None
            segments += check_cut(bridge, driver, *random_spec(dice, udp and i % 3 == 0), pseudo_sum)
    assert segments > 10000, "too little was cut to show anything"


@in_namespace
def test_completed_checksums_are_the_kernels() -> None:
    bridge = Bridge()
    dice = random.Random(2)
    with running_driver() as driver:
        for _ in range(300):
            spec, _gso_size = random_spec(dice, udp=dice.random() < 0.5)
            spec.payload = spec.payload[: dice.randrange(1300)]
            header = bytearray(spec.header(0))
            header[1] = GSO_NONE
            expected = [frame for _header, frame in bridge.pass_through(bytes(header), spec.build())]
            for function in ("segment", "complete"):
                found, drops = driver.run(function, [(bytes(header), spec.build())])
                assert drops == 0
                assert [gathered.frame for gathered in found] == expected


@in_namespace
def test_the_kernel_cuts_rebuilt_frames_to_the_mtu() -> None:
    bridge = Bridge()
    dice = random.Random(3)
    with running_driver() as driver:
        for _ in range(200):
            spec, _gso_size = random_spec(dice, udp=False)
            spec.payload = dice.randbytes(dice.randrange(2000, 64000))
            (rebuilt,), drops = driver.run("rebuild", [(PLAIN, spec.build())])
            assert drops == 0
            assert HEADER.unpack(rebuilt.header)[1] & ~GSO_ECN in (GSO_TCPV4, GSO_TCPV6)
            expected, _drops = driver.run("segment", [(rebuilt.header, spec.build())])
            found = bridge.pass_through(rebuilt.header, rebuilt.frame)
            assert [frame for _header, frame in found] == [segment.frame for segment in expected]
            assert len(found[0][1]) == 1500 + spec.network(), "the segments don't fill the MTU"


def joined_fragments(spec: Spec, fragments: list[bytes]) -> bytes:
    """The datagram; the fragments are in order and complete."""
    data = b""
    for i, fragment in enumerate(fragments):
        assert len(fragment) <= 1500 + spec.network()
        start = spec.transport() + (8 if spec.ipv6 else 0)
        place = spec.transport() + 2 if spec.ipv6 else spec.network() + 6
        field = int.from_bytes(fragment[place : place + 2], "big")
        offset, more = (field & 0xFFF8, field & 1) if spec.ipv6 else ((field & 0x1FFF) * 8, field >> 13 & 1)
        assert offset == len(data) and more == (i + 1 < len(fragments))
        data += fragment[start:]
    return data


@in_namespace
def test_the_kernel_makes_fragments_of_rebuilt_datagrams() -> None:
    bridge = Bridge()
    dice = random.Random(4)
    with running_driver() as driver:
        for _ in range(100):
            payload = dice.randbytes(dice.randrange(2000, 60000))
            spec = Spec(ipv6=dice.random() < 0.5, udp=True, tags=dice.choice((0, 1)), df=False, payload=payload)
            (rebuilt,), drops = driver.run("rebuild", [(PLAIN, replace(spec, partial=True).build())])
            assert drops == 0
            assert HEADER.unpack(rebuilt.header)[1] == GSO_UDP
            fragments = [frame for _header, frame in bridge.pass_through(rebuilt.header, rebuilt.frame)]
            assert len(fragments) > 1
            assert joined_fragments(spec, fragments) == spec.build()[spec.transport() :]


def facts_of(header: bytes, frame: bytes) -> tuple[object, ...]:
    """What must be the same: how much of a frame the kernel has in one piece, and that it knows a sum, need not be."""
    flags, gso_type, _header_length, gso_size, start, offset, _buffers = HEADER.unpack(header)
    if not flags & NEEDS_CSUM:
        return gso_type, frame
    return gso_type, gso_size, start, offset, frame


def by_flow(frames: list[tuple[bytes, bytes]]) -> dict[bytes, list[tuple[object, ...]]]:
    flows: dict[bytes, list[tuple[object, ...]]] = {}
    for header, frame in frames:
        ports = frame[54:58] if frame[12:14] == b"\x86\xdd" else frame[34:38]
        flows.setdefault(ports, []).append(facts_of(header, frame))
    return flows


@in_namespace
def test_frames_are_joined_as_the_kernel_joins_them() -> None:
    bridge = Bridge(offloads=TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6, flags=IFF_NAPI)
    bridge.let_near_join()
    dice = random.Random(5)
    frame_count = gathered_count = 0
    with running_driver() as driver:
        for _ in range(300):
            frames = [segment.build() for segment in random_segments(dice)]
            found, drops = driver.run("coalesce", [(PLAIN, frame) for frame in frames])
            assert drops == 0
            assert sum(gathered.frame_count for gathered in found) == len(frames)
            expected = by_flow(bridge.write_at_once(frames))
            assert by_flow([(gathered.header, gathered.frame) for gathered in found]) == expected
            frame_count += len(frames)
            gathered_count += len(found)
    assert frame_count > 2 * gathered_count, "too little was joined to show anything"


if __name__ == "__main__":
    run_named_test(globals())
