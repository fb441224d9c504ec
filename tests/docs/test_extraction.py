"""What counts as a command line, and which marker is whose: nothing may slip through lib/doc_commands.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib import doc_commands


def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str = "page.md") -> list[doc_commands.Command]:
    monkeypatch.setattr(doc_commands, "ROOT", tmp_path)
    page = tmp_path / name
    page.write_text(text)
    return doc_commands.commands_of(page)


CASES = {
    "indented": ("Text:\n\n    vmnetctl networks\n    vmnetctl doctor\n", [(3, "vmnetctl networks"), (4, "vmnetctl doctor")]),
    "behind a heading": ("# Title\n    vmnetctl networks\n", [(2, "vmnetctl networks")]),
    "fenced": ("```\nvmnetctl networks\n```\n", [(2, "vmnetctl networks")]),
    "fenced as sh, any program": ("```sh\nfrobnicate\n```\n", [(2, "frobnicate")]),
    "another language": ("```json\nvmnetctl networks\n```\n", []),
    "an unknown program beside a known one": ("\n    vmnetctl networks\n    frobnicate\n", [(2, "vmnetctl networks"), (3, "frobnicate")]),
    "a drawing": ("```\n vmnet-client ---> TAP\n```\n", [(2, " vmnet-client ---> TAP")]),
    "JSON": ('\n    { "lab": { "mode": "host" } }\n', []),
    "comments": ("```sh\n# all of them\nvmnetctl networks # here\n```\n", [(3, "vmnetctl networks # here")]),
    "console": ("```console\n$ vmnetctl networks\nNETWORK MODE\n# vmnet-broker -v\n```\n", [(2, "vmnetctl networks"), (4, "vmnet-broker -v")]),
    "continued": ("\n    vmnet-client \\\n      -- env\n    vmnetctl doctor\n", [(2, "vmnet-client \\\n  -- env"), (4, "vmnetctl doctor")]),
    "with variables": ("\n    A=1 sudo vmnetctl networks\n", [(2, "A=1 sudo vmnetctl networks")]),
    "in a sentence": ("Say `vmnetctl doctor`, not `vmnetctl` or `ip link`.\n", [(1, "vmnetctl doctor")]),
    "in a table": ("| a |\n|---|\n| `vmnet-broker --check-config` |\n", [(3, "vmnet-broker --check-config")]),
    "a possessive": ("`vmnet-broker's socket` is one.\n", []),
}


@pytest.mark.parametrize("name", CASES)
def test_lines(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, wanted = CASES[name]
    assert [(one.line, one.text) for one in read(tmp_path, monkeypatch, text)] == wanted


def markers(commands: list[doc_commands.Command]) -> list[str | None]:
    return [one.marker and f"{one.marker.kind}: {one.marker.text}" for one in commands]


def test_markers_hold_for_what_is_next_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """<!-- not run: needs
Wi-Fi -->
    vmnetctl networks
    vmnetctl doctor

Then:

    vmnetctl networks

<!-- run by tests/x.py: how -->
Say `vmnetctl doctor`.
And `vmnetctl doctor` again, and <!-- not run: it is late --> `vmnetctl networks`.
<!-- a remark -->
    vmnetctl networks
"""
    found = markers(read(tmp_path, monkeypatch, text))
    late = "not run: it is late"
    assert found == ["not run: needs Wi-Fi"] * 2 + [None, None, "run by: tests/x.py: how", late, late]


def test_a_marker_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "<!-- page: run by tests/x.py: all -->\n\n    vmnetctl networks\n\n<!-- not run: two words -->\n    vmnetctl doctor\n"
    assert markers(read(tmp_path, monkeypatch, text)) == ["run by: tests/x.py: all", "not run: two words"]


def test_man_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """# SYNOPSIS

*vmnetctl doctor* is no command line here

See *vmnetctl doctor* and *vmnetctl*(1).

; not run: for a reason
```
vmnetctl networks
```
"""
    commands = read(tmp_path, monkeypatch, text, "page.1.scd")
    assert [(one.text, one.marker is None) for one in commands] == [("vmnetctl networks", False), ("vmnetctl doctor", True)]


@pytest.mark.parametrize(
    ("text", "is_synopsis"),
    [
        ("vmnet-client [options] -- command ...", True),
        ("vmnetctl forward PORT VM", True),
        ("vmnet-helper --fd N", True),
        ("vmnet-client -- qemu-system-x86_64 -m 1G web.img", False),
        ("vmnetctl forward 8080 web:80", False),
    ],
)
def test_synopses(text: str, is_synopsis: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (within,) = read(tmp_path, monkeypatch, f"Say `{text}`.\n")
    assert within.is_synopsis == is_synopsis
    (block,) = read(tmp_path, monkeypatch, f"\n    {text}\n")
    assert not block.is_synopsis, "a block is what a reader copies"
