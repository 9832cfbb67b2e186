"""The one reader of the client's statistics: what a client reports of itself, as JSON, every so often.

Reports cost much where there are many partitions, so only clients that need them are made with them. They come on the thread
that polls the client.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["LatestReport", "Report", "read_report", "reporting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report. Counts are of all requests since the client was made."""

    group_state: str  # of the client's membership, "up" or "wait-coord", say; empty: it is in no group
    has_broker: bool  # whether the connection to any broker is up
    coordinator_questions: int  # how often it has asked for the group's coordinator
    transactions_ended: int  # requests to end a transaction
    timed_out: int  # requests of any kind that timed out


def reporting(settings: Mapping[str, Any], take: Callable[[str], object], every: float) -> dict[str, Any]:
    """Return the settings of a client that gives ``take`` the text of a report every so many seconds.

    ``take`` runs inside the client's poll, and must not raise.
    """
    return {**settings, "statistics.interval.ms": round(every * 1000), "stats_cb": take}


def read_report(text: str) -> Report:
    """Read what ``take`` was given. ValueError: it is no JSON."""
    report = json.loads(text)
    brokers = list((report.get("brokers") or {}).values())

    def requests(kind: str) -> int:
        return sum(int((one.get("req") or {}).get(kind, 0)) for one in brokers)

    return Report(
        group_state=str((report.get("cgrp") or {}).get("state", "")),
        has_broker=any(one.get("state") == "UP" for one in brokers),
        coordinator_questions=requests("FindCoordinator"),
        transactions_ended=requests("EndTxn"),
        timed_out=sum(int(one.get("req_timeouts", 0)) for one in brokers),
    )


class LatestReport:
    """Keeps a client's last report, and reads it only when asked. One thread: the one that polls the client."""

    def __init__(self) -> None:
        self.count = 0  # reports since the client was made
        self._text = "{}"

    def clear(self) -> None:
        """Forget what came: another client reports from now on."""
        self.count, self._text = 0, "{}"

    def take(self, text: str) -> None:
        """Keep this one. The client's callback."""
        self.count += 1
        self._text = text

    def read(self) -> Report:
        """Return the last report; before the first one, that nothing has happened."""
        return read_report(self._text)
