import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriable_kafka_client.config import DISCARD, Cluster, Discard, Exponential, Limits, Retry, Steps, Topic
from retriable_kafka_client.consumer.topology import check_topics
from retriable_kafka_client.errors import YEAR, ConfigError

NAN, INF = float("nan"), float("inf")
SECRET = "correct horse battery"

VALUES = [
    Cluster("localhost:9092"),
    Cluster(["a:1", "b:2"], username="u", password=SECRET, settings={"client.id": "me", "linger.ms": 1}),
    Exponential(15.0),
    Steps((1.0, 2.0)),
    Retry("orders-retry"),
    Retry("orders-retry", delay=[1, timedelta(minutes=1)], give_up_on=(ValueError,)),
    Topic("orders", dead_letter=DISCARD),
    Topic("orders", retry=Retry("orders-retry"), dead_letter="orders-dead"),
    Limits(),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_are_frozen_and_pickle_and_hash_by_content(value: Any) -> None:
    copy = pickle.loads(pickle.dumps(value))
    assert copy == value
    assert hash(copy) == hash(value)
    assert replace(value) == value
    field = next(iter(value.__dataclass_fields__))
    with pytest.raises(FrozenInstanceError):
        setattr(value, field, None)
    with pytest.raises(FrozenInstanceError):
        value.another = None
    with pytest.raises(FrozenInstanceError):
        delattr(value, field)
    assert not hasattr(value, "__dict__")


def test_a_cluster_can_be_changed_in_a_copy() -> None:
    given = Cluster("a", username="u", password="p", settings={"security.protocol": "SASL_PLAINTEXT"})
    assert replace(given, password="other").connection()["sasl.password"] == "other"


def test_values_that_differ_are_not_equal() -> None:
    assert len(set(VALUES)) == len(VALUES)


def test_discard_is_one_object() -> None:
    assert pickle.loads(pickle.dumps(DISCARD)) is DISCARD
    assert repr(DISCARD) == "DISCARD"
    assert isinstance(DISCARD, Discard)


# Cluster ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_servers", "kept"),
    [
        ("localhost:9092", "localhost:9092"),
        ("localhost", "localhost"),
        (" a:1 , b:2", "a:1,b:2"),
        (["a:1", "b:2"], "a:1,b:2"),
        (("[::1]:9092",), "[::1]:9092"),
        ("SSL://a:1", "SSL://a:1"),
    ],
)
def test_servers_are_kept_as_one_text(given_servers: Any, kept: str) -> None:
    assert Cluster(given_servers).bootstrap_servers == kept


@pytest.mark.parametrize(
    "servers", ["", "a:1,", " ", [], [""], ["a b"], None, 9092, b"a:1", [1], "a:0", "a:65536", "a:x", "a:"]
)
def test_servers_must_name_a_broker(servers: Any) -> None:
    with pytest.raises(ConfigError, match=r"Cluster\.bootstrap_servers"):
        Cluster(servers)


def test_a_password_among_the_servers_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        Cluster(f"user:{SECRET.replace(' ', '')}@host:9092")
    assert "horse" not in str(caught.value)


def test_protocol_defaults() -> None:
    assert Cluster("a").connection() == {"bootstrap.servers": "a", "security.protocol": "PLAINTEXT"}
    assert Cluster("a", username="u", password="p").connection() == {
        "bootstrap.servers": "a",
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "u",
        "sasl.password": "p",
    }
    assert Cluster("a", security_protocol="ssl").security_protocol == "SSL"


