"""What the tests stand on: real Kafka, processes without orphans, records in and out, evidence files.

Fixtures (`tests/conftest.py`):

kafka: Kafka
    The shared cluster: KAFKA_BOOTSTRAP_SERVERS, else one broker of our own, started when first asked for, for all
    parallel workers. Do not stop it; other tests use it. KAFKA_VERSION: which version the tests start.
topics: Topics
    A test's own names on it: `topics("orders", 4, {"retention.ms": "1000"})` creates a topic and returns
    its name, `topics.name("x")` only names one, `topics.group` is a group, `topics.kafka` the cluster.
topic: str
    One such topic with four partitions.
own_kafka: Callable[..., KafkaCluster]
    `own_kafka(3, acl=True, extra={"offset.metadata.max.bytes": "100"})`: a started cluster that the test
    may stop and break, gone at the test's end.
mock: MockKafka
    The mock cluster of `retriable_kafka_client.testing`, one for each module of tests.
orders: str
    A topic of this test's own on `mock`, with one partition.
mock_kafka: Callable[[Mapping[str, int]], MockKafka]
    `mock_kafka({"orders": 4})`: a mock cluster of the test's own with these topics, gone at its end.

Tests that use one of the first four are marked `kafka` by themselves: `pytest -m "not kafka"` is the quick
part. `python -m tests.support.kafka` keeps a cluster for `export KAFKA_BOOTSTRAP_SERVERS=…`, which saves
its start.

Modules:

kafka
    `Kafka`: bootstrap_servers, admin(), create_topic(name, partitions=4, config=None) -> name,
    delete_topic(name); both return when the brokers agree. `KafkaCluster(brokers=1, *, users=USERS,
    acl=False, extra=None)` besides: start(), close(), `with`; broker(1), brokers, sasl_bootstrap_servers,
    sasl("alice") -> librdkafka settings, wait_members(), wait_in_sync(*topics), log_dir.
brokers
    `Broker`: pause() SIGSTOP, resume() SIGCONT, kill() SIGKILL, stop() SIGTERM, start() again with the same
    ports and data; launch() and wait_ready() are its two halves; pid, log, address, sasl_address.
protocols
    `has_consumer_protocol(servers)`: whether brokers have `group.protocol=consumer`; Labs skip what needs it elsewhere.
shared
    `SharedKafka`: the `kafka` of all parallel workers, kept by the process that reports.
names
    `unique(label)`: a name that nobody else uses.
records
    `produce_many(servers, topic, payloads, *, keys, headers, partition, settings)` -> int;
    `produce_one(servers, topic, value, *, key, headers, partition, timestamp_ms)` -> (partition, offset);
    `read_all(servers, topic)` -> list[Read], as read_committed;
    `committed(servers, group, topic)` -> {partition: Commit(offset, metadata)};
    `end_offsets(servers, topic)`, `group_lag(servers, group, topic)`, `group_size(servers, group)`.
waiting
    `wait_until(predicate, timeout=30, what="…")`: the first true value, or an AssertionError that says what
    did not happen.
limits
    `FixedLimits(size)`: what every topic takes, for what sends.
raising
    `raised_by(function)`: the exception that the call raises.
processes
    `Program("-m tests.x.y", *args, log=path, env=None)`: a Python program that never outlives the tests:
    pid, poll(), wait(timeout), terminate(), kill9(), pause(), resume(), output, close(), `with`.
    `GuardedProcess`: the same for any command.
evidence
    `EvidenceWriter(path).write("handled", id=7)`, `read_evidence(path)` -> list of dicts.

What the machine lacks (Java, Maven) raises `errors.HarnessError`, which names the remedy; nothing is skipped.
"""
