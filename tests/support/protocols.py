"""What brokers of different versions can do."""

import functools
import socket
import struct

from tests.support.waiting import WAIT

__all__ = ["NO_CONSUMER_PROTOCOL", "has_consumer_protocol"]

API_VERSIONS, CONSUMER_GROUP_HEARTBEAT = 18, 68
NO_CONSUMER_PROTOCOL = (
    'these brokers have no group.protocol "consumer" (KIP-848), which Apache Kafka has from 4.0 on'
)


@functools.cache
def has_consumer_protocol(servers: str) -> bool:
    """Whether the brokers behind these PLAINTEXT listeners know `group.protocol=consumer` as released with 4.0."""
    host, port = servers.partition(",")[0].rsplit(":", 1)
    ask = struct.pack(">hhih", API_VERSIONS, 0, 1, -1)  # version 0, correlation id 1, no client id
    with socket.create_connection((host, int(port)), WAIT) as connection, connection.makefile("rb") as answer:
        connection.sendall(struct.pack(">i", len(ask)) + ask)
        (length,) = struct.unpack(">i", answer.read(4))
        body = answer.read(length)
    _, error, count = struct.unpack_from(">ihi", body)
    assert error == 0, f"{servers} refused to say what it can do: error {error}"
    newest = {api: last for api, _, last in struct.iter_unpack(">hhh", body[10 : 10 + 6 * count])}
    return bool(newest.get(CONSUMER_GROUP_HEARTBEAT, -1) >= 1)  # version 0 is the early access of 3.7 to 3.9
