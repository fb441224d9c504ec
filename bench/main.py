"""scripts/bench, behind the build: the command line, and one run from first to last."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import os
from dataclasses import asdict
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))
sys.path.insert(0, str(REPOSITORY))

from bench import cases  # noqa: E402
from bench.cables import Helper  # noqa: E402
from bench.place import Place  # noqa: E402
from bench.runner import Results, run_case  # noqa: E402
from bench.stats import summarise  # noqa: E402
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
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs; no documentation")
    parser.add_argument("--only", action="append", metavar="TEXT", help="cases and lines whose name has it; repeatable")
    parser.add_argument("--list", action="store_true", help="list cases and lines")
    parser.add_argument("--bin", type=Path, default=REPOSITORY / "build/release", help="build directory")
    parser.add_argument(
        "--helper", action="append", type=parse_helper, metavar="[LABEL=]PATH[,ARGUMENT...][,NAME=VALUE...]",
        help="another vmnet-helper, or one with more arguments or environment; several interleave. An empty PATH is "
        "the build's own",
    )  # fmt: skip
    parser.add_argument("--passt", default="passt", metavar="PATH", help="another passt than Debian's")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args(arguments)


def select(all_cases: list[cases.Case], words: list[str] | None) -> list[cases.Case]:
    """A word selects a whole case by its name, or lines of any case by theirs."""
    if not words:
        return all_cases
    chosen = []
    for case in all_cases:
        entries = case.entries
        if not any(word in case.name for word in words):
            entries = tuple(entry for entry in entries if any(word in entry.name for word in words))
        if entries:
            chosen.append(cases.Case(case.name, case.title, entries, case.measures, case.level, case.once))
    return chosen


def run(options: argparse.Namespace) -> int:
    helpers = tuple(options.helper or [Helper()])
    chosen = select(cases.all_cases(helpers), options.only)
    if options.list:
        for case in chosen:
            print(f"{case.name}: {'; '.join(entry.name for entry in case.entries)}")
        return 0
    if options.quick:
        options.seconds, options.rounds = 1, 1
    results = Results()
    with tempfile.TemporaryDirectory(prefix="vmnet-bench-", dir="/tmp") as temporary:
        os.chmod(temporary, 0o755)
        bin_dir = programs.reachable(options.bin, Path(temporary))
        with Lab() as lab, Place(lab, bin_dir, options.bin / "bench", options) as place:
            for case in chosen:
                run_case(place, case, options.rounds, options.seconds, results)
    print()
    for (case, line, direction, figure), summary in summarise(results.samples).items():
        print(f"{case:14} {line:34} {direction:10} {figure:12} {summary.median:8.2f}  {summary.low:.2f}..{summary.high:.2f}")
    if options.json:
        options.json.write_text(json.dumps({"samples": [asdict(sample) for sample in results.samples]}, indent=1))
    return 1 if results.problems else 0


if __name__ == "__main__":
    sys.exit(run(parse_options()))