def test_settings_win_over_defaults() -> None:
    settings = {"sasl.username": "u", "sasl.password": "p", "sasl.mechanism": "PLAIN", "client.id": "me"}
    connection = Cluster("a", settings=settings).connection()
    assert connection["security.protocol"] == "SASL_SSL"
    assert connection["sasl.mechanisms"] == "PLAIN"
    assert "sasl.mechanism" not in connection
    assert connection["client.id"] == "me"
    assert Cluster("a", settings={"security.protocol": "SSL"}).security_protocol == "SSL"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"username": "u"}, "Cluster.password"),
        ({"password": SECRET}, "Cluster.username"),
        ({"username": "", "password": SECRET}, "Cluster.username"),
        ({"username": "u", "password": ""}, "Cluster.password"),
        ({"username": 5, "password": SECRET}, "Cluster.username"),
        ({"username": "u", "password": 4711}, "Cluster.password"),
        ({"username": "u", "password": SECRET, "security_protocol": "SSL"}, "Cluster.security_protocol"),
        (
            {"username": "u", "password": SECRET, "security_protocol": "PLAINTEXT"},
            "Cluster.security_protocol",
        ),
        ({"security_protocol": "TLS"}, "Cluster.security_protocol"),
        ({"security_protocol": 5}, "Cluster.security_protocol"),
        (
            {"security_protocol": "SSL", "settings": {"security.protocol": "PLAINTEXT"}},
            "Cluster.security_protocol",
        ),
        ({"sasl_mechanism": ""}, "Cluster.sasl_mechanism"),
        ({"username": "u", "password": SECRET, "settings": {"sasl.password": SECRET}}, "Cluster.password"),
        ({"settings": [("sasl.password", SECRET)]}, "Cluster.settings"),
        ({"settings": {5: SECRET}}, "Cluster.settings"),
        ({"settings": {"": SECRET}}, "Cluster.settings"),
        ({"settings": {"sasl.password": [SECRET]}}, "Cluster.settings['sasl.password']"),
        ({"settings": {"stats_cb": 5}}, "Cluster.settings['stats_cb']"),
        ({"settings": {"logger": 5}}, "Cluster.settings['logger']"),
        ({"settings": {"client.id": None}}, "Cluster.settings['client.id']"),
    ],
)
def test_wrong_clusters_are_refused_without_showing_a_secret(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Cluster("a:1", **arguments)
    assert caught.value.field == field
    assert caught.value.remedy
    assert SECRET not in str(caught.value)
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *(
            (name, "commit")
            for name in ("enable.auto.commit", "auto.commit.enable", "auto.commit.interval.ms")
        ),
        ("enable.auto.offset.store", "offsets"),
        ("isolation.level", "read_committed"),
        ("transactional.id", "transactions"),
        *((name, "in-sync") for name in ("acks", "request.required.acks")),
        ("enable.idempotence", "idempotent"),
        *((name, "bounded by time") for name in ("retries", "message.send.max.retries")),
        *((name, "on_event") for name in ("on_commit", "offset_commit_cb")),
        *((name, "rebalances") for name in ("rebalance_cb", "on_assign", "on_revoke", "on_lost")),
        *(
            (name, "Limits")
            for name in ("queued.min.messages", "queued.max.messages.kbytes", "fetch.max.bytes")
        ),
        *((name, "Limits") for name in ("queue.buffering.max.messages", "queue.buffering.max.kbytes")),
        *((name, "time out") for name in ("message.timeout.ms", "delivery.timeout.ms")),
        ("group.id", "group_id"),
        *((name, "first argument") for name in ("bootstrap.servers", "metadata.broker.list")),
        *((name, "Future") for name in ("on_delivery", "dr_cb", "dr_msg_cb", "delivery.report.only.error")),
        ("enable.partition.eof", "end of a partition"),
        ("default.topic.config", "directly"),
    ],
)
def test_what_the_library_owns_is_refused_with_the_remedy(name: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Cluster("a:1", settings={name: "anything"})
    assert caught.value.field == f"Cluster.settings[{name!r}]"
    assert says in caught.value.remedy


@pytest.mark.parametrize("word", ["none", "by_duration:PT1H", "", "first", 1, True])
def test_words_for_the_first_position_that_the_client_does_not_know_are_refused(word: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Cluster("a:1", settings={"auto.offset.reset": word})
    assert caught.value.field == "Cluster.settings['auto.offset.reset']"
    assert "'error'" in caught.value.remedy


@pytest.mark.parametrize("word", ["earliest", "Smallest", "beginning", "latest", "largest", "END", "error"])
def test_all_of_librdkafkas_words_for_the_first_position_are_taken(word: str) -> None:
    assert Cluster("a:1", settings={"auto.offset.reset": word}).settings["auto.offset.reset"] == word


@pytest.mark.parametrize(
    "name",
    [
        *("sasl.password", "ssl.key.password", "ssl.keystore.password", "ssl.key.pem", "ssl.key.location"),
        *("sasl.oauthbearer.client.secret", "sasl.oauthbearer.config", "sasl.jaas.config"),
        *("sasl.oauthbearer.assertion.private.key.pem", "SASL.PASSWORD"),
    ],
)
def test_secrets_show_in_no_repr(name: str) -> None:
    cluster = Cluster("a:1", settings={"sasl.username": "u", "client.id": "me", name: SECRET})
    assert SECRET not in repr(cluster) + str(cluster) + repr(cluster.settings) + f"{cluster.settings}"
    assert "'client.id': 'me'" in repr(cluster)
    assert cluster.settings[name] == SECRET
    assert SECRET not in repr(Topic("a", dead_letter="b")) + repr(Cluster("a", username="u", password=SECRET))


def test_settings_are_a_copy_that_cannot_be_changed() -> None:
    given_settings = {"client.id": "me"}
    cluster = Cluster("a:1", settings=given_settings)
    given_settings["client.id"] = "you"
    assert dict(cluster.settings) == {"client.id": "me"}
    with pytest.raises(TypeError):
        cluster.settings["client.id"] = "you"  # type: ignore[index]


# Topic and Retry -------------------------------------------------------------------------------------------


BAD_NAMES = ["", ".", "..", "a b", "a/b", "ä", "a" * 250, "a\n", None, 5, b"a"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda name: Topic(name, dead_letter=DISCARD), "Topic.name"),
        (lambda name: Topic("a", dead_letter=name), "Topic.dead_letter"),
        (lambda name: Retry("" if name is None else name), "Retry.topic"),
    ],
    ids=["topic", "dead-letter", "retry"],
)
def test_topic_names_are_kafkas(make: Callable[[Any], object], field: str, name: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make(name)
    assert caught.value.field == field


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "a" * 249, "...", "_"])
def test_topic_names_that_kafka_takes(name: str) -> None:
    assert Topic(name, dead_letter=DISCARD).name == name


