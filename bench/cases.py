"""What the benchmark measures: each case is a table of lines that are compared under the same conditions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from . import guests as guest
from . import endurance, measure, raw, rootless, scale
from .cables import Helper, helper_cable, native_cable, one_frame_cable
from .lines import cable_line, pair_line, passt_line, vde_line, veth_line, vhost_user_line
from .place import IDLE_VMS
from .runner import Case, Entry, Measure
from .targets import FROM_WORLD, TO_HOST, TO_VM, TO_VM2, TO_WORLD

BOTH_WAYS = (Measure(TO_HOST, measure.vm_to_host), Measure(TO_VM, measure.host_to_vm))
PING = Measure("ping", measure.ping)
Helpers = tuple[Helper, ...]


def _entry(name: str, make: Callable[..., Any], **options: Any) -> Entry:
    return Entry(name, lambda place: make(place, name, **options))


def _helpers(helpers: Helpers, what: str, make: Callable[..., Any] = cable_line, **options: Any) -> list[Entry]:
    return [_entry(f"{helper.label} {what}", make, cable=helper_cable, helper=helper, **options) for helper in helpers]


def _vhost_user(helpers: Helpers, network: str) -> list[Entry]:
    return [_entry(f"{helper.label} vhost-user", vhost_user_line, helper=helper, network=network) for helper in helpers]


def small_frames(helpers: Helpers) -> Case:
    """A VM that knows nothing but frames of 1500 bytes."""
    entries = [
        _entry("veth", veth_line),
        _entry("veth without offloads", veth_line, offloads=False),
        _entry("one-frame forwarder", cable_line, cable=one_frame_cable),
        _entry("one-frame, flooding 3 more VMs", cable_line, cable=one_frame_cable, flood=3),
        *_helpers(helpers, "datagram", kind="datagram"),
        *_helpers(helpers, "stream", kind="stream"),
        *_helpers(helpers, "datagram, small buffers", kind="datagram", small_buffers=True),
        *_helpers(helpers, "stream, small buffers", kind="stream", small_buffers=True),
        _entry("passt stream", passt_line),
        _entry("vde_switch", vde_line),
    ]
    return Case("small frames", "Simulated VM, MTU 1500", tuple(entries), BOTH_WAYS)


def large_frames(helpers: Helpers) -> Case:
    """A VM that hands over frames of 64 KiB, on a network whose MTU is that large too."""
    network = "large"
    entries = [_entry("veth", veth_line, network=network), _entry("passt stream", passt_line, mtu=65520)]
    for kind in ("datagram", "stream"):
        entries += _helpers(helpers, kind, kind=kind, mode="raw", network=network)
        entries += _helpers(helpers, f"{kind}, vnet-hdr", kind=kind, mode="vnet-hdr", network=network)
        small = {"kind": kind, "mode": "raw", "network": network, "small_buffers": True}
        entries += _helpers(helpers, f"{kind}, small buffers", **small)
    entries += _vhost_user(helpers, network)
    return Case("large frames", "Simulated VM with offloads, MTU 65520", tuple(entries), BOTH_WAYS)


def offloads(helpers: Helpers) -> Case:
    """Large frames on a network of the usual MTU: the header says how they are to be cut."""
    entries = [_entry("veth", veth_line)]
    for kind in ("datagram", "stream"):
        entries += _helpers(helpers, f"{kind}, offloads", kind=kind, mode="raw")
        entries += _helpers(helpers, f"{kind}, vnet-hdr", kind=kind, mode="vnet-hdr")
    entries += _vhost_user(helpers, "small")
    return Case("offloads", "Simulated VM with offloads, MTU 1500", tuple(entries), BOTH_WAYS)


def raw_frames(helpers: Helpers, size: int, protocol: str) -> Case:
    """No TCP at the VM's end: how many frames a cable carries."""
    options = {"make": raw.raw_line, "sends_to_vm": True}
    entries = [
        _entry("one-frame forwarder", raw.raw_line, cable=one_frame_cable, sends_to_vm=True),
        *_helpers(helpers, "datagram", kind="datagram", **options),
        *_helpers(helpers, "stream", kind="stream", **options),
    ]
    measures = (
        Measure(TO_HOST, partial(raw.blast_to_host, size=size, protocol=protocol)),
        Measure(TO_VM, partial(raw.blast_to_vm, size=size, protocol=protocol)),
    )
    what = {"tcp": "segments of one TCP flow", "udp": "UDP datagrams"}[protocol]
    return Case(f"raw {protocol} {size}", f"Made frames of {size} bytes, {what}", tuple(entries), measures)


