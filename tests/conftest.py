"""Fixtures of the namespace and guest tests. The lab's own code is in tests/lib.

    VMNET_BIN=build pytest tests/netns tests/guest

VMNET_BIN is the directory with the programs; meson's build directory will do, as programs are looked for below it.
VMNET_HELPER_BIN, if set, is the directory to take vmnet-helper from instead: a build with another sanitizer.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lib import guestkit, programs  # noqa: E402
from lib.broker import Broker  # noqa: E402
from lib.lab import Lab  # noqa: E402
from lib.rootless import OrdinaryUser, RootlessBroker  # noqa: E402

LOGS = pytest.StashKey[list[tuple[str, Callable[[], str]]]]()


@pytest.fixture(scope="session")
def public_directory() -> Iterator[Path]:
    """A place for copies of what the tests' ordinary users must reach: a checkout may well be below /root."""
    with tempfile.TemporaryDirectory(prefix="vmnet-test-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.fixture(scope="session")
def bin_dir(public_directory: Path) -> Path:
    """One directory with every program in it, which every user can reach."""
    setting = os.environ.get("VMNET_BIN")
    if not setting:
        pytest.fail("VMNET_BIN isn't set: it names the directory with the built programs", pytrace=False)
    try:
        return programs.reachable(Path(setting), public_directory, {"vmnet-helper": os.environ.get("VMNET_HELPER_BIN")})
    except programs.MissingProgram as error:
        pytest.fail(f"VMNET_BIN={setting}: {error}", pytrace=False)


@pytest.fixture(scope="session")
def release_bin_dir(bin_dir: Path, public_directory: Path) -> Path:
    """The programs without sanitizers, for what those distort; VMNET_RELEASE_BIN names their directory."""
    setting = os.environ.get("VMNET_RELEASE_BIN")
    if not setting:
        return bin_dir
    place = public_directory / "release"
    place.mkdir()
    return programs.reachable(Path(setting), place)


@pytest.fixture(scope="session")
def guest_kit(public_directory: Path) -> guestkit.Kit:
    """Kernel, initramfs and accelerator for guests; made on first use."""
    return guestkit.reachable(guestkit.build(), public_directory)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Fresh namespaces for one test."""
    with Lab() as lab:
        yield lab


@pytest.fixture
def show_on_failure(request: pytest.FixtureRequest) -> Callable[[str, Callable[[], str]], None]:
    """show_on_failure(title, function): the function's text is printed if the test fails."""
    logs = request.node.stash.setdefault(LOGS, [])
    return lambda title, text: logs.append((title, text))


@pytest.fixture
def make_broker(
    lab: Lab, bin_dir: Path, show_on_failure: Callable[[str, Callable[[], str]], None]
) -> Iterator[Callable[..., Broker]]:
    """make_broker(**options): a running Broker, see lib.broker; several if you like."""
    brokers: list[Broker] = []

    def make(start: bool = True, programs: Path = bin_dir, **options: Any) -> Broker:
        broker = Broker(lab, programs, start=False, **options)
        brokers.append(broker)
        show_on_failure(f"vmnet-broker {broker.directory}", broker.log)
        if start:
            broker.start()
        return broker

    yield make
    for broker in brokers:
        broker.close()


@pytest.fixture
def broker(make_broker: Callable[..., Broker]) -> Broker:
    """A running broker with the built-in networks."""
    return make_broker()


@pytest.fixture
def make_user(lab: Lab) -> Iterator[Callable[..., OrdinaryUser]]:
    """make_user(**options): an ordinary user of the lab's host, see lib.rootless."""
    users: list[OrdinaryUser] = []

    def make(**options: Any) -> OrdinaryUser:
        users.append(OrdinaryUser(lab, **options))
        return users[-1]

    yield make
    for user in users:
        user.close()


@pytest.fixture
def make_rootless(
    make_user: Callable[..., OrdinaryUser], bin_dir: Path, show_on_failure: Callable[[str, Callable[[], str]], None]
) -> Callable[..., RootlessBroker]:
    """make_rootless(**options of make_user): the broker of a new user, not started."""

    def make(user: OrdinaryUser | None = None, **options: Any) -> RootlessBroker:
        broker = RootlessBroker(user or make_user(**options), bin_dir)
        show_on_failure(f"broker of user {broker.member.uid}", broker.log)
        return broker

    return make


def _fail_instead_of_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """A skipped test is one nobody runs: it counts as failed. Expected failures stay."""
    if report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}\nA test that can't run fails; see HACKING.md."


def _read(text: Callable[[], str]) -> str:
    """A failure at the very end finds logs whose directory is gone already."""
    try:
        return text()
    except FileNotFoundError as error:
        return str(error)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    _fail_instead_of_skip(report)
    if report.failed:
        report.sections += [(title, _read(text)) for title, text in item.stash.get(LOGS, [])]


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    outcome = yield
    _fail_instead_of_skip(outcome.get_result())