@pytest.mark.parametrize(
    "pattern",
    ["^orders-.*", "^", "^a$|^b$", r"^a\.b-[0-9]+$", r"^\w+-[a-z]{2,3}$", "^[]a].[^-].*", r"^[\.]a"],
)
def test_patterns_that_everybody_reads_alike(pattern: str) -> None:
    assert Topic(pattern, dead_letter=DISCARD).name == pattern
    assert Retry(pattern).topic == pattern


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        ("^orders-(", "is no regular expression"),
        ("^orders-[", "is no regular expression"),
        ("^*", "is no regular expression"),
        ("^a{99999999999}", "is no regular expression"),
        (r"^orders-\d+", r"write \[0-9\] for \\d"),
        (r"^orders-[\w-]+", r"\[a-zA-Z0-9_\] for \\w"),
        (r"^[]\w]", r"\[a-zA-Z0-9_\] for \\w"),
        (r"^(a)\1", "do not read"),
        ("^orders-(?:a|b)", "use plain"),
        ("^(?i)orders", "use plain"),
        ("^orders-[[:digit:]]", "write ranges"),
        ("^ordérs", "printable ASCII"),
        ("^a\x00b", "printable ASCII"),
        ("^a\n", "printable ASCII"),
    ],
)
def test_patterns_that_somebody_reads_otherwise_are_refused(pattern: str, remedy: str) -> None:
    for make, field in (
        (lambda: Topic(pattern, dead_letter=DISCARD), "Topic.name"),
        (lambda: Retry(pattern), "Retry.topic"),
    ):
        with pytest.raises(ConfigError, match=remedy) as caught:
            make()
        assert caught.value.field == field


