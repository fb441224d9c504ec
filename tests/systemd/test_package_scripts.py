"""What the packages' scripts do where a step of theirs fails, and where names are like ours; all else is in test_packages.py."""

from __future__ import annotations

import subprocess

import pytest

from lib import doc_commands

BROKER = "/usr/libexec/vmnet-broker"
# In namespaces of its own: its /run is empty but for what says that systemd runs.
INSIDE = """set -e
mount -t tmpfs none /run && mkdir -p /run/systemd/system
mount -t sysfs none /sys
ip link add "$1" type bridge
shift
exec sh -e "$@"
"""


@pytest.fixture
def run(tmp_path):
    """run(script, argument, link=, **statuses): the script's result and the commands that it gave to these programs."""

    def run(script, argument, link="vmbr0badcafe", **statuses):
        log = tmp_path / "log"
        log.write_text("")
        for program in ("deb-systemd-invoke", "systemctl", "systemd-run"):
            stub = tmp_path / program
            stub.write_text(f'#!/bin/sh\necho "{program} $*" >>{log}\nexit {statuses.get(program.replace("-", "_"), 0)}\n')
            stub.chmod(0o755)
        path = doc_commands.ROOT / "debian" / script
        result = subprocess.run(
            ["unshare", "--mount", "--net", "sh", "-c", INSIDE, "sh", link, path, argument],
            env={"PATH": f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
        )
        return result, log.read_text().splitlines()

    return run


def test_a_broker_that_does_not_start_is_no_reason_to_stay_installed(run):
    """Such a one is what people remove."""
    result, given = run("vmnet-broker.prerm", "remove", systemd_run=1)
    assert any(line.startswith("systemd-run ") and BROKER in line for line in given)
    assert result.returncode == 0, result.stderr
    assert "could not be started" in result.stderr and "next boot" in result.stderr


@pytest.mark.parametrize("link", ["vmbr0", "vmtap1", "vmbr0badcafe0"])
def test_links_with_names_like_ours(run, link):
    """Such as those of Proxmox VE: nothing is said of VMs that are not there."""
    result, given = run("vmnet-broker.prerm", "remove", link)
    assert result.returncode == 0 and result.stderr == ""
    assert not [line for line in given if line.startswith("systemd-run")]


@pytest.mark.parametrize("argument", ["configure", "abort-remove"])
def test_who_stays_or_comes_back_takes_over(run, argument):
    """dpkg says abort-remove when a removal failed behind prerm, which had started the last broker."""
    result, given = run("vmnet-broker.postinst", argument)
    assert result.returncode == 0, result.stderr
    assert "deb-systemd-invoke stop vmnet-broker-farewell.service" in given
