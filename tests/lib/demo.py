"""The main job as a story: scripts/demo installs and builds, then runs this."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib import guestkit, programs  # noqa: E402
from lib.broker import MEMBER, Broker  # noqa: E402
from lib.lab import WORLD_ADDRESS, Lab, process_uid  # noqa: E402
from lib.story import Story, gigabits, in_guest, lease, round_trip, tell  # noqa: E402
from lib.vm import VM, capabilities  # noqa: E402


def on_host(lab: Lab) -> Callable[[list[str]], str]:
    return lambda argv: lab.host.run(argv).stdout


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


if __name__ == "__main__":
    tell(main)
