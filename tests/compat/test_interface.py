"""Names, parameters, order, kinds and defaults: what 0.7.0 had, and what is there beside it."""

import copy
import dataclasses
import inspect
import json
import os
import pickle
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from retriable_kafka_client import ConfigError, compat
from retriable_kafka_client.compat import (
    BaseConsumer,
    BaseProducer,
    CommonConfig,
    ConsumerConfig,
    ConsumerThread,
    ConsumeTopicConfig,
    HealthCheckClient,
    ProducerConfig,
    SendError,
)

CONNECTION: dict[str, Any] = {"kafka_hosts": ["localhost:1"], "username": "u", "password": "secret-word"}

# From WIRE.md: every name, with its parameters in order, and their defaults.
NAMES = {
    "BaseConsumer": "config, executor, max_concurrency=16",
    "BaseConsumer.connection_healthcheck": "self",
    "BaseConsumer.run": "self",
    "BaseConsumer.stop": "self",
    "BaseProducer": "config",
    "BaseProducer.close": "self",
    "BaseProducer.connection_healthcheck": "self",
    "BaseProducer.send": "self, message, headers=None",
    "BaseProducer.send_sync": "self, message, headers=None",
    "CommonConfig": "*, kafka_hosts, username, password, additional_settings={}",
    "ConsumeTopicConfig": "base_topic, retry_topic=None, retries=5, fallback_delay=15.0",
    "ConsumerConfig": (
        "group_id, target, topics=[], cancel_future_wait_time=30.0, filter_function=None, "
        "max_chunk_reassembly_wait_time=datetime.timedelta(seconds=900), "
        "*, kafka_hosts, username, password, additional_settings={}"
    ),
    "ConsumerThread": "consumer",
    "ConsumerThread.stop": "self",
    "HealthCheckClient": "config",
    "HealthCheckClient.connection_healthcheck": "self",
    "ProducerConfig": (
        "topics, retries=3, fallback_factor=2.0, fallback_base=5.0, split_messages=False, "
        "*, kafka_hosts, username, password, additional_settings={}"
    ),
    "SendError": "*args, retriable, fatal, kafka_error",
    "consume_topics": "topics, max_workers",
}

# What this library has besides: optional, and behind everything that 0.x had.
ADDED = {
    "ConsumeTopicConfig": ", dead_letter_topic=None",
    "ConsumerConfig": f", buffer_bytes={64 * 1024 * 1024}",
}


def plainly(signature: inspect.Signature, factories: dict[str, Any]) -> str:
    """Parameters in order without their types; `factories` by name give defaults that are made anew each time."""
    parts, starred = [], False
    for one in signature.parameters.values():
        if one.kind is one.KEYWORD_ONLY and not starred:
            starred = True
            parts.append("*")
        if one.kind is one.VAR_POSITIONAL:
            starred = True
            parts.append(f"*{one.name}")
        elif one.default is one.empty:
            parts.append(one.name)
        else:
            parts.append(f"{one.name}={factories.get(one.name, one.default)!r}")
    return ", ".join(parts)


def described(name: str, root: Any = compat) -> str:
    thing = root
    for part in name.split("."):
        thing = getattr(thing, part)
    factories = (
        {
            field.name: field.default_factory()
            for field in dataclasses.fields(thing)
            if field.default_factory is not dataclasses.MISSING
        }
        if dataclasses.is_dataclass(thing)
        else {}
    )
    return plainly(inspect.signature(thing), factories)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_defaults_are_those_of_0x(name: str) -> None:
    before, star, keywords = NAMES[name].partition(", *, ")
    assert described(name) == before + ADDED.get(name, "") + star + keywords


def test_all_names_of_0x_are_there() -> None:
    assert set(compat.__all__) == {name for name in NAMES if "." not in name}
    assert inspect.iscoroutinefunction(BaseProducer.send)
    assert issubclass(ConsumerThread, threading.Thread)
    assert issubclass(SendError, RuntimeError)


