"""Events on their way to ``on_event``, and the few that become log lines."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from retriable_kafka_client import events

__all__ = ["Notifier"]

log = logging.getLogger("retriable_kafka_client")

CAPACITY = 10_000  # events that may wait for a slow `on_event`; later ones are dropped and counted
GIVEN_UP_SECONDS = (
    10.0  # between two lines about messages that will never be whole: a sender could make a million
)


class Notifier:
    """Hands events over on a thread of its own, so that neither a slow nor a failing ``on_event`` reaches the loop."""

    def __init__(self, on_event: Callable[[events.Event], object] | None, *, group: str) -> None:
        self._on_event = on_event
        self._group = group
        self._queue: queue.Queue[events.Event | None] = queue.Queue(CAPACITY)
        self._thread: threading.Thread | None = None
        self._refusing: set[str] = set()  # targets whose refusal has been logged
        self._unclear: set[str] = set()  # topics of which that has been logged
        self._given_up_again = 0.0  # monotonic; when the next one is logged
        self._given_up_unsaid = 0
        self.lost = 0  # written by the loop's thread

    def start(self) -> None:
        if self._on_event is not None:
            self._thread = threading.Thread(target=self._work, name="rkc-events", daemon=True)
            self._thread.start()

    def tell(self, event: events.Event) -> None:
        """Log it if an operator must know, and queue it. Never blocks; the loop's thread."""
        self._log(event)
        if self._thread is not None:
            try:
                self._queue.put_nowait(event)
            except queue.Full:
                self.lost += 1

    def accepted(self, refusals: frozenset[str]) -> None:
        """Take note of which targets refuse at present, to log each recovery once."""
        for target in self._refusing - refusals:
            log.warning("group %s: topic %s takes copies again", self._group, target)
        self._refusing &= refusals

    def close(self, timeout: float) -> None:
        """Deliver what is queued, within ``timeout`` seconds."""
        if self._thread is not None:
            try:
                self._queue.put(None, timeout=timeout)
            except queue.Full:
                return
            self._thread.join(timeout)

    def _work(self) -> None:
        assert self._on_event is not None
        complained = False
        while (event := self._queue.get()) is not None:
            try:
                self._on_event(event)
            except Exception as error:  # noqa: BLE001 - on_event is the user's
                if not complained:
                    log.error(
                        "group %s: on_event raised %s; further errors of it are not logged",
                        self._group,
                        type(error).__qualname__,
                    )
                complained = True

    def _log(self, event: events.Event) -> None:
        group, place = self._group, f"{event.topic}/{event.partition}"
        match event:
            case events.AssignmentStarted():
                start = "auto.offset.reset" if event.position is None else str(event.position)
                log.info(
                    "group %s: %s is ours, from %s, %d done above it", group, place, start, event.restored
                )
            case events.AssignmentEnded():
                log.info(
                    "group %s: %s is over (%s), %d unfinished", group, place, event.reason, event.unfinished
                )
            case events.OffsetMapIgnored():
                log.warning(
                    "group %s: the commit metadata of %s is not ours (%s); messages above the commit position may run again",
                    group,
                    place,
                    event.reason,
                )
            case events.OffsetMapShortened():
                log.warning(
                    "group %s: the broker refuses long commit metadata (offset.metadata.max.bytes); now at most %d units",
                    group,
                    event.budget_units,
                )
            case events.AdmissionBlocked():
                log.warning(
                    "group %s: %s waits: with offset %d incomplete, more completed ones would not fit the offset map",
                    group,
                    place,
                    event.position,
                )
            case events.OffsetMapOverflow() | events.ChunksGivenUp():
                self._log_chunks(event, place)
            case events.TopicReset():
                log.warning(
                    "group %s: the log of %s is a new one; it is read from its beginning", group, place
                )
            case events.HandOffRefused() if event.target not in self._refusing:
                self._refusing.add(event.target)
                log.error(
                    "group %s: topic %s refuses copies (%s); their messages are held, and the copies sent again until it"
                    " takes them",
                    group,
                    event.target,
                    event.code,
                )
            case events.TopicUnclear() if event.topic not in self._unclear:
                self._unclear.add(event.topic)
                log.error("group %s: topic %s is not read: %s", group, event.topic, event.reason)
            case events.NoRetryTopic():
                log.error(
                    "group %s: %s/%d failed and is not retried: its retry topic is a pattern, which names no topic for"
                    " the copy",
                    group,
                    place,
                    event.offset,
                )
            case events.WorkerDied():
                log.warning(
                    "group %s: a worker process died while it ran %s/%d, attempt %d",
                    group,
                    place,
                    event.offset,
                    event.attempt,
                )
            case events.HandlerTimedOut() if event.running:
                log.warning(
                    "group %s: the handler of %s/%d, attempt %d, is beyond its time limit and still runs; it keeps its"
                    " place with the workers until it returns",
                    group,
                    place,
                    event.offset,
                    event.attempt,
                )
            case events.DrainOverrun():
                log.warning(
                    "group %s: %d handlers of %s ran on when it was given away; their messages will run again",
                    group,
                    event.running,
                    place,
                )
            case _:
                pass

    def _log_chunks(self, event: events.OffsetMapOverflow | events.ChunksGivenUp, place: str) -> None:
        match event:
            case events.OffsetMapOverflow():
                log.warning(
                    "group %s: the chunks of a message at offset %d of %s lie too far apart for the offset map;"
                    " messages behind it may run again",
                    self._group,
                    event.position,
                    place,
                )
            case events.ChunksGivenUp() if time.monotonic() < self._given_up_again:
                self._given_up_unsaid += 1
            case events.ChunksGivenUp():
                log.warning(
                    "group %s: the message at %s/%d will never run (%s): %d of its %d chunks were read%s",
                    self._group,
                    place,
                    event.offset,
                    event.reason,
                    event.chunks,
                    event.expected,
                    f"; {self._given_up_unsaid} others before it" if self._given_up_unsaid else "",
                )
                self._given_up_again, self._given_up_unsaid = time.monotonic() + GIVEN_UP_SECONDS, 0
