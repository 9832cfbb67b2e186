from retriable_kafka_client import events
from retriable_kafka_client.core.entry import FOREIGN
from retriable_kafka_client.wire.headers import Marks
from tests.core.harness import RETRY, Bench, Raw, told


def test_names_that_anybody_may_write_cost_little_and_each_is_told_of_once() -> None:
    bench = Bench(window=10_000)
    bench.assign(RETRY)
    found: list[str] = []
    for offset in range(1_000):
        marks = Marks(group=f"group-{offset // 2}" + "g" * 10_000)
        commands = bench.arrive(RETRY, (offset, Raw(marks, FOREIGN)))
        found += [one.group for one in told(commands, events.ForeignCopies)]
    assert bench.engine.counters.foreign == 1_000
    assert len(found) == len(set(found)) == 100
    assert found[1].startswith("group-1g") and max(map(len, found)) <= 255
