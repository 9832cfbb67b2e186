"""The recipe for effects outside Kafka: the example with SQLite, killed again and again."""

import json
import sqlite3
from collections import Counter
from pathlib import Path

from tests.shell.lab import Lab, as_json
from tests.support.processes import Program
from tests.support.waiting import wait_until

KILLS = 4
PAYMENTS = 400


def test_every_payment_is_booked_once_and_has_one_receipt(real_lab: Lab, tmp_path: Path) -> None:
    lab, database = real_lab, str(tmp_path / "ledger.db")
    entry, receipts = lab.entry(), lab.topic("receipts")
    assert entry.retry
    told = json.dumps(
        {
            "servers": lab.servers,
            "group": lab.group,
            "database": database,
            "topic": entry.name,
            "retry": entry.retry.topic,
            "dead": entry.dead_letter,
            "receipts": receipts,
        }
    )
    lab.fill(
        entry, [as_json({"number": i, "account": f"a{i % 7}", "amount": i}) for i in range(1, PAYMENTS + 1)]
    )

    def booked() -> int:
        try:
            with sqlite3.connect(database) as connection:
                return int(connection.execute("SELECT COUNT(*) FROM handled").fetchone()[0])
        except sqlite3.OperationalError:  # not made yet
            return 0

    for life in range(KILLS + 1):
        before = booked()
        with Program("-m tests.shell.ledger_worker", told, log=tmp_path / f"log-{life}") as program:
            if life < KILLS:
                wait_until(lambda before=before: booked() >= before + 40, 90, "it goes on", every=0.01)  # type: ignore[misc]
                program.kill9()
                continue
            lab.caught_up(entry, timeout=120)
            program.terminate()
            assert program.wait() == 0, program.output
    with sqlite3.connect(database) as connection:
        (total,) = connection.execute("SELECT SUM(balance) FROM accounts").fetchone()
    assert booked() == PAYMENTS
    assert total == PAYMENTS * (PAYMENTS + 1) // 2
    # What a killed member left open hides what stands behind it, until the brokers end it.
    wait_until(lambda: len(lab.read(receipts)) >= PAYMENTS, 60, "all receipts can be read", every=0.5)
    paid = Counter(json.loads(one.value or b"")["paid"] for one in lab.read(receipts))
    assert paid == dict.fromkeys(range(1, PAYMENTS + 1), 1)
