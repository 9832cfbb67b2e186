"""Messages that go among others, and beside them those that go alone or in chunks, to one client or to two."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from retriable_kafka_client.brokers.error_codes import is_too_large
from retriable_kafka_client.sending.batching import LARGEST_COPY, Batching, BatchLimits
from retriable_kafka_client.sending.chunked_sends import ChunkedSends
from retriable_kafka_client.sending.parcels import Parcel, Settle

__all__ = ["MixedSends"]


class MixedSends:
    """Sends parcels; those that go among others keep their order. One thread calls it; no call waits.

    ``client`` gives the client of the moment for each batching. Its delivery reports must be served between two calls of
    ``advance``. ``budget``: bytes of parcels that go alone and are in the client at once; see ChunkedSends.
    ``retry_alone``: what was refused for its size among others goes again, alone; without it that is the parcel's answer.
    ``failed`` hears of each error before the parcel does, and which client it was.
    """

    def __init__(
        self,
        client: Callable[[Batching], Producer],
        limits: BatchLimits,
        *,
        budget: int,
        retry_alone: bool,
        failed: Callable[[Batching, KafkaError], None] | None = None,
    ) -> None:
        self._client = client
        self._retry_alone = retry_alone
        self._failed = failed
        self._waiting: deque[Parcel] = deque()  # the client's queue was full
        self._chunked = ChunkedSends(
            partial(client, Batching.ALONE), limits, client_limit=LARGEST_COPY, budget=budget
        )

    def send(self, parcel: Parcel, batching: Batching) -> None:
        """Put a parcel on its way, or into the line of those that wait for room."""
        if batching is Batching.ALONE:
            self._send_alone(parcel)
        elif self._waiting or not self._produce(parcel):
            self._waiting.append(parcel)

    def advance(self) -> None:
        """Give the clients what there is room for."""
        while self._waiting and self._produce(self._waiting[0]):
            self._waiting.popleft()
        if self._chunked:
            self._chunked.advance()

    def _send_alone(self, parcel: Parcel) -> None:
        parcel.settle = partial(self._settle, Batching.ALONE, parcel.settle)
        self._chunked.add(parcel)
        self._chunked.advance()

    def _produce(self, parcel: Parcel) -> bool:
        """Whether the client took it among others, or refused it for good."""
        source = parcel.source
        try:
            self._client(Batching.SHARED).produce(
                parcel.topic,
                value=None if source is None else source.read(0, source.size),
                key=parcel.key,
                headers=parcel.whole_headers,
                on_delivery=partial(self._delivered, parcel),
            )
        except BufferError:
            return False
        except KafkaException as error:
            self._delivered(parcel, error.args[0], None)
        return True

    def _delivered(self, parcel: Parcel, error: KafkaError | None, report: Any) -> None:
        if self._retry_alone and is_too_large(error):
            self._send_alone(parcel)  # it may have been its neighbours
            return
        self._settle(Batching.SHARED, parcel.settle, error, report)

    def _settle(self, batching: Batching, settle: Settle, error: KafkaError | None, report: Any) -> None:
        if error is not None and self._failed is not None:
            self._failed(batching, error)
        settle(error, report)
