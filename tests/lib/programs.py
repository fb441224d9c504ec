"""The built programs where every user can reach them: a checkout may well be below /root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = ("vmnet-broker", "vmnet-client", "vmnet-helper", "vmnetctl", "client", "vm-simulator", "vhost-user-guest")


class MissingProgram(Exception):
    """A program isn't there; the text says which."""


def everybody_can_reach(path: Path) -> bool:
    return all(step.stat().st_mode & 0o001 for step in (path, *path.parents) if step.is_dir())


def _reachable_build(given: Path, copy: Path) -> Path:
    given = given.resolve()
    if everybody_can_reach(given):
        return given
    shutil.copytree(given, copy, symlinks=True, ignore=shutil.ignore_patterns("*.p", "meson-*", "*.a", "*.o"))
    return copy


def reachable(given: Path, place: Path, instead: Mapping[str, str | None] | None = None) -> Path:
    """A directory below place with a link to every program in or below given, copied first where it has to be.

    instead names other builds for some of the programs.
    """
    builds = {None: _reachable_build(given, place / "build")}
    links = place / "bin"
    links.mkdir()
    for name in PROGRAMS:
        other = (instead or {}).get(name)
        if other not in builds:
            builds[other] = _reachable_build(Path(other), place / name)
        # Other builds may lie below this one: the nearest is meant.
        found = sorted(builds[other].rglob(name), key=lambda path: len(path.parts))
        found = [path for path in found if path.is_file() and os.access(path, os.X_OK)]
        if not found:
            raise MissingProgram(f"{name} isn't in {builds[other]} or below; build first")
        (links / name).symlink_to(found[0])
    return links
