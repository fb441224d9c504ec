"""The main job as a story: scripts/demo installs and builds, then runs this."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib import guestkit, programs  # noqa: E402
from lib.broker import MEMBER, Broker  # noqa: E402
from lib.lab import WORLD_ADDRESS, CommandError, Lab, process_uid  # noqa: E402
from lib.vm import VM, capabilities  # noqa: E402

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BOLD, GREEN, RED, PLAIN = ("\033[1m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 4


class Story:
    """Says what happens, and keeps what was found for the summary."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.rows: list[tuple[bool, str, str]] = []

    def chapter(self, text: str) -> None:
        print(f"\n{BOLD}== {text}{PLAIN}  ({time.monotonic() - self.started:.0f} s)", flush=True)

    def say(self, text: str) -> None:
        print(f"   {text}", flush=True)

    def try_it(self, what: str, action: Callable[[], str]) -> None:
        """Runs an action that returns what was seen; a failure is shown and goes on."""
        print(f"   {what} ... ", end="", flush=True)
        try:
            seen, good = action(), True
        except (AssertionError, CommandError, guestkit.GuestError, TimeoutError) as error:
            seen, good = str(error).strip().splitlines()[-1], False
        print(f"{GREEN if good else RED}{seen}{PLAIN}", flush=True)
        self.rows.append((good, what, seen))

    def summary(self) -> int:
        print(f"\n{BOLD}== summary{PLAIN}")
        width = max(len(what) for _, what, _ in self.rows)
        for good, what, seen in self.rows:
            mark = f"{GREEN}ok  {PLAIN}" if good else f"{RED}FAIL{PLAIN}"
            print(f"   {mark} {what.ljust(width)}  {seen}")
        failed = sum(not good for good, _, _ in self.rows)
        took = time.monotonic() - self.started
        print(f"\n   {len(self.rows) - failed} of {len(self.rows)} as they should be, after {took:.0f} s")
        return 1 if failed else 0


def round_trip(run: Callable[[list[str]], str], address: str) -> str:
    """Least of five echoes."""
    out = run(["ping", "-c", "5", "-i", "0.2", "-W", "3", address])
    return f"{float(out.rsplit('= ', 1)[1].split('/')[0]):.2f} ms"


def in_guest(vm: VM) -> Callable[[list[str]], str]:
    return lambda argv: vm.guest.check(" ".join(argv))


def on_host(lab: Lab) -> Callable[[list[str]], str]:
    return lambda argv: lab.host.run(argv).stdout


def gigabits(run: Callable[[list[str]], str], address: str, *options: str) -> str:
    report = json.loads(run(["iperf3", "-J", "-t", "1", "-c", address, *options]))
    assert "sum_received" in report["end"], f"iperf3: {report.get('error', 'no result')}"
    return f"{report['end']['sum_received']['bits_per_second'] / 1e9:.2f} Gbit/s"


def lease(vm: VM) -> str:
    address = vm.guest.address()
    assert address == vm.address, f"{address}, but {vm.address} was reserved"
    return f"{address} after {vm.guest.lease_ms():.0f} ms, as reserved"


def privileges(broker: Broker, vms: list[VM]) -> str:
    for vm in vms:
        for part, pid in vm.pids().items():
            assert capabilities(pid) == 0 and process_uid(pid) == MEMBER.uid, f"{part} of {vm.name}"
    assert capabilities(broker.front_pid) == 0
    return f"none: uid {MEMBER.uid}, no capability; only the broker's priv and dnsmasq hold any"


def survive(broker: Broker, vms: list[VM]) -> str:
    broker.kill("priv")
    vms[0].guest.check(f"ping -c 1 -W 2 {vms[1].address}")
    broker.start()
    with broker.connect() as peer:
        networks = {network["name"]: network for network in peer.call("ListNetworks")[0]["networks"]}
    assert networks["shared"]["running"], "the new broker did not adopt the network"
    return "VMs went on, a new broker took the network up"


