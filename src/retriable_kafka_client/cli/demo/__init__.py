"""`rkc demo`: a consumer at work on thousands of orders, seen live, and a summary that must add up."""

from __future__ import annotations

import logging
import sys
import time

from rich.console import Console

from retriable_kafka_client import Consumer
from retriable_kafka_client.cli.demo.brokers import DemoCluster, embedded, look, real
from retriable_kafka_client.cli.demo.scenario import Feed, OrderPlan, Shop
from retriable_kafka_client.cli.demo.summary import Summary, print_json, print_table, sum_up
from retriable_kafka_client.cli.demo.view import Latest, LiveView, PlainView, SilentView, View
from retriable_kafka_client.cli.ending import Code, CommandFailed

__all__ = ["run"]

STUCK_SECONDS = 30.0  # without any progress
THREADS = 16


def run(*, orders: int, bootstrap_servers: str | None, as_json: bool) -> None:
    """Run the demo and print what it did. Raises CommandFailed when it does not get through or does not add up."""
    latest = Latest()
    library = logging.getLogger("retriable_kafka_client")
    console = Console()
    if as_json or not console.is_terminal:
        lines = logging.StreamHandler(sys.stderr)
        lines.setLevel(logging.WARNING)
        library.addHandler(lines)
    else:
        library.addHandler(latest)
    with embedded() if bootstrap_servers is None else real(bootstrap_servers) as place:
        view: View
        if as_json:
            view = SilentView()
        elif console.is_terminal:
            view = LiveView(console, orders, place.title, latest)
        else:
            console.print(f"rkc demo: {orders} orders on {place.title}", highlight=False)
            view = PlainView(console, orders)
        try:
            summary = _play(place, OrderPlan(orders), view, latest)
        except KeyboardInterrupt:
            raise CommandFailed(Code.FAILED, "ended before it was through") from None
    if as_json:
        print_json(summary)
    else:
        print_table(summary, console)
    if not summary.ok:
        raise CommandFailed(Code.FAILED, "the demo's counts do not add up")


def _play(place: DemoCluster, plan: OrderPlan, view: View, latest: Latest) -> Summary:
    began = time.monotonic()
    shop = Shop(plan)
    feed = Feed(place.cluster, place.names, plan)
    consumer = Consumer(
        place.cluster,
        group_id=place.names.group,
        topics=[place.names.topic()],
        handler=shop.handle,
        executor=THREADS,
        on_event=latest.event,
    )
    latest.say(
        f"{plan.orders:,} orders for {THREADS} threads; number {plan.scheduled:,} not before {plan.delay:g} s"
    )
    with view.running(), consumer:
        feed.start()
        try:
            _watch(consumer, feed, shop, plan, view, latest)
        finally:
            feed.end()
    lag, dead_letters = look(place)
    return sum_up(
        plan,
        feed,
        shop,
        consumer.stats(),
        lag=lag,
        dead_letters=dead_letters,
        seconds=time.monotonic() - began,
    )


def _watch(consumer: Consumer, feed: Feed, shop: Shop, plan: OrderPlan, view: View, latest: Latest) -> None:
    """Show what happens until every order is handled or a dead letter."""
    announced = False
    progress, since = -1, time.monotonic()
    while not consumer.join(0.1):  # raises what makes the consumer fail
        stats = consumer.stats()
        done = stats.handled + stats.dead_lettered
        feed.completed(done)
        if shop.scheduled_ran is not None and not announced:
            announced = True
            late = (shop.scheduled_ran - feed.scheduled_for) * 1000
            latest.say(f"order {plan.scheduled:,}, the scheduled one, ran {late:.0f} ms after its time")
        view.show(stats, feed.sent)
        if done >= plan.orders:
            return
        if feed.failure is not None:
            raise feed.failure
        if stats.handled + stats.failed != progress:
            progress, since = stats.handled + stats.failed, time.monotonic()
        elif time.monotonic() > since + STUCK_SECONDS + plan.delay:
            reasons = "; ".join(consumer.health().reasons) or "nobody says why"
            raise CommandFailed(Code.FAILED, f"nothing happens any more: {reasons}")