def test_a_dead_letter_topic_is_no_pattern() -> None:
    with pytest.raises(ConfigError, match=r"Topic\.dead_letter"):
        Topic("a", dead_letter="^dead.*")


def test_without_a_topic_retries_are_made_in_place() -> None:
    assert Retry().topic is None
    assert Retry(max_attempts=2, delay=1.0).max_attempts == 2


def test_a_dead_letter_topic_must_be_named_or_declined() -> None:
    with pytest.raises(TypeError, match="dead_letter"):
        Topic("orders")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="say DISCARD"):
        Topic("orders", dead_letter=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("retry", "dead_letter", "field"),
    [
        (Retry("orders"), DISCARD, "Retry.topic"),
        (None, "orders", "Topic.dead_letter"),
        (Retry("orders-retry"), "orders-retry", "Topic.dead_letter"),
        ("orders-retry", DISCARD, "Topic.retry"),
    ],
)
def test_topics_that_would_read_themselves_are_refused(retry: Any, dead_letter: Any, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Topic("orders", retry=retry, dead_letter=dead_letter)
    assert caught.value.field == field


@pytest.mark.parametrize("attempts", [0, -1, 1.0, True, "6", None, 2**31])
def test_attempts_are_a_whole_number(attempts: Any) -> None:
    with pytest.raises(ConfigError, match=r"Retry\.max_attempts"):
        Retry("r", max_attempts=attempts)


@pytest.mark.parametrize(
    "types", [ValueError, [ValueError], (ValueError, 5), (KeyboardInterrupt,), "x", None]
)
def test_give_up_on_is_a_tuple_of_exception_types(types: Any) -> None:
    with pytest.raises(ConfigError, match=r"Retry\.give_up_on"):
        Retry("r", give_up_on=types)


@pytest.mark.parametrize(
    ("delay", "kept"),
    [
        (15, Steps((15.0,))),
        (0, Steps((0.0,))),
        (timedelta(minutes=1), Steps((60.0,))),
        ([1, timedelta(seconds=2), 3.5], Steps((1.0, 2.0, 3.5))),
        (Exponential(1), Exponential(1.0)),
    ],
)
def test_delays_are_kept_in_one_form(delay: Any, kept: object) -> None:
    assert Retry("r", delay=delay).delay == kept


@pytest.mark.parametrize(
    "delay",
    [NAN, INF, -1, True, "5", b"5", None, [], [1, -1], [None], YEAR + 1, timedelta(days=366), object()],
)
def test_wrong_delays_are_refused(delay: Any) -> None:
    with pytest.raises(ConfigError, match=r"Retry\.delay"):
        Retry("r", delay=delay)


def test_the_last_of_several_delays_is_repeated() -> None:
    delay = Retry("r", delay=[1, 2, 4]).delay
    assert [delay.delay(attempt, 0.9) for attempt in (1, 2, 3, 4, 1000)] == [1, 2, 4, 4, 4]


def test_exponential_delays_double_up_to_the_maximum() -> None:
    delay = Exponential(15.0)
    assert [delay.delay(attempt, 0.5) for attempt in (1, 2, 3)] == pytest.approx([15, 30, 60])
    assert delay.delay(50, 0.999) <= 3600.0
    assert delay.delay(2**31, 0.0) == pytest.approx(3240.0)


def test_jitter_spreads_to_both_sides() -> None:
    delay = Exponential(100.0, jitter=0.2)
    assert [delay.delay(1, chance) for chance in (0.0, 0.5, 0.75)] == pytest.approx([80, 100, 110])
    assert Exponential(100.0, jitter=0).delay(1, 0.9) == 100.0


@given(
    st.floats(0.001, 1e6),
    st.floats(1, 1e6),
    st.floats(0.001, YEAR),
    st.floats(0, 1),
    st.integers(1, 2**31),
    st.floats(0, 1, exclude_max=True),
)
def test_exponential_delays_are_bounded(
    first: float, factor: float, maximum: float, jitter: float, attempt: int, chance: float
) -> None:
    delay = Exponential(min(first, maximum), factor=factor, maximum=maximum, jitter=jitter)
    assert 0.0 <= delay.delay(attempt, chance) <= maximum * (1 + 1e-9)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"first": 0}, "Exponential.first"),
        ({"first": NAN}, "Exponential.first"),
        ({"first": True}, "Exponential.first"),
        ({"first": 1, "factor": 0.5}, "Exponential.factor"),
        ({"first": 1, "factor": INF}, "Exponential.factor"),
        ({"first": 1, "factor": NAN}, "Exponential.factor"),
        ({"first": 1, "factor": True}, "Exponential.factor"),
        ({"first": 10, "maximum": 5}, "Exponential.maximum"),
        ({"first": 1, "maximum": INF}, "Exponential.maximum"),
        ({"first": 1, "jitter": 1.5}, "Exponential.jitter"),
        ({"first": 1, "jitter": -0.1}, "Exponential.jitter"),
    ],
)
def test_wrong_exponentials_are_refused(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Exponential(**arguments)
    assert caught.value.field == field


# Limits ----------------------------------------------------------------------------------------------------


def test_the_default_limits() -> None:
    limits = Limits()
    assert (limits.in_flight, limits.window, limits.buffer_bytes) == (10_000, 10_000, 64 * 1024 * 1024)
    assert (limits.drain_timeout, limits.chunk_wait, limits.parking_interval) == (30.0, 900.0, 60.0)
    assert limits.message_bytes is None
    assert limits.largest_message == limits.buffer_bytes
    assert Limits(message_bytes=5).largest_message == 5
    assert Limits(drain_timeout=timedelta(seconds=0)).drain_timeout == 0.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("in_flight", value) for value in (0, -1, True, 1.5, "1", None)),
        *(("window", value) for value in (0, True, 2**31)),
        *(("buffer_bytes", value) for value in (0, 1023, 1e6)),
        *(("message_bytes", value) for value in (0, True, 64 * 1024 * 1024 + 1)),
        *(("drain_timeout", value) for value in (-1, NAN, INF, True, None)),
        *(("chunk_wait", value) for value in (0, -1, NAN)),
        *(("parking_interval", value) for value in (0, "60")),
    ],
)
def test_wrong_limits_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Limits(**{field: value})
    assert caught.value.field == f"Limits.{field}"