def round_trips(helpers: Helpers) -> Case:
    """The cable's own part of a round trip: the same program behind the helper, and behind a TAP as a native VM."""
    entries = [
        _entry("native", raw.raw_line, cable=native_cable),
        _entry("one-frame forwarder", raw.raw_line, cable=one_frame_cable),
        *_helpers(helpers, "datagram", make=raw.raw_line, kind="datagram"),
        *_helpers(helpers, "stream", make=raw.raw_line, kind="stream"),
    ]
    return Case("round trip", "Round trip to the host", tuple(entries), (Measure("", raw.round_trip),))


def idle_vms(helpers: Helpers) -> Case:
    """Two VMs talk while others of their network are idle."""
    entries = []
    for idle in IDLE_VMS:
        entries += _helpers(helpers, f"datagram, {idle} idle", pair_line, network=f"idle-{idle}", idle=idle)
    measures = (Measure(TO_VM2, measure.vm_to_host),)
    return Case("idle VMs", "Two simulated VMs beside idle ones", tuple(entries), measures)


def guests(helpers: Helpers, mtu: int) -> Case:
    """QEMU, with a Linux whose driver does offloads where its network does."""

    def line(name: str, attach: guest.Attach) -> Entry:
        return _entry(name, guest.guest_line, attach=attach, mtu=mtu)

    entries = [
        line("QEMU's TAP, as root", guest.own_tap),
        line("native", guest.by_cable(native_cable, guest.TAP_NETDEV)),
    ]
    for helper in helpers:
        dgram = guest.by_cable(helper_cable, guest.DGRAM_NETDEV, kind="datagram", helper=helper)
        stream = guest.by_cable(helper_cable, guest.STREAM_NETDEV, kind="stream", helper=helper)
        entries += [
            line(f"{helper.label} datagram", dgram),
            line(f"{helper.label} stream", stream),
            line(f"{helper.label} vhost-user", guest.helper_vhost_user(helper=helper)),
        ]
    entries += [line("passt stream", guest.passt_stream), line("passt vhost-user", guest.passt_vhost_user)]
    if mtu == 1500:  # what else there is knows nothing of large frames
        one_frame = guest.by_cable(one_frame_cable, guest.DGRAM_NETDEV)
        entries += [line("one-frame forwarder", one_frame), line("QEMU's user network", guest.user_network)]
    measures = (*BOTH_WAYS, PING) if mtu == 1500 else BOTH_WAYS
    return Case(f"guests {mtu}", f"QEMU guest, MTU {mtu}", tuple(entries), measures)


def idle_helper(helpers: Helpers) -> Case:
    """What a helper costs whose VM is silent."""
    large = {"mode": "vnet-hdr", "network": "large"}
    entries = [
        *_helpers(helpers, "datagram", kind="datagram"),
        *_helpers(helpers, "stream", kind="stream"),
        *_helpers(helpers, "datagram, large frames", kind="datagram", **large),
        *_helpers(helpers, "stream, large frames", kind="stream", **large),
        *_vhost_user(helpers, "small"),
    ]
    return Case("idle helper", "A helper with nothing to do", tuple(entries), (Measure("", endurance.idle),), once=True)


def soak(helpers: Helpers) -> Case:
    """A VM that stops reading must stall nobody."""
    entries = [entry for kind in ("datagram", "stream")
               for entry in _helpers(helpers, kind, make=endurance.soak_line, kind=kind)]  # fmt: skip
    notes = (
        "Eight TCP streams each way and UDP to the VM, which stops reading for 5 s every 10 s. Stall: the longest time "
        "in which no datagram came from the VM to the host while the VM did not read; it sends one every 0.5 ms.",
    )
    measures = (Measure("", endurance.soak),)
    return Case("soak", "A simulated VM that stops reading", tuple(entries), measures, once=True, notes=notes)


