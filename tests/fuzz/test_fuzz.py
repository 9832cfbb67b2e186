"""Each target with Hypothesis: no exception but the declared ones, and no more memory than the input's size justifies."""

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

FIXED = 300_000  # bytes that a run may take whatever it is given
PER_BYTE = {
    "headers": 600,
    "whole-headers": 600,
    "offset-map": 3_000,
    "signed-offset-map": 3_000,
    "payload": 600,
}
EXAMPLES = {"claims": 150}

# Hypothesis likes few bytes, and many of them equal: what goes through many choices is drawn at once.
ANY_BYTES = st.binary(max_size=3_000) | st.builds(
    lambda seed, size: random.Random(seed).randbytes(size), st.integers(0, 2**32), st.integers(0, 3_000)
)


def peak(name: str, data: bytes) -> int:
    """The most that the target held at a time."""
    tracemalloc.start()
    try:
        TARGETS[name](data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    @settings(max_examples=EXAMPLES.get(name, 400), deadline=None)
    @given(ANY_BYTES)
    def check(data: bytes) -> None:
        most = PER_BYTE.get(name)
        if most is None:
            TARGETS[name](data)
        else:
            assert peak(name, data) <= FIXED + most * len(data)

    check()


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 200_000,
        b'{"a":' * 50_000,
        b'"' + b"\\ud800" * 10_000 + b'"',
        b"9" * 100_000,
        b"1e" + b"9" * 100_000,
        b"-" * 1_000,
        b"[" + b"1," * 100_000 + b"1]",
        '{"n": 1}'.encode("utf-32"),
    ],
    ids=["brackets", "objects", "surrogates", "digits", "exponent", "minus", "long", "utf-32"],
)
def test_payloads_that_are_made_to_hurt(data: bytes) -> None:
    assert peak("payload", data) <= FIXED + 600 * len(data)


@pytest.mark.parametrize("letters", [b"A", b"_", b"\xff", b"\x80"])
def test_metadata_as_long_as_a_broker_takes(letters: bytes) -> None:
    """Of bits that are all zero, all one, and alternate: what is longest as codes and longest as runs."""
    for name in ("offset-map", "signed-offset-map"):
        assert peak(name, b"\x05\xc8" + b"\xff" * 8 + letters * 4_000) <= FIXED + 3_000 * 4_000