def test_the_table_above_is_what_0_7_0_says_of_itself(published_python: Path) -> None:
    source = "\n".join(
        [
            "import dataclasses, inspect, json, typing",
            "from typing import Any",
            inspect.getsource(plainly),
            inspect.getsource(described).replace("= compat", "= None"),
            "import retriable_kafka_client as root, sys",
            "print(json.dumps({name: described(name, root) for name in json.loads(sys.argv[1])}))",
        ]
    )
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    said = subprocess.run(
        [str(published_python), "-c", source, json.dumps(list(NAMES))],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert json.loads(said) == NAMES


def consumer_config(**more: Any) -> ConsumerConfig:
    return ConsumerConfig(group_id="g", target=print, **{**CONNECTION, **more})


def test_configs_are_plain_values_that_may_be_copied_and_changed() -> None:
    producer = ProducerConfig(["a"], 1, 2.5, 0.5, True, **CONNECTION)
    assert (producer.topics, producer.retries, producer.fallback_factor) == (["a"], 1, 2.5)
    assert (producer.fallback_base, producer.split_messages) == (0.5, True)
    other = copy.deepcopy(producer)
    assert other == producer
    other.password, other.topics = "another", ["b"]
    assert producer.topics == ["a"] and other != producer
    changed = dataclasses.replace(producer, retries=7)
    assert changed.retries == 7 and pickle.loads(pickle.dumps(changed)) == changed
    config = consumer_config()
    config.topics.append(ConsumeTopicConfig("a", "b", 2, 3.0))
    assert consumer_config().topics == [], "each config has a list of its own"
    assert config.max_chunk_reassembly_wait_time == timedelta(minutes=15)
    assert CommonConfig(**CONNECTION).additional_settings == {}


def test_no_repr_shows_a_secret() -> None:
    settings = {"sasl.oauthbearer.client.secret": "secret-word"}
    for config in (
        CommonConfig(additional_settings=settings, **CONNECTION),
        ProducerConfig(["a"], additional_settings=settings, **CONNECTION),
        consumer_config(additional_settings=settings),
    ):
        assert "secret-word" not in repr(config)
        assert "localhost:1" in repr(config)


@pytest.mark.parametrize(
    ("topics", "named"),
    [
        ([ConsumeTopicConfig("a", "r"), ConsumeTopicConfig("a", "s")], "base_topic"),
        ([ConsumeTopicConfig("a", "r"), ConsumeTopicConfig("b", "r")], "retry_topic"),
        ([ConsumeTopicConfig("^a"), ConsumeTopicConfig("^a")], "base_topic"),
    ],
)
def test_a_topic_in_two_entries_is_an_error_of_both_kinds(
    topics: list[ConsumeTopicConfig], named: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        for kind in (AssertionError, ConfigError):
            with pytest.raises(kind, match=named):
                BaseConsumer(consumer_config(topics=topics), pool)


def test_constructors_connect_to_nothing() -> None:
    entries = [ConsumeTopicConfig("a", "r"), ConsumeTopicConfig("b"), ConsumeTopicConfig("c")]
    with ThreadPoolExecutor(1) as pool:
        before = threading.active_count()
        thread = ConsumerThread(BaseConsumer(consumer_config(topics=entries), pool))
        config = ProducerConfig(["a"], **CONNECTION)
        assert BaseProducer(config).topics == ["a"]
        config.topics = ["b"]
        HealthCheckClient(config)
        assert threading.active_count() == before
        assert not thread.daemon


def test_a_send_error_says_whether_to_try_again() -> None:
    cause = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
    error = SendError("first", "second", retriable=True, fatal=False, kafka_error=cause)
    assert (error.args, error.retriable, error.fatal) == (("first", "second"), True, False)
    assert error.kafka_error is cause
    with pytest.raises(TypeError):
        SendError("nothing else")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "wrong",
    [
        {"additional_settings": {"security.protocol": "PLAINTEXT", "no.such.setting": 1}},
        {"additional_settings": {"security.protocol": "PLAINTEXT"}, "topics": []},
        {"additional_settings": {"security.protocol": "PLAINTEXT"}, "topics": [ConsumeTopicConfig("a", "a")]},
        {"kafka_hosts": []},
    ],
)
def test_what_the_client_does_not_take_is_a_kafka_exception_when_it_runs(wrong: dict[str, Any]) -> None:
    config = consumer_config(**{"topics": [ConsumeTopicConfig("a", "r")], **wrong})
    with ThreadPoolExecutor(1) as pool:
        consumer = BaseConsumer(config, pool)
        with pytest.raises(KafkaException) as caught:
            consumer.run()
    assert isinstance(caught.value, ConfigError)
    assert caught.value.args[0].code() == KafkaError._INVALID_ARG
    assert "secret-word" not in str(caught.value)


async def an_async_target(_message: dict[str, Any]) -> None:
    """0.x called it, threw the coroutine away, and took that for success."""


def test_an_async_target_is_refused_before_anything_is_read() -> None:
    config = consumer_config(topics=[ConsumeTopicConfig("a", "r")])
    config.target = an_async_target
    with ThreadPoolExecutor(1) as pool, pytest.raises(ConfigError, match="async"):
        BaseConsumer(config, pool).run()


def test_a_consumer_that_was_stopped_before_does_not_run() -> None:
    with ThreadPoolExecutor(1) as pool:
        consumer = BaseConsumer(consumer_config(), pool)
        consumer.stop()
        consumer.stop()
        consumer.run()
        thread = ConsumerThread(consumer)
        thread.stop()
        thread.start()
        thread.stop()
        assert not thread.is_alive()
