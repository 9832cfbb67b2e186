"""Fixtures of the campaigns."""

import time
from collections.abc import Callable

import pytest

from tests.campaign.sizes import FULL

_FIGURES = pytest.StashKey[list[str]]()

Report = Callable[..., None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what reports figures as a campaign, so that `pytest -m "not campaign"` leaves it out."""
    for item in items:
        if "report" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.campaign)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """`report(handled=200_000, doubles=0)`: figures of this campaign, printed at the end of pytest's output."""
    began = time.monotonic()

    def take(**figures: object) -> None:
        told = {"seconds": round(time.monotonic() - began, 1), **figures}
        size = "full" if FULL else "daily"
        line = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in told.items())
        request.config.stash.setdefault(_FIGURES, []).append(f"{request.node.name} ({size}): {line}")

    return take


def _plain(value: object) -> str:
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and abs(value) < 100
        else f"{value:,}"
        if isinstance(value, (int, float))
        else str(value)
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    figures = terminalreporter.config.stash.get(_FIGURES, [])
    if figures:
        terminalreporter.section("campaigns")
        for line in figures:
            terminalreporter.write_line(line)
