"""scripts/bench, behind the build: the command line, and one run from first to last."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))
sys.path.insert(0, str(REPOSITORY))

from bench import cases, machine  # noqa: E402
from bench.cables import Helper  # noqa: E402
from bench.place import Place  # noqa: E402
from bench.report import Report  # noqa: E402
from bench.runner import Results, run_case  # noqa: E402
from bench.targets import verdicts  # noqa: E402
from lib import programs  # noqa: E402
from lib.lab import Lab  # noqa: E402


def parse_helper(text: str) -> Helper:
    """LABEL=PATH or LABEL=PATH,ARGUMENT,... or PATH; a word NAME=VALUE among the arguments is environment."""
    label, equals, rest = text.partition("=")
    if not equals or "/" in label:
        label, rest = "helper", text
    path, *words = rest.split(",")
    return Helper(
        label,
        Path(path).resolve() if path else None,
        tuple(word for word in words if word.startswith("-")),
        tuple(tuple(word.split("=", 1)) for word in words if not word.startswith("-")),
    )


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement (2); iperf3 takes whole ones")
    parser.add_argument("--rounds", type=int, default=5, help="of each case (5)")
    parser.add_argument("--quick", action="store_true", help="one round of 1 s, to see that it runs")
    parser.add_argument(
        "--only", action="append", metavar="TEXT",
        help="cases and lines whose name has it, or CASE: LINE; repeatable",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list cases and lines")
    parser.add_argument("--bin", type=Path, default=REPOSITORY / "build/release", help="build directory")
    parser.add_argument(
        "--helper", action="append", type=parse_helper, metavar="[LABEL=]PATH[,ARGUMENT...][,NAME=VALUE...]",
        help="another vmnet-helper, or one with more arguments or environment; several interleave. An empty PATH is "
        "the build's own",
    )  # fmt: skip
    parser.add_argument("--passt", default="passt", metavar="PATH", help="another passt than Debian's")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md and what belongs to it; with --only "
                        "these cases are replaced there, and the others stay")
    return parser.parse_args(arguments)


def _is_chosen(word: str, case: str, line: str) -> bool:
    wanted_case, colon, wanted_line = word.partition(": ")
    if colon:
        return wanted_case == case and wanted_line in line
    return word in case or word in line


def select(all_cases: list[cases.Case], words: list[str] | None) -> list[cases.Case]:
    """Whole cases, and lines of cases; all when nothing is asked for."""
    if not words:
        return all_cases
    chosen = []
    for case in all_cases:
        entries = tuple(
            entry for entry in case.entries if any(_is_chosen(word, case.name, entry.name) for word in words)
        )
        if entries:
            chosen.append(dataclasses.replace(case, entries=entries))
    return chosen


def measure(options: argparse.Namespace, chosen: list[cases.Case], label: str) -> Report:
    results = Results()
    started, load_before = time.monotonic(), machine.load()
    with tempfile.TemporaryDirectory(prefix="vmnet-bench-", dir="/tmp") as temporary:
        os.chmod(temporary, 0o755)
        bin_dir = programs.reachable(options.bin, Path(temporary))
        with Lab() as lab, Place(lab, bin_dir, options.bin / "bench", options) as place:
            for case in chosen:
                run_case(place, case, options.rounds, options.seconds, results)
            described = machine.describe(bin_dir / "vmnet-helper", load_before, *place.guest_kinds())
    how = (
        f"Rounds: {options.rounds}, each figure measured for {options.seconds} s; the whole run took "
        f"{(time.monotonic() - started) / 60:.0f} minutes. Figures are medians, with the lowest and the highest; "
        "ratios of targets are medians of the rounds' own ratios."
    )
    return Report(results, chosen, verdicts(results.samples, label), described, how)


def run(options: argparse.Namespace) -> int:
    helpers = tuple(options.helper or [Helper()])
    all_cases = cases.all_cases(helpers)
    chosen = select(all_cases, options.only)
    if options.list:
        for case in chosen:
            print(f"{case.name}: {'; '.join(entry.name for entry in case.entries)}")
        return 0
    if not chosen:
        wanted = " ".join(options.only)
        print(f"scripts/bench: --only {wanted}: no such case or line; --list shows them", file=sys.stderr)
        return 1
    if options.quick:
        options.seconds, options.rounds = 1, 1
    report = measure(options, chosen, helpers[0].label)
    print("\n" + report.markdown("performance"))
    if options.json:
        options.json.write_text(report.json())
    if options.write:
        if options.only:
            earlier = json.loads((REPOSITORY / "docs/performance/results.json").read_text())
            report = report.with_others(earlier, all_cases, lambda samples: verdicts(samples, helpers[0].label))
        report.write_documentation(REPOSITORY / "docs/performance.md")
    return 1 if report.results.problems else 0


if __name__ == "__main__":
    sys.exit(run(parse_options()))
