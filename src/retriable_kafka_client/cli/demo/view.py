"""What is to be seen while the demo runs: a live view in a terminal, a line each second elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from retriable_kafka_client import events
from retriable_kafka_client.stats import Stats

__all__ = ["Latest", "LiveView", "PlainView", "SilentView", "View"]

SHOWN = 7  # of the latest events
RATE_SECONDS = 1.5  # over which the rate is taken


class Latest(logging.Handler):
    """The latest events and log lines, in words. Events come from the consumer's event thread, lines from any."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.began = time.monotonic()  # what the lines' times count from
        self._lines: deque[tuple[float, str, str]] = deque(maxlen=SHOWN)
        self._guard = threading.Lock()

    def event(self, event: events.Event) -> None:
        """Show an event if it is of interest to a person."""
        match event:
            case events.AssignmentStarted():
                self._add("cyan", f"{event.topic}/{event.partition} is ours")
            case events.MessageRetried():
                self._add(
                    "yellow",
                    f"{event.topic}/{event.partition}/{event.offset} failed: {event.error or event.reason}; "
                    f"run {event.attempt + 1} in {event.delay:.1f} s",
                )
            case events.MessageDeadLettered():
                self._add(
                    "red",
                    f"{event.topic}/{event.partition}/{event.offset} is a dead letter: {event.reason} after "
                    f"{event.attempts} attempts",
                )
            case _:
                pass

    def say(self, text: str) -> None:
        """Add a line of the demo's own."""
        self._add("green", text)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log line."""
        self._add("magenta", record.getMessage())

    def _add(self, style: str, text: str) -> None:
        with self._guard:
            self._lines.append((time.monotonic() - self.began, style, text))

    def lines(self) -> list[Text]:
        """The latest, the oldest first; always as many, so that the view keeps its height."""
        with self._guard:
            lines = [
                Text.assemble((f"{at:5.1f} s  ", "dim"), (text, style), no_wrap=True, overflow="ellipsis")
                for at, style, text in self._lines
            ]
        return lines + [Text()] * (SHOWN - len(lines))


class View(Protocol):
    """Something that shows the demo's progress."""

    def running(self) -> AbstractContextManager[object]:
        """Shows while it is entered."""

    def show(self, stats: Stats, sent: int) -> None:
        """Take the latest figures; called about ten times a second."""


class SilentView:
    """Shows nothing; for ``--json``."""

    def running(self) -> AbstractContextManager[object]:
        return nullcontext()

    def show(self, stats: Stats, sent: int) -> None:
        pass


class _Rate:
    """Completed orders a second, over the last while."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def note(self, now: float, count: int) -> float:
        self._points.append((now, count))
        while now - self._points[0][0] > RATE_SECONDS and len(self._points) > 2:
            self._points.popleft()
        began, first = self._points[0]
        return (count - first) / (now - began) if now > began else 0.0


class PlainView:
    """A line each second."""

    def __init__(self, console: Console, orders: int) -> None:
        self._console = console
        self._orders = orders
        self._rate = _Rate()
        self._began = self._next = time.monotonic()

    def running(self) -> AbstractContextManager[object]:
        return nullcontext()

    def show(self, stats: Stats, sent: int) -> None:
        now = time.monotonic()
        rate = self._rate.note(now, stats.handled)
        if now < self._next:
            return
        self._next = now + 1.0
        waiting = sum(one.waiting for one in stats.partitions.values())
        self._console.print(
            f"{now - self._began:5.1f} s  sent {sent}/{self._orders}  handled {stats.handled}  failed {stats.failed}  "
            f"retried {stats.retried}  dead-lettered {stats.dead_lettered}  waiting {waiting}  {rate:.0f}/s",
            highlight=False,
            soft_wrap=True,
        )


class LiveView:
    """Figures, partitions and the latest events, drawn anew ten times a second on a screen of their own."""

    def __init__(self, console: Console, orders: int, title: str, latest: Latest) -> None:
        self._console = console
        self._orders = orders
        self._title = title
        self._latest = latest
        self._rate = _Rate()
        self._began = latest.began = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, screen=True)

    def running(self) -> AbstractContextManager[object]:
        return self._live

    def show(self, stats: Stats, sent: int) -> None:
        now = time.monotonic()
        rate = self._rate.note(now, stats.handled)
        parts: list[RenderableType] = [
            self._progress(stats, rate, now - self._began),
            Text(),
            _beside(self._counts(stats, sent), _partitions(stats)),
            Text(),
            *self._latest.lines(),
        ]
        panel = Panel(
            Group(*parts),
            title=f"[bold]rkc demo[/] on {self._title}",
            subtitle="[dim]Ctrl-C ends it[/]",
            border_style="blue",
            padding=(0, 1),
        )
        self._live.update(panel, refresh=True)

    def _progress(self, stats: Stats, rate: float, elapsed: float) -> Table:
        done = stats.handled + stats.dead_lettered
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_row(
            ProgressBar(total=self._orders, completed=done),
            f"[bold]{done:,}[/] of {self._orders:,} orders  {rate:6,.0f}/s  {elapsed:4.1f} s",
        )
        return grid

    def _counts(self, stats: Stats, sent: int) -> Table:
        waiting = sum(one.waiting for one in stats.partitions.values())
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(justify="right", width=7)
        for name, count, style in (
            ("sent", sent, ""),
            ("handled", stats.handled, "green"),
            ("failed runs", stats.failed, "yellow"),
            ("retried", stats.retried, "yellow"),
            ("dead-lettered", stats.dead_lettered, "red"),
            ("waiting", waiting, "cyan"),
            ("handed out", stats.in_flight, ""),
        ):
            table.add_row(name, Text(f"{count:,}", style=f"bold {style}"))
        return table


def _beside(left: Table, right: Table) -> Table:
    grid = Table.grid(padding=(0, 4))
    grid.add_row(left, right)
    return grid


def _partitions(stats: Stats) -> Table:
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "right", "right"):
        table.add_column(justify=justify)
    table.add_row("[dim]partition[/]", "[dim]done below[/]", "[dim]incomplete[/]", "[dim]waiting[/]")
    for (topic, partition), one in sorted(stats.partitions.items()):
        position = "–" if one.position is None else f"{one.position:,}"
        table.add_row(f"{topic}/{partition}", position, f"{one.incomplete:,}", f"{one.waiting:,}")
    return table