@pytest.mark.parametrize(("kind", "fields"), [(Limits, (5,)), (Retry, ("r", 5)), (Cluster, ("a", "u"))])
def test_past_the_first_field_everything_is_named(
    kind: Callable[..., object], fields: tuple[Any, ...]
) -> None:
    with pytest.raises(TypeError, match="positional"):
        kind(*fields)


@pytest.mark.parametrize(
    ("formerly", "said"),
    [
        ("orders", "a list of topic names"),
        (7, "a list of topic names"),
        ([""], "Topic.formerly"),
        ([7], "Topic.formerly"),
        (["^orders"], "must be a name"),
        (["primary.orders"], "is the topic's name itself"),
    ],
)
def test_former_names_are_names(formerly: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Topic("primary.orders", retry=Retry("retry"), dead_letter="dead", formerly=formerly)


def test_former_names_need_a_retry_topic() -> None:
    for retry in (None, Retry()):
        with pytest.raises(ConfigError, match="copies in a retry topic"):
            Topic("primary.orders", retry=retry, dead_letter="dead", formerly=["orders"])


def test_two_entries_with_one_retry_topic_cannot_claim_one_topics_copies() -> None:
    def entry(name: str, retry: str, *formerly: str) -> Topic:
        return Topic(name, retry=Retry(retry), dead_letter="dead", formerly=formerly)

    for other in (entry("orders", "retry"), entry("b.orders", "retry", "orders")):
        with pytest.raises(ConfigError, match="share the retry topic 'retry'"):
            check_topics([entry("a.orders", "retry", "orders"), other])
    check_topics([entry("a.orders", "a-retry", "orders"), entry("orders", "retry")])
    assert entry("a.orders", "retry", "orders", "sales", "orders").formerly == ("orders", "sales")
