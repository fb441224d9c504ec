"""The main job without any root, as a story: scripts/demo --rootless installs and builds, then runs this."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib import guestkit, programs  # noqa: E402
from lib.lab import UPLINK_ADDRESS, WORLD_ADDRESS, WORLD_ADDRESS6, Lab, process_uid, wait_for  # noqa: E402
from lib.rootless import OrdinaryUser, RootlessBroker, user_namespace  # noqa: E402
from lib.rootless import capabilities as capability_sets  # noqa: E402
from lib.rootless_world import WORLD_NAMES, prepare_world  # noqa: E402
from lib.story import Story, gigabits, in_guest, lease, round_trip, tell  # noqa: E402
from lib.vm import VM  # noqa: E402

PORT = 8080


def powers(broker: RootlessBroker) -> str:
    """Of everything of this user: whose it is, and where what it may do counts."""
    outside = os.stat("/proc/self/ns/user").st_ino
    powerful = []
    for pid in broker.owner.pids():
        assert process_uid(pid) == broker.member.uid
        if any(capability_sets(pid).values()):
            assert user_namespace(pid) != outside, f"process {pid} has a capability on the host"
            powerful.append(pid)
    count = len(broker.owner.pids())
    return f"{count} processes, all of uid {broker.member.uid}; {len(powerful)} may do something, in a namespace of his"


def names(vm: VM) -> str:
    text = vm.guest.check("nslookup www.example.com")
    assert WORLD_NAMES in text, text
    return WORLD_NAMES


def over_ipv6(vm: VM) -> str:
    vm.guest.check("i=0; until ip -6 route | grep -q default; do i=$((i+1)); [ $i -gt 200 ] && exit 1; usleep 50000; done")
    return round_trip(lambda argv: vm.guest.check(" ".join([argv[0], "-6", *argv[1:]])), WORLD_ADDRESS6)


def forwarded(broker: RootlessBroker, vm: VM, lab: Lab) -> str:
    vm.guest.check("(while true; do echo hello from $(hostname) | nc -l -p 80; done) </dev/null >/dev/null 2>&1 & true")
    command = [broker.bin_dir / "vmnetctl", "forward", f"0.0.0.0:{PORT}", f"{vm.name}:80"]
    forward = broker.owner.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answer() -> str:
        client = ["timeout", "2", "busybox", "nc", UPLINK_ADDRESS, str(PORT)]
        return lab.internet.run(client, check=False).stdout.strip()

    seen = wait_for(answer, 10, f"an answer at port {PORT} of the host")
    forward.terminate()
    forward.wait(5)
    return f'"{seen}"'


def survive(broker: RootlessBroker, vms: list[VM]) -> str:
    broker.kill("supervisor")
    vms[0].guest.check(f"ping -c 1 -W 2 {vms[1].address}")
    broker.owner.run([broker.bin_dir / "vmnet-client", "--network", "shared", "--", "true"])
    broker.wait_whole()
    with broker.connect() as peer:
        interfaces = peer.call("ListInterfaces")[0]["interfaces"]
    assert len(interfaces) >= len(vms), "the new broker did not adopt the VMs"
    return "VMs went on; the next vmnet-client started another, which took all up"


def show(story: Story, lab: Lab, broker: RootlessBroker, vms: list[VM]) -> None:
    alpha, beta = vms
    story.chapter("what the two VMs can do")
    for vm in vms:
        story.try_it(f"{vm.name} ({vm.attach}) gets its lease", lambda vm=vm: lease(vm))
    story.try_it("alpha pings beta by name", lambda: round_trip(in_guest(alpha), beta.name))
    story.try_it("beta pings alpha by name", lambda: round_trip(in_guest(beta), f"{alpha.name}.shared.vmnet"))
    broker.wait_uplink()
    story.try_it("alpha pings the world", lambda: round_trip(in_guest(alpha), WORLD_ADDRESS))
    story.try_it("beta pings the world by IPv6", lambda: over_ipv6(beta))
    story.try_it("beta looks up a name of the world", lambda: names(beta))
    story.try_it(f"the world reaches alpha through port {PORT} of the host", lambda: forwarded(broker, alpha, lab))
    story.chapter("throughput, one TCP stream")
    story.try_it("alpha to beta", lambda: gigabits(in_guest(alpha), beta.address))
    story.try_it("alpha (native) to the world", lambda: gigabits(in_guest(alpha), WORLD_ADDRESS))
    story.try_it("the world to alpha (native)", lambda: gigabits(in_guest(alpha), WORLD_ADDRESS, "-R"))
    story.chapter("privileges, and a broker that dies")
    story.try_it("who runs what", lambda: powers(broker))
    story.try_it("kill -9 of the broker", lambda: survive(broker, vms))


def end(broker: RootlessBroker, vms: list[VM]) -> str:
    for vm in vms:
        vm.guest.close()
        vm.process.terminate()
        vm.process.wait(10)
    os.kill(broker.pid("supervisor"), signal.SIGTERM)
    broker.wait_nothing_left()
    return "no process, namespace, socket or record is left"


def main() -> int:
    story = Story()
    story.chapter("a guest: Debian's cloud kernel and a busybox initramfs")
    kit = guestkit.build(story.say)
    story.say(f"runs under {kit.accelerator.upper()}")
    with tempfile.TemporaryDirectory(prefix="vmnet-demo-", dir="/tmp") as place, Lab() as lab:
        os.chmod(place, 0o755)
        bin_dir = programs.reachable(Path(os.environ["VMNET_BIN"]), Path(place))
        kit = guestkit.reachable(kit, Path(place))
        story.chapter("a host and the internet, as namespaces; no broker, and a user whom nobody gave anything")
        prepare_world(lab)
        lab.internet.start_iperf3()
        user = OrdinaryUser(lab)
        try:
            user.write_resolv_conf(WORLD_ADDRESS)
            story.say(f"uid {user.user.uid}: no group, no sudo, no capability, nothing configured")
            broker = RootlessBroker(user, bin_dir)
            story.chapter("two VMs of his; the first one's vmnet-client starts his broker")
            vms = []
            for name, attach in (("alpha", "native"), ("beta", "stream")):
                story.say(f"vmnet-client --attach {attach} --qemu --network shared --hostname {name} -- qemu-system-x86_64 ...")
                vms.append(VM(broker, bin_dir, kit, name, attach))
            for vm in vms:
                vm.guest.wait_ready(120)
                story.say(f"{vm.name} booted")
            show(story, lab, broker, vms)
            story.try_it("after the end of VMs and broker", lambda: end(broker, vms))
        finally:
            user.close()
    return story.summary()


if __name__ == "__main__":
    tell(main)
