"""vmnetctl doctor: what it finds, and that its mend mends it."""

from __future__ import annotations

import json
import re

import pytest

from lib.broker import MEMBER, VarlinkError
from lib.household import NATIVE, UFW, apply_firewall, resident, start_second_dns, wait_rules
from lib.lab import UPLINK, wait_for


@pytest.fixture
def doctor(lab, bin_dir):
    """doctor(broker): its findings by their word, and its rules; checks that both forms and the status agree."""
    lab.internet.start_echo()

    def ask(broker, user=MEMBER):
        environment = {"VMNET_BROKER_SOCKET": str(broker.socket_path)}
        run = lambda *options: lab.host.run(  # noqa: E731
            [bin_dir / "vmnetctl", "doctor", *options], user=user, env=environment, check=False
        )
        machine, people = run("--json"), run()
        answer = json.loads(machine.stdout)
        assert machine.returncode == people.returncode == (1 if answer["findings"] else 0), people.stderr
        for finding in answer["findings"]:
            assert finding["text"] in people.stdout and f"mend: {finding['mend']}\n" in people.stdout
        assert ("nothing found" in people.stdout) == (not answer["findings"])
        return {finding["problem"]: finding for finding in answer["findings"]}, answer["accepts"]

    return ask


def test_nothing_is_found_on_a_host_that_is_well(make_broker, bin_dir, doctor):
    broker = make_broker()
    assert doctor(broker) == ({}, [])
    with resident(broker, bin_dir):
        assert doctor(broker) == ({}, [])


def test_rules_in_other_firewalls_are_listed(lab, make_broker, bin_dir, doctor):
    broker = make_broker()
    apply_firewall(lab.host, UFW)
    with resident(broker, bin_dir):
        findings, accepts = doctor(broker)
        assert not findings
        assert len(accepts) == 12
        assert all(re.fullmatch(r"ip6? filter (INPUT|FORWARD): vmbr[0-9a-f]{8} [a-z0-9-]+", rule) for rule in accepts)


def test_output_that_drops(lab, make_broker, bin_dir, doctor):
    broker = make_broker()
    with resident(broker, bin_dir) as vm:
        drop = "add chain inet filter output { type filter hook output priority filter; policy drop; }"
        apply_firewall(lab.host, NATIVE + f"nft '{drop}'")
        wait_rules(lab.host, bool, 10, "accepts elsewhere")
        findings, _ = doctor(broker)
        assert list(findings) == ["output-drops"]
        assert "dhcp" in vm.broken()
        apply_firewall(lab.host, findings["output-drops"]["mend"])
        assert not vm.broken()


def test_table_that_another_process_keeps_to_itself(lab, make_broker, bin_dir, doctor):
    """As firewalld 2 does. The keeper alone could mend it, so here it only has to be found."""
    broker = make_broker()
    keeper = lab.host.popen(["nft", "-i"], stdin=-1)
    keeper.stdin.write(
        b"add table inet kept { flags owner; }\n"
        b"add chain inet kept forward { type filter hook forward priority filter; policy drop; }\n"
    )
    keeper.stdin.flush()
    wait_for(lambda: "kept" in lab.host.run(["nft", "list", "tables"]).stdout, 5, "a table with an owner")
    with resident(broker, bin_dir) as vm:
        assert vm.broken() == ["out"]
        findings, accepts = doctor(broker)
        assert list(findings) == ["firewall-drops"] and not accepts
        assert "chain forward of the firewall's table inet kept" in findings["firewall-drops"]["text"]
        keeper.stdin.close()
        keeper.wait(5)
        assert not vm.broken()


def test_old_iptables(lab, make_broker, bin_dir, doctor):
    broker = make_broker()
    apply_firewall(lab.host, "iptables-legacy -P FORWARD DROP; iptables-legacy -P INPUT DROP")
    with resident(broker, bin_dir) as vm:
        assert "out" in vm.broken() and "dhcp" in vm.broken()
        findings, _ = doctor(broker)
        assert list(findings) == ["legacy-firewall"]
        apply_firewall(lab.host, findings["legacy-firewall"]["mend"])
        wait_for(lambda: set(vm.broken()) <= {"from_host"}, 2, "the mend")


