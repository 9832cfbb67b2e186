"""Events on their way to ``on_event``, and the few that become log lines."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace

from retriable_kafka_client import events
from retriable_kafka_client.brokers.client_settings import RESET
from retriable_kafka_client.consumer.failure_log import FailureLines
from retriable_kafka_client.runtime.native_queue import SimpleQueue
from retriable_kafka_client.user_functions.results import refuse_unfinished

__all__ = ["Notifier"]

log = logging.getLogger("retriable_kafka_client")

CAPACITY = 10_000  # events that may wait for a slow `on_event`; later ones are dropped and counted
# Lines about single messages, of which a sender or a handler could make a million: so many of each kind in so many seconds.
MOST_LINES = 10
LINES_SECONDS = 10.0
WITH_TEXT = (events.MessageDeadLettered, events.MessageDropped, events.MessageRetried)
MOST_TEXT = 1_000  # characters of an exception's text
ABOUT_LOGS = (
    events.PartitionMoves,
    events.PartitionStands,
    events.TopicReset,
    events.TransactionEnded,
    events.TransactionHangs,
)
SINGLE_MESSAGES = (
    *WITH_TEXT,
    events.ChunksGivenUp,
    events.ForeignCopies,
    events.HandlerStuck,
    events.HandlerTimedOut,
    events.NoRetryTopic,
    events.OffsetMapOverflow,
    events.RecordsLost,
    events.WorkerDied,
)


Listener = Callable[[events.Event], object]


class Notifier:
    """Hands events over to each listener on a thread of its own, so that neither a slow nor a failing one reaches the loop
    or another one.
    """

    def __init__(self, on_event: Sequence[Listener], *, group: str, error_text: bool = False) -> None:
        self._group = group
        self._error_text = error_text  # write what exceptions say, which may hold payload
        self._listeners = [_ListenerThread(listener, group) for listener in on_event]
        self._failures = FailureLines(group, error_text=error_text)
        self._refusing: set[str] = set()  # targets whose refusal has been logged
        self._unclear: set[str] = set()  # topics of which that has been logged
        self._quotas: defaultdict[object, _Quota] = defaultdict(_Quota)  # by kind of line

    @property
    def lost(self) -> int:
        """Events that did not fit into a listener's queue."""
        return sum(listener.lost for listener in self._listeners)

    def start(self) -> None:
        for listener in self._listeners:
            listener.start()

    def publish(self, event: events.Event) -> None:
        """Log it if an operator must know, and queue it. Never blocks; the loop's thread."""
        if isinstance(event, WITH_TEXT):
            if not self._error_text and event.text is not None:
                event = replace(event, text=None)
            self._failures.note(event, time.monotonic())
        self._log(event)
        for listener in self._listeners:
            listener.publish(event)

    def accepted(self, refusals: frozenset[str]) -> None:
        """Take note of which targets refuse at present, to log each recovery once; and log what is due. Every 0.1 s."""
        for target in self._refusing - refusals:
            log.warning("group %s: topic %s takes copies again", self._group, target)
        self._refusing &= refusals
        self._failures.look(time.monotonic())

    def close(self, timeout: float) -> None:
        """Deliver what is queued, within ``timeout`` seconds."""
        self._failures.close(time.monotonic())
        deadline = time.monotonic() + timeout
        for listener in self._listeners:
            listener.close()
        for listener in self._listeners:
            listener.join(max(0.0, deadline - time.monotonic()))

    def _log(self, event: events.Event) -> None:
        group, place = self._group, f"{event.topic}/{event.partition}"
        match event:
            case events.HandlerTimedOut(running=False):
                pass
            case _ if isinstance(event, WITH_TEXT) and event.text is None:
                pass
            case _ if isinstance(event, SINGLE_MESSAGES):
                # Who is known to have held the process up is named, however many only may have.
                certain = isinstance(event, events.HandlerStuck) and event.alone
                quota = self._quotas[type(event), certain]
                if quota.take(time.monotonic()):
                    self._log_message(event, place, quota.unsaid())
            case _ if isinstance(event, ABOUT_LOGS):
                self._log_log(event, place)
            case events.AssignmentStarted():
                start = RESET if event.position is None else str(event.position)
                log.info(
                    "group %s: %s is ours, from %s, %d done above it", group, place, start, event.restored
                )
            case events.AssignmentEnded():
                log.info(
                    "group %s: %s is over (%s), %d unfinished", group, place, event.reason, event.unfinished
                )
            case events.OffsetMapIgnored():
                log.warning(
                    "group %s: the commit metadata of %s %s", group, place, _why_ignored(event.reason)
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
            case events.DrainOverrun():
                log.warning(
                    "group %s: %d handlers of %s ran on when it was given away; their messages will run again",
                    group,
                    event.running,
                    place,
                )
            case _:
                pass

    def _log_log(self, event: events.Event, place: str) -> None:
        group = self._group
        match event:
            case events.TopicReset(position=None):
                log.warning(
                    "group %s: the log of %s is a new one; it is read from its beginning", group, place
                )
            case events.TopicReset():
                log.warning(
                    "group %s: the log of %s ends before what had been read of it: it was cut back; it is read on from"
                    " offset %d",
                    group,
                    place,
                    event.position,
                )
            case events.TransactionHangs():
                log.warning(
                    "group %s: %d records of %s from offset %d on are held back since %s UTC: a transaction of another"
                    " producer is open there and does not end; if its producer is gone, abort it (kafka-transactions.sh"
                    " find-hanging and abort)",
                    group,
                    event.held_back,
                    place,
                    event.position,
                    f"{event.since:%Y-%m-%d %H:%M:%S}",
                )
            case events.PartitionStands():
                log.warning(
                    "group %s: nothing of %s has been read for %.0f s: it holds %d unfinished messages; the one at"
                    " offset %d%s %s%s",
                    group,
                    place,
                    event.seconds,
                    event.incomplete,
                    event.offset,
                    f" (SHA-256 of its key: {event.key_hash}…)" if event.key_hash is not None else "",
                    "has not completed"
                    if event.due_in is None
                    else f"waits for attempt {event.attempt}, in {event.due_in:.0f} s",
                    f", and {event.behind} wait for it" if event.behind else "",
                )
            case events.PartitionMoves():
                log.warning("group %s: %s: well again; it moves", group, place)
            case events.TransactionEnded():
                log.warning("group %s: %s goes on: the transaction that held it up has ended", group, place)

    def _log_message(self, event: events.Event, place: str, others: str) -> None:
        group = self._group
        match event:
            case events.ChunksGivenUp():
                log.warning(
                    "group %s: the message at %s/%d will never run (%s): %d of its %d chunks were read%s",
                    group,
                    place,
                    event.offset,
                    event.reason,
                    event.chunks,
                    event.expected,
                    others,
                )
            case events.ForeignCopies():
                log.warning(
                    "group %s: %s has retry copies of group %s, which are passed over, from offset %d on; if this group had"
                    " that name before, stop its members and give Consumer(former_groups=[%s]); if it is another group,"
                    " all is well%s",
                    group,
                    event.topic,
                    _quoted(event.group),
                    event.offset,
                    _quoted(event.group),
                    others,
                )
            case events.HandlerStuck():
                log.error(
                    "group %s: partitions were lost because nothing could run in this process for %.1f s; %s %s/%d, attempt"
                    " %d: a handler that calls C code must let go of the interpreter (GIL), or run in a ProcessExecutor%s",
                    group,
                    event.seconds,
                    "alone ran" if event.alone else "meanwhile ran, and will run again alone,",
                    place,
                    event.offset,
                    event.attempt,
                    others,
                )
            case events.HandlerTimedOut():
                log.warning(
                    "group %s: the handler of %s/%d, attempt %d, is beyond its time limit and still runs; it keeps its"
                    " place with the workers until it returns%s",
                    group,
                    place,
                    event.offset,
                    event.attempt,
                    others,
                )
            case events.MessageRetried():
                log.info(
                    "group %s: run %d of %s/%d failed and is followed by another one: %s: %s%s",
                    group,
                    event.attempt,
                    place,
                    event.offset,
                    event.error or event.reason,
                    _quoted(event.text),
                    others,
                )
            case events.MessageDeadLettered() | events.MessageDropped():
                log.info(
                    "group %s: %s/%d is not run again (%s): %s: %s%s",
                    group,
                    place,
                    event.offset,
                    event.reason,
                    event.error,
                    _quoted(event.text),
                    others,
                )
            case events.NoRetryTopic():
                log.error(
                    "group %s: %s/%d failed and is not retried: its retry topic is a pattern, which names no topic for"
                    " the copy%s",
                    group,
                    place,
                    event.offset,
                    others,
                )
            case events.OffsetMapOverflow():
                log.warning(
                    "group %s: the chunks of a message at offset %d of %s lie too far apart for the offset map;"
                    " messages behind it may run again%s",
                    group,
                    event.position,
                    place,
                    others,
                )
            case events.RecordsLost():
                log.warning(
                    "group %s: %d records of %s from offset %d on were deleted before they were read: the topic keeps them"
                    " for too short a time, or somebody deleted them%s",
                    group,
                    event.count,
                    place,
                    event.first,
                    others,
                )
            case events.WorkerDied():
                log.warning(
                    "group %s: a worker process died while it ran %s/%d, attempt %d%s",
                    group,
                    place,
                    event.offset,
                    event.attempt,
                    others,
                )
            case _:
                raise AssertionError(event)


class _ListenerThread:
    """One listener, its queue and its thread."""

    def __init__(self, listener: Listener, group: str) -> None:
        self._listener = listener
        self._group = group
        self._queue: SimpleQueue[events.Event | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.lost = 0  # written by the loop's thread, which alone puts events in

    def start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="rkc-events", daemon=True)
        self._thread.start()

    def publish(self, event: events.Event) -> None:
        if self._queue.qsize() < CAPACITY:
            self._queue.put(event)
        else:
            self.lost += 1

    def close(self) -> None:
        self._queue.put(None)

    def join(self, timeout: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout)

    def _work(self) -> None:
        complained = False
        while (event := self._queue.get()) is not None:
            try:
                refuse_unfinished(copy_context().run(self._listener, event), "on_event")
            except BaseException as error:  # noqa: BLE001 - on_event is the user's, and this thread ours
                if not complained:
                    log.error(
                        "group %s: on_event raised %s; further errors of it are not logged",
                        self._group,
                        type(error).__qualname__,
                    )
                complained = True


def _quoted(text: str | None) -> str:
    """Text from outside on one line, without what a terminal would obey."""
    shown = repr(text)
    return shown if len(shown) <= MOST_TEXT else shown[:MOST_TEXT] + "…"


@dataclass(slots=True)
class _Quota:
    """How many lines of one kind may still be written, and how many were not."""

    left: int = MOST_LINES
    full_at: float = 0.0  # monotonic; when there are as many again
    skipped: int = 0

    def take(self, now: float) -> bool:
        """Whether another one may be written."""
        if now >= self.full_at:
            self.left, self.full_at = MOST_LINES, now + LINES_SECONDS
        if self.left == 0:
            self.skipped += 1
            return False
        self.left -= 1
        return True

    def unsaid(self) -> str:
        """What a line adds about those that were not written before it."""
        skipped, self.skipped = self.skipped, 0
        return f"; {skipped} like it before were not logged" if skipped else ""


def _why_ignored(reason: str) -> str:
    if reason == "cluster":
        return "was copied from another cluster: its position counts; messages above it may run again"
    return f"is not ours ({reason}); messages above the commit position may run again"
