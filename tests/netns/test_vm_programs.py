"""VM programs that can't be had here: the calls that they make are made by a program in their place."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from lib import vm_program_calls
from lib.broker import MEMBER

PAGES = Path(__file__).resolve().parents[2] / "docs" / "vm-programs"
ATTACH = {
    "firecracker": ("tap",),
    "libkrun-tap": ("tap",),
    "crosvm-named": ("tap",),
    "crosvm-fd": ("native",),
    "cloud-hypervisor-named": ("tap",),
    "cloud-hypervisor-fds": ("native", "--queues", "2"),
}
assert set(ATTACH) == set(vm_program_calls.PROGRAMS)


@pytest.fixture
def script(lab):
    copy = lab.directory / "vm_program_calls.py"
    shutil.copy(vm_program_calls.__file__, copy)
    return copy


@pytest.mark.parametrize("mtu", [1500, 9000])
@pytest.mark.parametrize("program", ATTACH)
def test_calls(make_broker, bin_dir, script, program, mtu):
    broker = make_broker(networks={"net": {"mode": "host", "mtu": mtu, "subnet": "10.77.0.0/24"}})
    result = broker.namespace.run(
        [bin_dir / "vmnet-client", "--network", "net", "--attach", *ATTACH[program], "--"]
        + ["/usr/bin/python3", script, program, "10.77.0.1"],
        user=MEMBER, env={"VMNET_BROKER_SOCKET": str(broker.socket_path)}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    line, said = result.stdout.splitlines()
    assert json.loads(line)["vmnet_mtu"] == mtu and said == "answered"


# In the place of each: shows what it was told, and the file that it was given.
IN_ITS_PLACE = """#!/bin/sh
printf 'told %s\\n' "$@"
[ ! -r vm.json ] || sed 's/^/file /' vm.json
"""
NAMES = ("cloud-hypervisor", "crosvm", "firecracker", "krunkit", "my-krun-program")


def lines_of(page):
    """vmnet-client's: lines of indented blocks, and whole blocks of shell."""
    text = page.read_text()
    return re.findall(r"^    (vmnet-client .*)$", text, re.M) + re.findall(r"^```sh\n(vmnet-client .*?)^```$", text, re.M | re.S)


def lines():
    found = [(page.stem, line) for page in sorted(PAGES.glob("*.md")) if page.stem not in ("index", "qemu") for line in lines_of(page)]
    assert {stem for stem, _ in found} == {"cloud-hypervisor", "crosvm", "libkrun", "firecracker"}
    return found


@pytest.fixture
def place(lab, bin_dir):
    """A user's directory, with the programs in PATH."""
    directory = lab.public_directory("desk", MEMBER)
    for name in NAMES:
        (directory / name).write_text(IN_ITS_PLACE)
        (directory / name).chmod(0o755)
    return directory


@pytest.mark.parametrize(("program", "text"), lines())
def test_lines(broker, bin_dir, place, program, text):
    """Each word that needs something from the environment has it when the program is started."""
    result = broker.namespace.run(
        ["sh", "-c", text], user=MEMBER, check=False, cwd=place,
        env={
            "VMNET_BROKER_SOCKET": str(broker.socket_path),
            "PATH": f"{bin_dir}:{place}:/usr/bin:/bin",
            "XDG_RUNTIME_DIR": str(place),
        },
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    first, *rest = result.stdout.splitlines()
    line = json.loads(first)
    words = [word.removeprefix("told ") for word in rest if word.startswith("told ")]
    file = "\n".join(word.removeprefix("file ") for word in rest if word.startswith("file "))
    assert "$" not in "".join(words) + file
    if program == "firecracker":
        (interface,) = json.loads(file)["network-interfaces"]
        assert interface == {
            "iface_id": "eth0", "guest_mac": line["vmnet_mac_address"], "host_dev_name": line["vmnet_interface_name"],
        }  # fmt: skip
    for variable, value in (("VMNET_MAC_ADDRESS", line["vmnet_mac_address"]), ("VMNET_INTERFACE_NAME", line["vmnet_interface_name"])):
        assert (variable in text) == (value in "".join(words) + file), variable
    if "VMNET_VHOST_USER_SOCKET" in text:
        assert re.search(rf"socket={place}/vmnet-[^/,]+/net(,|$)", "\n".join(words), re.M)
    # Whoever is told of an fd is attached by one.
    assert bool(re.search(r"fd=\[?4", " ".join(words))) == ("fd=" in text)


def test_every_program_has_a_page_that_says_how_it_is_known():
    index = (PAGES / "index.md").read_text()
    pages = sorted(page for page in PAGES.glob("*.md") if page.name != "index.md")
    assert len(pages) == 5
    for page in pages:
        assert f"]({page.name})" in index
        text = page.read_text()
        assert "run by the tests" in text or re.search(r"checked against its source.{0,40}[0-9a-f]{7}", text, re.S), page
