"""Stdlib process pools: what they cannot survive, and how they are started."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path

import pytest

from tests.workers import handlers
from tests.workers.driving import Driven, orders, spec


@pytest.fixture
def spawned() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


def test_a_pool_that_breaks_ends_the_runner_and_claims_nothing(
    spawned: ProcessPoolExecutor, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    driven = Driven(spawned, spec(partial(handlers.do_as_told, str(said), "")))
    driven.push(orders("ok", "os-exit", "ok", "ok"))
    driven.until(lambda: driven.runner.failure is not None)
    assert isinstance(driven.runner.failure, BrokenProcessPool)
    driven.turn()
    begun = {int(line.split()[1]) for line in handlers.lines(said)}
    assert {one.offset for one in driven.done} <= begun - {1}
    assert not driven.died
    driven.push(orders("ok", first=10))  # raises nothing, starts nothing
    driven.close(1.0)


def test_a_pool_that_forks_gets_a_warning_and_forks_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    before = {child.pid for child in active_children()}
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool, caplog.at_level(logging.WARNING):
        driven = Driven(pool, spec(handlers.nothing))
        forked = {child.pid for child in active_children()} - before
        assert len(forked) == 2
        assert "forks its workers" in caplog.text
        driven.push(orders("ok", "ok"))
        driven.until_ended(2)
        driven.close()


def test_other_pools_get_no_warning(caplog: pytest.LogCaptureFixture, spawned: ProcessPoolExecutor) -> None:
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(1) as threads:
        for pool in (threads, spawned):
            driven = Driven(pool, spec(handlers.nothing))
            driven.close()
    assert not caplog.records


def test_the_handler_runs_in_the_pool(spawned: ProcessPoolExecutor, tmp_path: Path) -> None:
    said = tmp_path / "said"
    driven = Driven(spawned, spec(partial(handlers.do_as_told, str(said), "")))
    driven.push(orders("ok"))
    driven.until_ended(1)
    assert handlers.lines(said)[0].split()[2] != str(os.getpid())
    driven.close()