def broker() -> Case:
    """What a request takes, and a broker that is asked for nothing."""
    entries = [
        _entry("interface, warm network", scale.scale_line, function=scale.warm),
        _entry("interface, cold network", scale.scale_line, function=scale.cold),
        _entry("60 networks, 100 interfaces, idle", scale.scale_line, function=scale.idle),
    ]
    notes = (
        "From the request until the TAP's fd is in the client's hand, which is when DHCP knows of the interface. CPU and "
        "memory of the broker's two parts; while idle, ms of CPU a second, those of all 60 dnsmasq apart: in its first "
        "minute each advertises its prefix every few seconds, later every ten minutes.",
    )
    return Case("broker", "The broker", tuple(entries), (Measure("", scale.measure),), notes=notes)


def broker_growth() -> Case:
    """Whether twice as many take twice as long."""
    entries = [
        _entry(scale.growth_name(what, count), scale.scale_line, function=partial(scale.GROWERS[what], count=count))
        for what, counts in scale.GROWTH.items()
        for count in counts
    ]
    notes = (
        "Interfaces: one after the other, none goes. Networks and clients: all asked at the same moment; a request's "
        "time counts from then, so that its median is half of what all take.",
    )
    return Case("broker growth", "Many of them", tuple(entries), (Measure("", scale.measure),), notes=notes)


def rootless_pairs() -> Case:
    """The kernel's bridge is the same one, in whosever namespace."""
    entries = []
    for network, mtu in (("small", 1500), ("large", 65520)):
        for who, vm in (("system", rootless.system_vm), ("rootless", rootless.rootless_vm)):
            entries.append(_entry(f"{who}, {mtu}", rootless.pair_line, vm=vm, network=network))
    return Case("rootless pairs", "VM to VM, the system's broker and a user's own", tuple(entries),
                (Measure(TO_VM2, measure.vm_to_host),))  # fmt: skip


def rootless_guests() -> Case:
    """The same with QEMU guests."""
    brokers = (("system", rootless.system_broker), ("rootless", rootless.broker_of))
    entries = [
        _entry(f"{who}, 1500", rootless.guest_pair_line, broker=broker, network="small", mtu=1500)
        for who, broker in brokers
    ]
    return Case("rootless guests", "Guest to guest, the system's broker and a user's own", tuple(entries),
                (Measure(TO_VM2, measure.vm_to_host),))  # fmt: skip


def rootless_world(network: str, mtu: int) -> Case:
    """What bridge and NAT of ours take off what pasta can."""
    entries = (
        _entry("pasta alone", rootless.pasta_line, mtu=mtu),
        _entry("VM", rootless.world_line, network=network),
    )
    measures = (Measure(TO_WORLD, rootless.out), Measure(FROM_WORLD, rootless.back))
    notes = (
        "The CPU time is pasta's. A process lets what the world answers wait 0.1 ms (`tests/lib/far.py`), as pasta treats "
        "whoever is less than 10 us away as a part of its own host.",
    )
    title = f"To the world by pasta, with a user's own broker and without, MTU {mtu}"
    return Case(f"rootless world {mtu}", title, entries, measures, notes=notes)


def all_cases(helpers: Helpers) -> list[Case]:
    """In the order in which they run."""
    return [
        small_frames(helpers),
        offloads(helpers),
        large_frames(helpers),
        raw_frames(helpers, 1514, "tcp"),
        raw_frames(helpers, 60, "udp"),
        round_trips(helpers),
        idle_vms(helpers),
        idle_helper(helpers),
        soak(helpers),
        guests(helpers, 1500),
        guests(helpers, 65520),
        broker(),
        broker_growth(),
        rootless_pairs(),
        rootless_guests(),
        rootless_world("small", 1500),
        rootless_world("large", 65520),
    ]