def show(story: Story, lab: Lab, broker: Broker, vms: list[VM]) -> None:
    alpha, beta = vms
    story.chapter("what the two VMs can do")
    for vm in vms:
        story.try_it(f"{vm.name} ({vm.attach}) gets its lease", lambda vm=vm: lease(vm))
    story.try_it("alpha pings beta by name", lambda: round_trip(in_guest(alpha), beta.name))
    story.try_it("beta pings alpha by name", lambda: round_trip(in_guest(beta), f"{alpha.name}.shared.vmnet"))
    for vm in vms:
        story.try_it(f"host pings {vm.name}", lambda vm=vm: round_trip(on_host(lab), vm.address))
        story.try_it(f"{vm.name} pings the world through NAT", lambda vm=vm: round_trip(in_guest(vm), WORLD_ADDRESS))
    story.chapter("throughput, one TCP stream")
    for vm in vms:
        story.try_it(f"{vm.name} ({vm.attach}) to the world", lambda vm=vm: gigabits(in_guest(vm), WORLD_ADDRESS))
        story.try_it(f"the world to {vm.name} ({vm.attach})", lambda vm=vm: gigabits(in_guest(vm), WORLD_ADDRESS, "-R"))
    story.try_it("alpha to beta", lambda: gigabits(in_guest(alpha), beta.address))
    story.chapter("privileges, and a broker that dies")
    story.try_it("privileges of clients, helper and VMs", lambda: privileges(broker, vms))
    story.try_it("kill -9 of the whole broker", lambda: survive(broker, vms))


def end(story: Story, broker: Broker, vms: list[VM]) -> str:
    for vm in vms:
        vm.guest.close()
        vm.process.terminate()
        vm.process.wait(10)
    assert broker.terminate() == 0, "the broker's status"
    left = broker.leftovers()
    assert not left, f"left: {left}"
    return "no link, table, process, socket or record is left"


def main() -> int:
    story = Story()
    story.chapter("a guest: Debian's cloud kernel and a busybox initramfs")
    kit = guestkit.build(story.say)
    story.say(f"runs under {kit.accelerator.upper()}")
    with tempfile.TemporaryDirectory(prefix="vmnet-demo-", dir="/tmp") as place, Lab() as lab:
        os.chmod(place, 0o755)
        bin_dir = programs.reachable(Path(os.environ["VMNET_BIN"]), Path(place))
        kit = guestkit.reachable(kit, Path(place))
        story.chapter("a host and the internet, as namespaces, and a broker")
        lab.internet.start_iperf3()
        broker = Broker(lab, bin_dir)
        story.say(f"vmnet-broker runs: priv is process {broker.priv_pid}, its front {broker.front_pid}")
        story.chapter(f"two VMs, started by uid {MEMBER.uid} through vmnet-client")
        vms = []
        for name, attach in (("alpha", "native"), ("beta", "socket")):
            story.say(f"vmnet-client --attach {attach} --qemu --network shared --hostname {name} -- qemu-system-x86_64 ...")
            vms.append(VM(broker, bin_dir, kit, name, attach))
        for vm in vms:
            vm.guest.wait_ready(120)
            story.say(f"{vm.name} booted")
        show(story, lab, broker, vms)
        story.try_it("after the end of VMs and broker", lambda: end(story, broker, vms))
    return story.summary()


def end_on(number: int, _frame: FrameType | None) -> None:
    """Everything is removed on the way out; a second Ctrl-C must not stop that half way."""
    for other in ENDING:
        signal.signal(other, signal.SIG_IGN)
    print("\n   ending, and removing host and internet", flush=True)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for ending in ENDING:
        signal.signal(ending, end_on)
    try:
        sys.exit(main())
    except (guestkit.KitError, guestkit.GuestError, programs.MissingProgram, CommandError, TimeoutError) as error:
        sys.exit(f"\n{RED}scripts/demo could not go on:{PLAIN} {error}")
