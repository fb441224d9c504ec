"""The benchmark itself, in small: one short case has to yield figures, so that it cannot rot unseen."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = ("frame-blaster", "frame-ping", "gap-meter", "one-frame-forwarder", "vhost-user-guest", "vm-simulator")


def run(tmp_path: Path, *words: str) -> tuple[int, str, dict[str, object]]:
    """The benchmark on the build under test: its status, what it printed, and its JSON."""
    figures = tmp_path / "figures.json"
    command = ["/usr/bin/python3", REPOSITORY / "bench/main.py", "--bin", os.environ["VMNET_BIN"], "--quick"]
    done = subprocess.run(
        [*command, "--json", figures, *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120
    )
    return done.returncode, done.stdout, json.loads(figures.read_text()) if figures.exists() else {}


def medians(result: dict[str, object], line: str) -> dict[tuple[str, str], float]:
    """By direction and figure."""
    summaries = [one for one in result["summaries"] if one["line"] == line]
    return {(one["direction"], one["figure"]): one["median"] for one in summaries}


def test_a_case_yields_figures_of_every_line(tmp_path: Path) -> None:
    wanted = ("small frames: helper datagram, small buffers", "small frames: one-frame forwarder", "round trip: native")
    status, said, result = run(tmp_path, *(word for one in wanted for word in ("--only", one)))
    assert status == 0, said
    assert result["problems"] == []
    for line in ("helper datagram, small buffers", "one-frame forwarder"):
        figures = medians(result, line)
        for direction in ("VM->host", "host->VM"):
            assert figures[direction, "throughput"] > 0.001, said
            assert 0 < figures[direction, "cpu"] < figures[direction, "cpu with VM"], said
    assert medians(result, "native")["", "round trip"] > 1


def test_targets_are_computed_and_plots_are_drawn(tmp_path: Path) -> None:
    status, said, result = run(tmp_path, "--only", "round trip")
    assert status == 0, said
    above = [one for one in result["targets"] if one["target"] == "round trip: helper datagram above native"]
    assert [one["verdict"] in ("met", "NOT MET") for one in above] == [True], said
    assert all(one["verdict"] == "not measured" for one in result["targets"] if one["target"].startswith("soak"))


def test_what_cannot_run_fails_the_benchmark_and_is_named(tmp_path: Path) -> None:
    words = ("--helper", "broken=/bin/false", "--only", "small frames: broken datagram, small")
    status, said, result = run(tmp_path, *words)
    assert status == 1, said
    assert any("broken datagram, small buffers" in problem for problem in result["problems"]), said


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_are_built(program: str) -> None:
    assert (Path(os.environ["VMNET_BIN"]) / "bench" / program).exists()
