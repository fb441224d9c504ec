"""The command lines of README.md, SECURITY.md, docs/ and man/: what tests/docs runs and scripts/check-docs looks at.

A command line is

- a line of a block (indented, or fenced as nothing, sh or console) whose first word is a program of PROGRAMS; in a block
  that has one, every line is, but for comments and, in console, what has no prompt;
- code within a sentence that starts with a program of ours and says more than its name; but for decisions, which talk of
  commands and do not say what to type.

Each is run by tests/docs, or a marker says otherwise: <!-- not run: why -->, or <!-- run by tests/FILE.py: how -->. It stands
in the line before a block, or in or before the line of code within a sentence; with "page: " in front it holds for all of
the page. In a man page a marker is a comment line: ; not run: why

A line with a placeholder (..., or a word in capitals) is no command line but a synopsis; scripts/check-docs looks at its options.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = re.compile(r"(vmnet-client|vmnet-run|vmnet-helper|vmnet-broker|vmnetctl|scripts/[\w-]+)(\s|$)")
PROGRAMS = frozenset(
    "apt apt-get brew cc cd chmod cloud-hypervisor cp crosvm curl dhclient dnf docker dpkg dpkg-buildpackage echo "
    "firecracker firewall-cmd git go groupadd gvproxy ip iperf3 journalctl kill krunkit ldconfig limactl loginctl ls man "
    "meson mkdir mount nc ncat networkctl nft ninja nsenter passt pasta ping podman python3 qemu-system-x86_64 resolvectl rm "
    "scp sh socat ss ssh su sudo sysctl systemctl systemd-analyze systemd-run systemd-sysusers systemd-tmpfiles tcpdump tshark "
    "ufw unshare useradd usermod varlinkctl virsh wget wireshark".split()
)
MARKER = re.compile(r"(?P<page>page: )?(?P<kind>not run|run by)[: ]+(?P<text>.*)", re.S)
COMMENT = re.compile(r"<!--\s*(.*?)\s*-->", re.S)
PLACEHOLDER = re.compile(r"\.\.\.|\[\w|(?:^|[\s=:])[A-Z][A-Z_]*(?=$|[\s:)\]])|<\w+>")


@dataclass(frozen=True)
class Marker:
    kind: str  # "not run" or "run by"
    text: str


@dataclass(frozen=True)
class Command:
    """text may have several lines, as a shell takes them."""

    page: str  # from the repository's root
    line: int
    text: str
    marker: Marker | None = None
    within_sentence: bool = False

    @property
    def is_synopsis(self) -> bool:
        return self.within_sentence and bool(PLACEHOLDER.search(self.text))


def is_ours(text: str) -> bool:
    return bool(OURS.match(text))


def starts_with_program(line: str) -> bool:
    words = [word for word in line.split() if not re.match(r"[A-Z_]+=", word)]
    return bool(words) and (words[0] in PROGRAMS or is_ours(words[0]))


def pages() -> list[Path]:
    """Every page that people read."""
    return sorted([ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "man").glob("*.scd")])


@dataclass
class _Block:
    line: int
    language: str
    lines: list[str]
    marker: Marker | None = None


def _marker(comment: str) -> tuple[Marker | None, bool]:
    found = MARKER.fullmatch(comment.strip())
    if not found:
        return None, False
    return Marker(found["kind"], " ".join(found["text"].split())), bool(found["page"])


def _goes_on(text: str) -> bool:
    """By a backslash, or because a quote is open."""
    return text.endswith("\\") or (not text.startswith("#") and text.count("'") % 2 == 1)


def _joined(block: _Block) -> Iterator[tuple[int, str]]:
    """Its shell lines, continued ones as one."""
    pending: list[str] = []
    for number, line in enumerate(block.lines, block.line):
        pending.append(line)
        if not _goes_on("\n".join(pending)):
            yield number - len(pending) + 1, "\n".join(pending)
            pending = []


def _block_commands(page: str, block: _Block) -> Iterator[Command]:
    if block.language not in ("", "sh", "console"):
        return
    lines = [(number, text) for number, text in _joined(block) if text.strip()]
    if block.language == "console":
        lines = [(number, text[2:]) for number, text in lines if text.startswith(("$ ", "# "))]
    lines = [(number, text) for number, text in lines if not text.startswith("#")]
    if block.language or any(starts_with_program(text) for _, text in lines):
        for number, text in lines:
            yield Command(page, number, text, block.marker)


class _Page:
    """Splits a page into blocks and sentences."""

    def __init__(self, path: Path) -> None:
        self.name = str(path.relative_to(ROOT))
        self.is_man = path.suffix == ".scd"
        self.lines = path.read_text().splitlines()
        self.blocks: list[_Block] = []
        self.sentences: list[tuple[int, str, Marker | None]] = []
        self.page_marker: Marker | None = None
        self._pending: Marker | None = None
        self._split()

    def _note(self, comment: str) -> Marker | None:
        marker, is_for_page = _marker(comment)
        if is_for_page:
            self.page_marker = marker
            return None
        return marker

    def _split(self) -> None:
        number = 0
        while number < len(self.lines):
            line = self.lines[number]
            if line.startswith("```"):
                number = self._take_fenced(number)
            elif self._starts_indented(number):
                number = self._take_indented(number)
            else:
                number = self._take_sentence(number)

    def _take_fenced(self, start: int) -> int:
        end = next(i for i in range(start + 1, len(self.lines)) if self.lines[i].startswith("```"))
        language = self.lines[start][3:].strip()
        self.blocks.append(_Block(start + 2, language, self.lines[start + 1 : end], self._pending))
        self._pending = None
        return end + 1

    def _starts_indented(self, number: int) -> bool:
        if self.is_man or not self.lines[number].startswith("    "):
            return False
        before = self.lines[number - 1] if number else ""
        return not before.strip() or before.startswith("#") or before.endswith("-->")

    def _take_indented(self, start: int) -> int:
        end = start
        while end < len(self.lines) and self.lines[end].startswith("    "):
            end += 1
        block = _Block(start + 1, "", [line[4:] for line in self.lines[start:end]], self._pending)
        self.blocks.append(block)
        self._pending = None
        return end

    def _take_sentence(self, number: int) -> int:
        line = self.lines[number]
        if self.is_man and line.startswith("; "):
            self._pending = self._note(line[2:])
            return number + 1
        end = number
        if "<!--" in line:
            while "-->" not in self.lines[end]:
                end += 1
            line = "\n".join(self.lines[number : end + 1])
        markers = [marker for comment in COMMENT.findall(line) if (marker := self._note(comment))]
        rest = COMMENT.sub("", line)
        own = markers[0] if markers else None
        if rest.strip():
            self.sentences.append((number + 1, rest, own or self._pending))
            self._pending = None
        elif own:
            self._pending = own
        return end + 1

    def commands(self) -> Iterator[Command]:
        for block in self.blocks:
            yield from _block_commands(self.name, block)
        if "/decisions/" in self.name:
            return
        code = r"\*([^*\n]+)\*" if self.is_man else r"`([^`\n]+)`"
        for number, text, marker in self.sentences:
            if self.is_man and text.startswith("*"):
                continue  # a synopsis, or an option
            for found in re.findall(code, text):
                if is_ours(found) and re.search(r"\s", found):
                    yield Command(self.name, number, found, marker, within_sentence=True)


def commands_of(path: Path) -> list[Command]:
    page = _Page(path)
    return [
        Command(command.page, command.line, command.text, command.marker or page.page_marker, command.within_sentence)
        for command in page.commands()
    ]


def all_commands() -> list[Command]:
    return [command for path in pages() for command in commands_of(path)]


if __name__ == "__main__":
    for command in all_commands():
        how = f"{command.marker.kind}: {command.marker.text}" if command.marker else "synopsis" if command.is_synopsis else "RUN"
        print(f"{command.page}:{command.line}: [{how}] {command.text}")
