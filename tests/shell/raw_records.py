"""Records with header names that confluent-kafka's own producer refuses to write: any bytes."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import cimpl

__all__ = ["produce_raw"]

_PRODUCER = 0


def _library() -> ctypes.CDLL:
    """librdkafka, the copy that confluent_kafka has loaded."""
    extension = Path(str(cimpl.__file__))
    for path in (extension, *sorted((extension.parent.parent / "confluent_kafka.libs").glob("*rdkafka*"))):
        library = ctypes.CDLL(str(path))
        if hasattr(library, "rd_kafka_headers_new"):
            return library
    raise AssertionError("librdkafka was not found beside confluent_kafka")


def produce_raw(
    servers: str, topic: str, partition: int, value: bytes, headers: Sequence[tuple[bytes, bytes | None]]
) -> None:
    """Produce one record and wait until it was acknowledged."""
    library = _library()
    pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    for function in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_topic_new", "rd_kafka_headers_new"):
        getattr(library, function).restype = pointer
    library.rd_kafka_conf_set.argtypes = [pointer, text, text, text, size]
    library.rd_kafka_new.argtypes = [ctypes.c_int, pointer, text, size]
    library.rd_kafka_headers_new.argtypes = [size]
    library.rd_kafka_header_add.argtypes = [pointer, text, ctypes.c_ssize_t, pointer, ctypes.c_ssize_t]
    library.rd_kafka_produceva.argtypes = [pointer, pointer, size]
    library.rd_kafka_produceva.restype = pointer
    library.rd_kafka_flush.argtypes = [pointer, ctypes.c_int]
    library.rd_kafka_destroy.argtypes = [pointer]

    problem = ctypes.create_string_buffer(512)
    conf = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(conf, b"bootstrap.servers", servers.encode(), problem, 512)
    client = library.rd_kafka_new(_PRODUCER, conf, problem, 512)
    assert client, problem.value
    given = library.rd_kafka_headers_new(len(headers))
    for name, content in headers:
        library.rd_kafka_header_add(given, name, len(name), content, -1 if content is None else len(content))

    class Value(ctypes.Union):
        _fields_ = (
            ("text", text),
            ("number", ctypes.c_int32),
            ("headers", pointer),
            ("memory", type("Memory", (ctypes.Structure,), {"_fields_": [("ptr", text), ("size", size)]})),
            ("padding", ctypes.c_char * 64),
        )

    class Argument(ctypes.Structure):
        _fields_ = (("kind", ctypes.c_int), ("value", Value))

    arguments = (Argument * 4)()
    # RD_KAFKA_VTYPE_TOPIC, _PARTITION, _VALUE and _HEADERS.
    for index, kind in enumerate((1, 3, 4, 10)):
        arguments[index].kind = kind
    arguments[0].value.text = topic.encode()
    arguments[1].value.number = partition
    arguments[2].value.memory.ptr = value
    arguments[2].value.memory.size = len(value)
    arguments[3].value.headers = given
    error = library.rd_kafka_produceva(client, arguments, 4)
    assert not error, "the client refused the record"
    assert library.rd_kafka_flush(client, 30_000) == 0, "not acknowledged"
    library.rd_kafka_destroy(client)