def test_forwarding_turned_off(lab, make_broker, bin_dir, doctor):
    broker = make_broker()
    with resident(broker, bin_dir) as vm:
        # For all at once: noticed and mended.
        lab.host.sysctl("net/ipv4/ip_forward", 1)
        lab.host.sysctl("net/ipv4/ip_forward", 0)
        wait_for(lambda: lab.host.sysctl(f"net/ipv4/conf/{UPLINK}/forwarding") == "1", 10, "forwarding again")
        assert not vm.broken()
        lab.host.sysctl(f"net/ipv4/conf/{UPLINK}/forwarding", 0)
        assert vm.broken() == ["out"]
        findings, _ = doctor(broker)
        assert list(findings) == ["forwarding-off"]
        apply_firewall(lab.host, findings["forwarding-off"]["mend"])
        assert not vm.broken() and not doctor(broker)[0]


def test_host_offline(lab, make_broker, bin_dir, doctor):
    broker = make_broker()
    lab.host.ip("route", "delete", "default")
    findings, _ = doctor(broker)
    assert list(findings) == ["no-route"]
    with resident(broker, bin_dir) as vm:
        assert vm.broken() == ["out"]
        apply_firewall(lab.host, findings["no-route"]["mend"].replace("ROUTER", "198.51.100.1"))
        wait_for(lambda: not vm.broken(), 2, "the mend")
    assert not doctor(broker)[0]


def test_subnet_taken(lab, make_broker, doctor):
    broker = make_broker(idle_timeout_s=1)
    with broker.connect() as peer:
        peer.call("AcquireNetwork", network="shared")
        lab.host.ip("address", "add", "192.168.64.77/24", "dev", UPLINK)
        findings, _ = doctor(broker)
        assert list(findings) == ["subnet-taken"]
        assert findings["subnet-taken"]["network"] == "shared" and UPLINK in findings["subnet-taken"]["text"]
    wait_for(lambda: not broker.links(), 6, "removal of the network")
    assert not doctor(broker)[0]


def test_second_dns_server(lab, make_broker, bin_dir, doctor):
    broker = make_broker()
    process = start_second_dns(lab.host, None)
    with broker.connect() as peer, pytest.raises(VarlinkError):
        peer.call("AcquireNetwork", network="shared")
    findings, _ = doctor(broker)
    assert set(findings) == {"port-taken", "start-failed"}
    assert f"dnsmasq (process {process.pid})" in findings["port-taken"]["text"]
    assert "bind-interfaces" in findings["port-taken"]["mend"]
    process.kill()
    process.wait(5)
    with resident(broker, bin_dir) as vm:
        assert not vm.broken()
    assert not doctor(broker)[0]


def test_broken_configuration(make_broker, doctor):
    broker = make_broker(networks={"bad": {"mode": "shard"}})
    findings, _ = doctor(broker)
    assert list(findings) == ["out-of-service"]
    assert findings["out-of-service"]["network"] == "bad"
    assert "shared, host, bridged" in findings["out-of-service"]["text"]


def test_no_broker(lab, bin_dir):
    result = lab.host.run([bin_dir / "vmnetctl", "doctor", "--socket", "/nowhere/socket"], user=MEMBER, check=False)
    assert result.returncode == 1 and "/nowhere/socket" in result.stderr


def test_questions_without_end_are_refused(broker):
    """Each costs the privileged part a look at every chain."""
    with broker.connect(MEMBER) as peer, pytest.raises(VarlinkError) as caught:
        for _ in range(60):
            peer.send("Diagnose", {})
        for _ in range(60):
            peer.reply()
    assert caught.value.name == "QuotaExceeded"
    with broker.connect() as peer:
        assert peer.call("ListNetworks")[0]["networks"]
