"""Payments into accounts in SQLite, each booked once, however often the program is killed; and a receipt for each.

python examples/exactly_once_sqlite.py [--bootstrap-servers HOST:PORT]

The database transaction holds the booking and the message's id, so a second run of the handler books nothing. On a real
cluster the receipts go out in a Kafka transaction together with the progress; the embedded broker has none.
"""

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from _common import kafka, report, servers, wait_until_done

from retriable_kafka_client import Consumer, Message, Producer, Retry, Topic

PAYMENTS = 500


class Ledger:
    """The handler. Each run has a connection of its own: SQLite lets one write at a time."""

    def __init__(self, path: str, receipts: str) -> None:
        self.path = path
        self.receipts = receipts
        with self.connect() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS handled (id TEXT PRIMARY KEY)")
            connection.execute("CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, balance INTEGER)")

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=30.0)

    def __call__(self, message: Message[Any]) -> None:
        payment = message.value
        connection = self.connect()
        try:
            with connection:  # one database transaction
                first = connection.execute(
                    "INSERT INTO handled VALUES (?) ON CONFLICT DO NOTHING", (message.id,)
                )
                if first.rowcount:
                    connection.execute(
                        "INSERT INTO accounts VALUES (:account, :amount)"
                        " ON CONFLICT (name) DO UPDATE SET balance = balance + :amount",
                        payment,
                    )
        finally:
            connection.close()
        message.send(self.receipts, {"paid": payment["amount"], "for": message.id})
        if payment["number"] % 100 == 0 and message.attempt == 1:
            raise ConnectionError("too late: it is booked, and will not be booked again")

    def total(self) -> int:
        connection = self.connect()
        try:
            return int(connection.execute("SELECT COALESCE(SUM(balance), 0) FROM accounts").fetchone()[0])
        finally:
            connection.close()


def main() -> None:
    topics = ("payments", "payments-retry", "payments-dead-letters", "receipts")
    with (
        kafka(*topics) as (cluster, (payments, retry, dead_letters, receipts)),
        tempfile.TemporaryDirectory() as folder,
    ):
        with Producer(cluster) as producer:
            for number in range(1, PAYMENTS + 1):
                producer.send(payments, {"number": number, "account": f"a{number % 7}", "amount": number})
        ledger = Ledger(str(Path(folder) / "ledger.db"), receipts)
        consumer = Consumer(
            cluster,
            group_id="example-payments",
            topics=[Topic(payments, retry=Retry(retry, delay=0.1), dead_letter=dead_letters)],
            handler=ledger,
            guarantee="exactly_once" if servers() else "at_least_once",
        )
        with consumer:
            wait_until_done(consumer, PAYMENTS)
        report(consumer, PAYMENTS)
        print(f"booked: {ledger.total()} of {PAYMENTS * (PAYMENTS + 1) // 2}")


if __name__ == "__main__":
    main()
