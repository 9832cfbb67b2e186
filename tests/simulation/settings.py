"""What one seed's world is like: small, and nasty in its own way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from retriable_kafka_client.core.engine import EngineConfig, Route
from retriable_kafka_client.core.engine_config import Ordering
from retriable_kafka_client.core.retry import Policy
from tests.simulation.records import Outcome

__all__ = ["Faults", "Growing", "Settings", "draw"]

GROUP = "group"
RETRY_TOPIC = "retry"
DEAD_TOPIC = "dead"


@dataclass(frozen=True, slots=True)
class Growing:
    """The attempt's number times ``first`` seconds, and up to a tenth more."""

    first: float

    def delay(self, attempt: int, chance: float) -> float:
        return self.first * attempt * (1.0 + chance / 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How likely each trouble is in one round (of one member, where it concerns one)."""

    crash: float
    evict: float
    stop: float
    join: float
    shuffle: float  # a rebalance without a change of members
    broker_down: float
    refuse_copies: float  # a topic refuses for a while
    refuse_copy: float  # this one copy is refused
    refuse_commits: float  # for a while
    refuse_commit: float  # this one commit, or some of its partitions
    lose_answer: float  # the commit lands after it was reported as timed out
    clock_step: float
    recreate: float
    gap: float  # per record
    compact: float
    lose_batch: float
    slow: float  # per run: longer than the drain
    late_withdraw: float
    hold: float  # everything is paused for a while
    refuse_output: float
    abort: float  # a transaction, for a reason that passes
    go_back: float  # per partition and rebalance: the last poll is read again
    meddle: float  # a tool rewrites what is committed, when it is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    config: EngineConfig
    names: tuple[str, ...]  # the topic of each route, which may be given by pattern
    partitions: dict[str, int]
    retry_topic: str
    members: int
    cooperative: bool
    workers: int
    poll: int  # the most records of one poll
    drain_timeout: float
    metadata_limit: int
    retention_ms: int | None
    message_bytes: int
    rounds: int
    messages: float  # new ones per round
    faults: Faults
    outcomes: tuple[Outcome, ...]
    body_bytes: int
    jobs: float  # share of messages that are scheduled jobs
    farthest: float  # seconds until they are due
    odd: float  # share of records that must not be run
    filtering: bool
    chunked: float  # share of messages that are sent in chunks
    keys: int  # how many there are; 0: messages have none
    reopens: bool  # meets a re-created topic with a new client
    stalls: bool = False  # some messages hold the whole process up
    calm: float = 400.0  # a healed world must have nothing left after so many seconds
    patience: float = 20.0  # seconds that a calm world may need to run what is due


def draw(seed: int, random: Random) -> Settings:
    """Make up a world."""
    settings = _exactly_once(_draw(seed, random), seed)
    go_back = Random(f"go back {seed}").choice((0.0, 0.1, 0.5))
    settings = replace(settings, faults=replace(settings.faults, go_back=go_back))
    if not settings.chunked and Random(f"reset {seed}").random() < 0.3:
        settings = replace(settings, config=replace(settings.config, reset="latest"))
    if _may_stall(settings) and Random(f"stalls {seed}").random() < 0.7:
        settings = replace(settings, stalls=True, patience=settings.patience + 60.0)
    return settings


def _may_stall(settings: Settings) -> bool:
    """Where it is easily told what must become of a message that holds the process up."""
    config = settings.config
    in_place = any(route.policy is not None and route.retry_topic is None for route in config.routes)
    return config.solo and not (config.exactly_once or settings.chunked or in_place)


def _exactly_once(settings: Settings, seed: int) -> Settings:
    """Let some worlds have transactions."""
    random = Random(f"exactly once {seed}")
    if random.random() >= 0.35:
        return settings
    outcomes = settings.outcomes
    if random.random() < 0.8:
        outcomes += random.choice(((Outcome.SEND,), (Outcome.SEND,) * 3))
    faults = replace(
        settings.faults,
        meddle=0.0,  # what is committed is the only memory that there is
        abort=random.choice((0.0, 0.1, 0.4)),
        refuse_output=random.choice((0.0, 0.0, 0.05, 0.3)),
        crash=random.choice((settings.faults.crash, 0.08)),
        evict=random.choice((settings.faults.evict, 0.08)),
        lose_answer=random.choice((settings.faults.lose_answer, 0.3, 0.7)),
    )
    most = Random(f"in one transaction {seed}").choice((100, 500, 100_000))
    config = replace(settings.config, exactly_once=True, transaction_bytes=most)
    settings = replace(settings, config=config, outcomes=outcomes, faults=faults)
    if random.random() < 0.3:  # the broker takes short maps only, and what goes beyond is already under way
        config = replace(settings.config, map_units=30, window=20, in_flight=64, buffer_bytes=100_000)
        faults = replace(faults, slow=0.2)
        return replace(
            settings, config=config, metadata_limit=24, faults=faults, chunked=0.0, workers=4, messages=2.0
        )
    return settings


def _draw(seed: int, random: Random) -> Settings:
    chance, choice = random.random, random.choice
    two_routes = chance() < 0.4
    max_attempts = choice((1, 2, 2, 3, 4))
    policy = Policy(
        max_attempts=max_attempts, delay=Growing(choice((0.0, 0.3, 1.0, 4.0))), give_up_on=(KeyError,)
    )
    dead = DEAD_TOPIC if chance() < 0.85 else None
    routes = [Route(topic="one", retry_topic=RETRY_TOPIC, dead_letter=dead, policy=policy)]
    if two_routes:
        retries = chance() < 0.7
        routes.append(
            Route(
                topic="two",
                retry_topic=RETRY_TOPIC if retries else None,
                dead_letter=dead if retries else DEAD_TOPIC,
                policy=policy if retries else None,
            )
        )
    partitions = {route.topic: choice((1, 2)) if not two_routes else 1 for route in routes}
    partitions[RETRY_TOPIC] = choice((1, 1, 2))
    partitions[DEAD_TOPIC] = 1
    map_units = choice((0, 23, 23, 24, 25, 26, 4095, 4095))
    config = EngineConfig(
        group=GROUP,
        routes=_by_pattern(seed, routes),
        in_flight=choice((1, 2, 3, 8, 64)),
        window=choice((1, 2, 3, 5, 8, 20)),
        buffer_bytes=choice((2_500, 6_000, 100_000)),
        commit_interval=choice((0.0, 0.3, 1.0, 3.0)),
        parking_interval=choice((1.0, 3.0, 8.0)),
        map_units=map_units,
        least_map_units=choice((23, 23, 26)),
        solo=seed % 3 == 0,
        solo_patience=1e6,
    )
    drawn = Settings(
        config=config,
        names=tuple(route.topic for route in routes),
        partitions=partitions,
        retry_topic=RETRY_TOPIC,
        members=choice((2, 2, 3, 4)),
        cooperative=chance() < 0.5,
        workers=choice((1, 2, 4)),
        poll=choice((1, 3, 10)),
        drain_timeout=choice((0.5, 3.0, 6.0)),
        metadata_limit=choice((map_units, 4095, 4095, map_units // 2)),
        retention_ms=choice((None, None, 20_000)),
        message_bytes=700,
        rounds=choice((20, 30, 45)),
        messages=choice((0.5, 1.0, 2.0)),
        faults=_faults(random),
        outcomes=choice(
            (
                (Outcome.DONE,),
                (Outcome.DONE, Outcome.DONE, Outcome.FAIL),
                (Outcome.DONE, Outcome.FAIL, Outcome.FAIL, Outcome.DIE, Outcome.AFTER),
                tuple(Outcome),
            )
        ),
        body_bytes=choice((10, 200, 600)),
        jobs=choice((0.0, 0.1, 0.3, 0.6)),
        farthest=choice((3.0, 15.0, 40.0, 110.0)),
        odd=choice((0.0, 0.05, 0.2)),
        filtering=chance() < 0.3,
        chunked=0.0,
        keys=0,
        reopens=chance() < 0.5,
    )
    # Drawn apart, so that worlds stay what they are when something is added here.
    more = Random(f"besides {seed}")
    outcomes = drawn.outcomes
    if more.random() < 0.5:
        outcomes += more.choice(((Outcome.SEND,), (Outcome.SEND, Outcome.SEND), (Outcome.OVERDUE,)))
    faults = replace(
        drawn.faults,
        hold=more.choice((0.0, 0.05, 0.2)),
        refuse_output=more.choice((0.0, 0.3)),
    )
    drawn = replace(drawn, outcomes=outcomes, faults=faults)
    if more.random() < 0.35:
        return _chunked(_in_place(drawn, more), seed)
    if more.random() < 0.15:  # what is far off crowds the window
        # A dozen or two of such are a crowd; each of them costs a parking in every interval.
        config = replace(drawn.config, window=5, parking_interval=2.0, buffer_bytes=100_000)
        drawn = replace(drawn, config=config, jobs=0.6, farthest=150.0, messages=min(1.0, drawn.messages))
    return _chunked(drawn, seed)


def _chunked(settings: Settings, seed: int) -> Settings:
    """Send some messages in chunks."""
    random = Random(f"chunks {seed}")
    message_bytes = random.choice((700, 1_500))
    chunked = random.choice((0.0, 0.0, 0.1, 0.3, 0.6))
    if chunked and random.random() < 0.25:  # what was cut may be gone when it is to be read again
        settings = replace(settings, faults=replace(settings.faults, compact=0.3))
    return replace(
        settings,
        chunked=chunked,
        message_bytes=message_bytes,
        rounds=min(settings.rounds, 25 if chunked > 0.1 else 45),  # a message in chunks is several records
        config=replace(
            settings.config, message_bytes=message_bytes, chunk_wait=random.choice((4.0, 10.0, 25.0))
        ),
        patience=settings.patience + 60.0,
        calm=1_500.0,  # a log full of unfinished messages is read again once for a few of them
    )


def _in_place(settings: Settings, random: Random) -> Settings:
    """Retry in memory, in most such worlds in order; without a retry topic, unless another entry has one."""
    ordering: Ordering = random.choice(("key", "key", "partition", "unordered"))
    routes = settings.config.routes
    all_of_them = ordering != "unordered" or random.random() < 0.5
    delay = Growing(
        random.choice((0.0, 0.1, 0.5))
    )  # with a small window each message waits for the one before
    routes = tuple(
        replace(
            route,
            retry_topic=None,
            policy=replace(route.policy, delay=delay) if route.policy is not None else None,
        )
        if index == 0 or all_of_them
        else route
        for index, route in enumerate(routes)
    )
    partitions = dict(settings.partitions)
    if not any(route.retry_topic for route in routes):
        del partitions[RETRY_TOPIC]
    if ordering == "partition":
        partitions |= {route.topic: 2 for route in routes}  # or there is little to be done at a time
    return replace(
        settings,
        config=replace(settings.config, ordering=ordering, routes=routes),
        partitions=partitions,
        calm=1_500.0,
        faults=replace(settings.faults, hold=random.choice((settings.faults.hold, 0.3))),
        keys=random.choice((1, 2, 3, 5)),
    )


def _by_pattern(seed: int, routes: list[Route]) -> tuple[Route, ...]:
    """The same topics, some of them by pattern. Chance of its own: what else a seed is like does not hang on it."""
    random = Random(f"{seed} by pattern")
    patterns = {"one": ("^one$", "^on", "^one|^none"), "two": ("^two$", "^t[a-z]o")}
    made = []
    for route in routes:
        topic = random.choice(patterns[route.topic]) if random.random() < 0.3 else route.topic
        retry_topic = route.retry_topic
        if retry_topic is not None and random.random() < 0.15:
            retry_topic = "^ret.*"
        made.append(replace(route, topic=topic, retry_topic=retry_topic))
    return tuple(made)


def _faults(random: Random) -> Faults:
    def some(often: float) -> float:
        return often if random.random() < 0.4 else 0.0

    return Faults(
        crash=some(0.03),
        evict=some(0.03),
        stop=some(0.03),
        join=0.1,
        shuffle=some(0.1),
        broker_down=some(0.04),
        refuse_copies=some(0.06),
        refuse_copy=some(0.2),
        refuse_commits=some(0.05),
        refuse_commit=some(0.25),
        lose_answer=some(0.25),
        clock_step=some(0.2),
        recreate=some(0.03),
        gap=some(0.2),
        compact=some(0.05),
        lose_batch=some(0.05),
        slow=some(0.1),
        late_withdraw=some(0.5),
        meddle=some(0.1),
        hold=0.0,
        refuse_output=0.0,
        abort=0.0,
        go_back=0.0,
    )
