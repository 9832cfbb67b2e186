"""What the demo did, whether it adds up, and how that is printed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from retriable_kafka_client.cli.demo.brokers import DeadLetter
from retriable_kafka_client.cli.demo.scenario import Feed, OrderPlan, Shop
from retriable_kafka_client.stats import Stats

__all__ = ["Check", "Summary", "print_json", "print_table", "sum_up"]


@dataclass(frozen=True, slots=True)
class Check:
    """Two ways to the same number."""

    what: str
    left: int
    right: int
    terms: str  # how ``right`` comes about

    @property
    def holds(self) -> bool:
        return self.left == self.right


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The whole demo in figures."""

    sent: int
    handled: int
    failed: int
    retried: int
    dead_lettered: int
    seconds: float
    scheduled_delay: float
    scheduled_late: float | None  # seconds after its time; None: it never ran
    dead_letters: tuple[DeadLetter, ...]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether everything adds up, and nothing ran too early."""
        on_time = self.scheduled_late is not None and self.scheduled_late >= 0.0
        return on_time and all(check.holds for check in self.checks)


def sum_up(
    plan: OrderPlan,
    feed: Feed,
    shop: Shop,
    stats: Stats,
    *,
    lag: int,
    dead_letters: list[DeadLetter],
    seconds: float,
) -> Summary:
    """Hold the counts of the sender, the handler, the consumer and the brokers against each other."""
    handled, failed, retried, dead = stats.handled, stats.failed, stats.retried, stats.dead_lettered
    return Summary(
        sent=feed.sent,
        handled=handled,
        failed=failed,
        retried=retried,
        dead_lettered=dead,
        seconds=seconds,
        scheduled_delay=plan.delay,
        scheduled_late=None if shop.scheduled_ran is None else shop.scheduled_ran - feed.scheduled_for,
        dead_letters=tuple(dead_letters),
        checks=(
            Check("orders sent", feed.sent, handled + dead, f"{handled:,} handled + {dead:,} dead-lettered"),
            Check("handler's runs", shop.runs, handled + failed, f"{handled:,} handled + {failed:,} failed"),
            Check("failed runs", failed, retried + dead, f"{retried:,} retried + {dead:,} dead-lettered"),
            Check(
                "planned failures",
                plan.failures,
                failed,
                f"2 × {plan.failing:,} orders + {plan.failures - 2 * plan.failing} of the poison",
            ),
            Check(
                "records read",
                stats.arrived,
                feed.sent + retried,
                f"{feed.sent:,} orders + {retried:,} retry copies",
            ),
            Check("handled orders", shop.different, handled, "once each"),
            Check("dead-letter topic", len(dead_letters), dead, f"{dead:,} dead-lettered"),
            Check("lag of the group", lag, 0, "all is committed"),
        ),
    )


def print_json(summary: Summary) -> None:
    """One JSON object on stdout."""
    whole = asdict(summary) | {"ok": summary.ok}
    whole["checks"] = [asdict(check) | {"holds": check.holds} for check in summary.checks]
    print(json.dumps(whole, indent=2))


def print_table(summary: Summary, console: Console) -> None:
    """The summary for people."""
    parts: list[RenderableType] = [_checks(summary), Text(), _scheduled(summary)]
    parts += [_dead_letter(letter) for letter in summary.dead_letters]
    good = summary.ok
    verdict = "everything adds up" if good else "this does NOT add up"
    console.print(
        Panel(
            Group(*parts),
            title=f"[bold]{verdict}[/]",
            subtitle=f"{summary.seconds:.1f} s in all",
            border_style="green" if good else "red",
            padding=(1, 2),
            expand=False,
        )
    )


def _checks(summary: Summary) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(justify="center")
    table.add_column(justify="right")
    table.add_column(style="dim")
    table.add_column()
    for check in summary.checks:
        table.add_row(
            check.what,
            f"{check.left:,}",
            "=" if check.holds else "≠",
            f"{check.right:,}",
            check.terms,
            Text("ok", style="green") if check.holds else Text("NO", style="bold red"),
        )
    return table


def _scheduled(summary: Summary) -> Text:
    late = summary.scheduled_late
    if late is None:
        return Text("The scheduled order never ran.", style="red")
    if late < 0.0:
        return Text(f"The scheduled order ran {-late * 1000:.0f} ms too early.", style="red")
    return Text(f"The order for {summary.scheduled_delay:g} s later ran {late * 1000:.0f} ms after its time.")


def _dead_letter(letter: DeadLetter) -> Text:
    return Text(
        f"Dead letter of {letter.origin}: {letter.reason} after {letter.attempts} attempts, {letter.error}."
    )
