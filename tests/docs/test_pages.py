"""Man pages, as they are installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from lib import doc_commands


def test_every_page_and_every_name_of_it_is_installed(tmp_path: Path) -> None:
    build = os.environ["VMNET_RELEASE_BIN"]
    command = ["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", str(tmp_path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    installed = {path.name: path for path in tmp_path.rglob("share/man/man*/*")}
    pages = {path.name.removesuffix(".scd") for path in (doc_commands.ROOT / "man").glob("*.scd")}
    assert pages <= installed.keys()
    links = installed.keys() - pages
    assert {"vmnet-run.1", "vmnet-broker.socket.8", "vmnet_broker_connect.3", "vmnet-broker.h.3"} <= links
    for path in installed.values():
        assert path.parent.name == f"man{path.name[-1]}" and path.resolve(strict=True).name in pages
