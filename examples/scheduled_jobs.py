"""Jobs that run at a time of their own: messages sent to the retry topic with `delay` or `not_before`.

python examples/scheduled_jobs.py [--bootstrap-servers HOST:PORT]
"""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from _common import kafka, report, wait_until_done

from retriable_kafka_client import Consumer, Message, Producer, Retry, Topic

REMINDERS = 40
FAR_OFF = 500


class Office:
    """Sends the reminders, and notes how late each was."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._lock = threading.Lock()

    def remind(self, message: Message[Any]) -> None:
        due = datetime.fromisoformat(message.value["due"])
        late = (datetime.now(UTC) - due).total_seconds()
        if message.value["number"] % 20 == 0 and message.attempt == 1:
            raise ConnectionError(
                "the mail server does not answer"
            )  # a job is retried like any other message
        if message.attempt == 1:
            with self._lock:
                self.late.append(late)


def main() -> None:
    names = ("reminders", "reminders-later", "reminders-dead-letters")
    with kafka(*names) as (cluster, (reminders, later, dead_letters)):
        with Producer(cluster) as producer:
            # A year ahead at most. However many of them there are, what is due sooner comes in time: those that would
            # fill the window (Limits.window), or that the topic's retention would soon delete, are written again at the
            # topic's end.
            for number in range(FAR_OFF):
                month = datetime.now(UTC) + timedelta(days=30)
                job = {"number": number, "due": month.isoformat()}
                producer.send(later, job, not_before=month)
            for number in range(REMINDERS):
                delay = 0.5 + number * 0.05
                job = {"number": number, "due": (datetime.now(UTC) + timedelta(seconds=delay)).isoformat()}
                producer.send(later, job, delay=delay)
        office = Office()
        consumer = Consumer(
            cluster,
            group_id="example-reminders",
            # What is sent to `reminders` itself is handled at once, and only its retries wait.
            topics=[Topic(reminders, retry=Retry(later, delay=0.2), dead_letter=dead_letters)],
            handler=office.remind,
            executor=4,
        )
        with consumer:
            wait_until_done(consumer, REMINDERS)
            waiting = sum(one.waiting for one in consumer.stats().partitions.values())
        print(f"{waiting} jobs wait for their day")
        print(f"late by {min(office.late) * 1000:.0f} to {max(office.late) * 1000:.0f} ms")
        if min(office.late) < 0:
            raise SystemExit("a job ran before its time")
        report(consumer, REMINDERS)


if __name__ == "__main__":
    main()
