from __future__ import annotations

import base64
import pickle
import unicodedata
import zlib
from dataclasses import replace
from hashlib import blake2b
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retriable_kafka_client.core.offset_map import (
    MAX_OFFSET,
    Binding,
    OffsetMap,
    OffsetMapError,
    bits_bound,
    capacity,
    coded_bits,
    decode,
    encode,
)

PLENTY = 10**7
BINDING = Binding(b"topic/3", b"topic-id", b"cluster-id", b"cluster-id.topic")


@st.composite
def offset_maps(draw: st.DrawFn, steps: int = 40) -> OffsetMap:
    """Any map: bit sets, sparse lists, long runs, clusters far apart."""
    base = draw(st.integers(0, 2**40) | st.integers(MAX_OFFSET - 5_000, MAX_OFFSET))
    gap = st.integers(1, 5) | st.integers(1, 3_000) | st.integers(1, 2**30)
    length = st.integers(1, 3) | st.integers(1, 2_500)
    runs: list[tuple[int, int]] = []
    at = base - draw(st.integers(0, 1))  # an incomplete offset at base is usual
    for skip, size in draw(st.lists(st.tuples(gap, length), max_size=steps)):
        first = max(base, at + skip)
        if first + size > MAX_OFFSET:
            break
        runs.append((first, first + size))
        at = first + size
    last = runs[-1][1] if runs else base
    end = min(MAX_OFFSET, last + draw(st.integers(0, 3) | st.integers(0, 2**30)))
    return OffsetMap(base, tuple(runs), end)


def incomplete_count(offsets: OffsetMap) -> int:
    return sum(stop - first for first, stop in offsets.incomplete)


def pages_of(offsets: OffsetMap) -> int:
    pages: set[int] = set()
    for first, stop in offsets.incomplete:
        pages.update(range(first >> 10, (stop - 1 >> 10) + 1))
    return len(pages)


def holds(offsets: OffsetMap, offset: int) -> bool:
    inside = offsets.base <= offset < offsets.end
    return inside and not any(first <= offset < stop for first, stop in offsets.incomplete)


def error_of(text: str, base: int = 0, binding: Binding = BINDING) -> str:
    with pytest.raises(OffsetMapError) as caught:
        decode(text, base=base, binding=binding)
    return caught.value.reason


@given(offset_maps(), st.builds(Binding, *[st.binary(max_size=40)] * 3))
@example(OffsetMap(0, (), 0), Binding(b"", b""))
@example(OffsetMap(5, ((5, 6),), 6), Binding(b"x", b"y"))
@example(OffsetMap(0, (), MAX_OFFSET), Binding(b"x", b"y"))
@example(OffsetMap(0, ((0, 1), (10**6, 10**6 + 10_000)), 10**6 + 20_000), Binding(b"paged", b""))
@example(OffsetMap(1_023, ((1_023, 1_025), (9_000, 9_001)), 10_000), Binding(b"across", b"pages"))
def test_a_map_comes_back_as_it_was(offsets: OffsetMap, binding: Binding) -> None:
    text = encode(offsets, binding=binding, budget_units=PLENTY)
    assert decode(text, base=offsets.base, binding=binding) == offsets
    assert decode(text.encode().decode(), base=offsets.base, binding=binding) == offsets


@given(offset_maps(), st.integers(0, 400))
def test_a_text_keeps_to_its_budget_and_claims_nothing_untrue(offsets: OffsetMap, budget: int) -> None:
    text = encode(offsets, binding=BINDING, budget_units=budget)
    assert len(text) <= budget
    assert len(text.encode("utf-16-le")) == 2 * len(text)
    assert "\0" not in text
    assert unicodedata.normalize("NFC", text) == text
    cut = decode(text, base=offsets.base, binding=BINDING)
    assert cut.end <= offsets.end
    assert cut.incomplete == offsets.incomplete[: len(cut.incomplete)]
    following = offsets.incomplete[len(cut.incomplete) :]
    if cut.end < offsets.end:
        assert not following or cut.end <= following[0][0]
        assert coded_bits(offsets) > capacity(budget)


@given(offset_maps())
def test_the_cut_keeps_as_much_as_fits(offsets: OffsetMap) -> None:
    for budget in (20, 25, 40):
        text = encode(offsets, binding=BINDING, budget_units=budget)
        cut = decode(text, base=offsets.base, binding=BINDING)
        if cut.end == offsets.end:
            continue
        kept = len(cut.incomplete)
        longer_end = offsets.incomplete[kept + 1][0] if kept + 1 < len(offsets.incomplete) else offsets.end
        longer = OffsetMap(offsets.base, offsets.incomplete[: kept + 1], longer_end)
        assert coded_bits(longer) > capacity(budget)


@given(offset_maps())
def test_the_bound_is_one_and_near(offsets: OffsetMap) -> None:
    count, pages = incomplete_count(offsets), pages_of(offsets)
    bound = bits_bound(count, pages, offsets.base, offsets.end)
    end = offsets.incomplete[-1][1] if offsets.incomplete else offsets.base
    snug = bits_bound(count, pages, offsets.base, max(end, offsets.base))
    assert coded_bits(offsets) <= snug <= bound


def reference_bound(count: int, pages: int, base: int, end: int) -> int:
    def rice(count: int, span: int) -> int:
        return min(count * (1 + k) + (span - count >> k) for k in range(66))

    listed = rice(pages, ((end - 1) >> 10) - (base >> 10) + 1)
    return min(rice(count, end - base), listed + rice(count, pages << 10))


@given(st.data(), st.integers(0, 2**40), st.integers(1, 200_000) | st.integers(1, 2**40))
def test_the_bound_is_the_least_over_all_parameters(data: st.DataObject, base: int, span: int) -> None:
    end = base + span
    pages = data.draw(st.integers(1, min(5_000, ((end - 1) >> 10) - (base >> 10) + 1)))
    count = data.draw(st.integers(min(pages, span), min(pages << 10, span)))
    assert bits_bound(count, pages, base, end) == reference_bound(count, pages, base, end)


def reference_bits(numbers: list[int], start: int) -> int:
    gaps = [number - previous - 1 for previous, number in pairwise([start - 1, *numbers])]
    return min(sum((gap >> k) + 1 + k for gap in gaps) for k in range(64))


@given(st.integers(0, 3_000), st.sets(st.integers(0, 50) | st.integers(0, 10**6), max_size=40))
def test_the_code_has_the_best_parameters(base: int, numbers: set[int]) -> None:
    offsets = sorted(base + number for number in numbers)
    firsts = [offset for offset in offsets if offset - 1 not in offsets]
    stops = [offset + 1 for offset in offsets if offset + 1 not in offsets]
    pages = sorted({offset >> 10 for offset in offsets})
    packed = [(pages.index(offset >> 10) << 10) + offset % 1_024 for offset in offsets]
    best = min(reference_bits(offsets, base), reference_bits(pages, base >> 10) + reference_bits(packed, 0))
    assert coded_bits(OffsetMap(base, tuple(zip(firsts, stops, strict=True)), base + 10**6 + 1)) == best


def completed(offsets: OffsetMap, offset: int) -> OffsetMap:
    """Return the map of the same assignment after one more offset completed."""
    runs: list[tuple[int, int]] = []
    for first, stop in offsets.incomplete:
        if first <= offset < stop:
            runs += [(low, high) for low, high in ((first, offset), (offset + 1, stop)) if low < high]
        else:
            runs.append((first, stop))
    base = offsets.base
    if runs and offset == base:
        base = runs[0][0]
    return OffsetMap(base, tuple(runs), offsets.end)


@given(offset_maps(12), st.data())
def test_completing_never_makes_the_code_or_its_bound_longer(offsets: OffsetMap, data: st.DataObject) -> None:
    for _ in range(6):
        if not offsets.incomplete:
            return
        first, stop = data.draw(st.sampled_from(offsets.incomplete))
        after = completed(offsets, data.draw(st.sampled_from([first, stop - 1, (first + stop) // 2])))
        assert coded_bits(after) <= coded_bits(offsets)
        before_bound = bits_bound(incomplete_count(offsets), pages_of(offsets), offsets.base, offsets.end)
        after_bound = bits_bound(incomplete_count(after), pages_of(after), after.base, after.end)
        assert after_bound <= before_bound
        offsets = after


@given(offset_maps(12), st.data())
def test_ending_earlier_never_makes_the_code_longer(offsets: OffsetMap, data: st.DataObject) -> None:
    if offsets.incomplete:
        kept = data.draw(st.integers(0, len(offsets.incomplete) - 1))
        shorter = OffsetMap(offsets.base, offsets.incomplete[:kept], offsets.incomplete[kept][0])
        assert coded_bits(shorter) <= coded_bits(offsets)


@pytest.mark.parametrize(
    ("incomplete", "end"),
    [
        pytest.param([(0, 30_000)], 60_000, id="dense"),
        pytest.param([(n, n + 1) for n in range(0, 60_000, 2)], 60_000, id="alternating"),
        pytest.param([(0, 1), (10**6, 10**6 + 30_000)], 10**6 + 60_000, id="stuck-head"),
        pytest.param([(n * 10_000, n * 10_000 + 1) for n in range(3_500)], 35_000_000, id="sparse"),
        pytest.param([(0, 1)], MAX_OFFSET, id="one"),
    ],
)
def test_what_the_brokers_default_limit_holds(incomplete: list[tuple[int, int]], end: int) -> None:
    offsets = OffsetMap(0, tuple(incomplete), end)
    text = encode(offsets, binding=BINDING, budget_units=4_095)
    assert len(text) <= 4_095
    assert decode(text, base=0, binding=BINDING) == offsets


FLAT = OffsetMap(1_000, ((1_000, 1_001), (1_005, 1_007), (1_100, 1_101)), 1_200)
FLAT_CODES = "1000010100100000000011101"
"""The gaps 0, 4, 0 and 93 with k = 4, written by hand from the description of the format."""


def test_the_text_of_version_1_is_still_read() -> None:
    small = "rkc1sl3-VZgAAAAAAAAPolGP_lyVgbE8AAAAAAAAEsBAAAAAACFIA6"
    wide = (
        "rkc1w\u6f6c\u491d\u544a\u3400\u3400\u340f\u8572\u9849\u7fdc\u8c65"
        "\u3de0\u3400\u3400\u3400\u3d60\u4400\u3400\u3402\u3e40\u4280"
    )
    assert small == fields("1", base=1_000, end=1_200, k=4, page_k=0, pages=0, codes=FLAT_CODES)
    assert decode(small, base=1_000, binding=BINDING) == decode(wide, base=1_000, binding=BINDING) == FLAT
    elsewhere = BINDING._replace(cluster=b"another one")
    assert decode(small, base=1_000, binding=elsewhere) == FLAT  # it does not name its cluster
    assert error_of(small, 1_000, BINDING._replace(incarnation=b"another-id")) == "topic"


def test_the_text_of_version_2_stays_as_it_is() -> None:
    small = encode(FLAT, binding=BINDING, budget_units=4_095)
    wide = encode(FLAT, binding=BINDING, budget_units=30)
    assert small == fields("2", base=1_000, end=1_200, k=4, page_k=0, pages=0, codes=FLAT_CODES)
    assert small == "rkc2s76ybAgAAAAAAAAPolGP_l7458gElYGxPAAAAAAAABLAQAAAAAAhSAOg"
    assert (
        wide == "rkc2w\ub87a\u5b0a\u744a\u3400\u3400\u340f\u8572\u9849\u8029\u427c\u746e"
        "\u8a50\u96c2\u3400\u3400\u3400\u3658\u3800\u3400\u3400\u76da\u37a0"
    )
    assert decode(small, base=1_000, binding=BINDING) == decode(wide, base=1_000, binding=BINDING) == FLAT

    far = 2**40
    paged = OffsetMap(7, ((7, 8), (far, far + 3), (far + 1_030, far + 1_031)), far + 4_000)
    # Pages 0, 2**30 and the one behind it with k = 28; offsets 7, 1,024, 1,025, 1,026 and 2,054 with k = 8.
    pages = "1" + "0" * 28 + "0001" + f"{2**28 - 1:028b}" + "1" + "0" * 28
    codes = "1000001110001111110001000000001000000000000100000011"
    by_hand = fields("2", base=7, end=far + 4_000, k=8, page_k=28, pages=3, codes=pages + codes)
    assert decode(by_hand, base=7, binding=BINDING) == paged
    assert encode(paged, binding=BINDING, budget_units=4_095) == by_hand


def test_each_mismatch_has_its_reason() -> None:
    text = encode(OffsetMap(10, ((10, 11),), 30), binding=BINDING, budget_units=4_095)
    assert error_of("someone's note", 10) == "not-ours"
    assert error_of("rk", 10) == "not-ours"
    assert error_of("rkc", 10) == "version"
    assert error_of("rkc3" + text[4:], 10) == "version"
    assert error_of("rkc2", 10) == "malformed"
    assert error_of("rkc2x" + text[5:], 10) == "malformed"
    assert error_of("rkc1" + text[4:], 10) == "checksum"
    assert error_of(text[:20], 10) == "malformed"
    assert error_of(text[:-1] + "!", 10) == "malformed"
    assert error_of(text + "A" * 8, 10) == "checksum"
    assert error_of(text[:10] + ("A" if text[10] != "A" else "B") + text[11:], 10) == "checksum"
    assert error_of(text, 11) == "base"
    assert error_of(text, 10, BINDING._replace(place=b"topic/4")) == "binding"
    assert error_of(text, 10, BINDING._replace(incarnation=b"another-id")) == "topic"
    # A tool copied it: nothing else that differs there counts.
    assert error_of(text, 10, BINDING._replace(cluster=b"another")) == "cluster"
    assert error_of(text, 11, Binding(b"mirror.topic/3", b"another-id", b"another")) == "cluster"
    assert decode("", base=10, binding=BINDING) == OffsetMap(10, (), 10)


def test_an_id_that_the_brokers_begin_to_tell_is_no_other_topic() -> None:
    before = Binding(b"topic/3", b"cluster-id.topic", b"cluster-id", b"cluster-id.topic")
    offsets = OffsetMap(10, ((10, 11),), 30)
    text = encode(offsets, binding=before, budget_units=4_095)
    assert decode(text, base=10, binding=BINDING) == offsets
    assert error_of(encode(offsets, binding=BINDING, budget_units=4_095), 10, before) == "topic"


@given(
    st.text()
    | st.text().map("rkc2s".__add__)
    | st.text(alphabet="ABCDEFxyz019-_", min_size=40).map("rkc2s".__add__)
    | st.text(alphabet=st.characters(min_codepoint=0x3400, max_codepoint=0xC0A3), min_size=15).map(
        "rkc1w".__add__
    ),
    st.integers(0, MAX_OFFSET),
)
@example(base64.b64encode(bytes(300)).decode(), 0)
def test_any_text_is_answered(text: str, base: int) -> None:
    try:
        offsets = decode(text, base=base, binding=BINDING)
    except OffsetMapError:
        return
    assert offsets == OffsetMap(base, (), base)
    assert not text


@given(offset_maps(8), st.data())
def test_a_changed_text_is_refused(offsets: OffsetMap, data: st.DataObject) -> None:
    offsets = replace(offsets, end=max(offsets.end, min(offsets.base + 1, MAX_OFFSET)))
    text = encode(offsets, binding=BINDING, budget_units=data.draw(st.sampled_from([PLENTY, 40])))
    if not text:
        return
    at = data.draw(st.integers(0, len(text) - 1))
    how = data.draw(st.sampled_from(["replace", "insert", "delete", "cut"]))
    letter = data.draw(st.sampled_from("Az09-_\0é\u3400\u9fa5\uac00\U0001f600") | st.characters())
    changed = {
        "replace": text[:at] + letter + text[at + 1 :],
        "insert": text[:at] + letter + text[at:],
        "delete": text[:at] + text[at + 1 :],
        "cut": text[:at],
    }[how]
    if changed and changed != text:
        error_of(changed, offsets.base)


def sealed(bits: str, version: str = "2") -> str:
    """Return a text with a true checksum over whatever fields, as somebody could who knows the format."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    bits += "0" * (-(32 + len(bits)) % 6)
    size = -(-len(bits) // 8)
    seed = 0 if version == "1" else zlib.crc32(version.encode())
    bits = f"{zlib.crc32((int(bits, 2) << size * 8 - len(bits)).to_bytes(size, 'big'), seed):032b}{bits}"
    return f"rkc{version}s" + "".join(letters[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


def fields(version: str, *, base: int, end: int, k: int, page_k: int, pages: int, codes: str) -> str:
    parts = [BINDING.place, BINDING.cluster, BINDING.incarnation]
    if version == "1":
        parts.remove(BINDING.cluster)
    names = "".join(f"{int.from_bytes(blake2b(part, digest_size=4).digest(), 'big'):032b}" for part in parts)
    return sealed(f"{base:064b}{names}{end:064b}{k:06b}{page_k:06b}{pages:032b}{codes}", version)


@given(
    base=st.integers(0, 5_000) | st.integers(0, MAX_OFFSET),
    reach=st.integers(-5, 5_000) | st.integers(0, 2**64 - 1),
    k=st.integers(0, 3) | st.integers(0, 63),
    page_k=st.integers(0, 3) | st.integers(0, 63),
    pages=st.integers(0, 4) | st.integers(0, 2**32 - 1),
    codes=st.text(alphabet="01", max_size=300),
)
def test_a_sealed_text_with_any_fields_is_answered(
    base: int, reach: int, k: int, page_k: int, pages: int, codes: str
) -> None:
    end = min(max(0, base + reach), 2**64 - 1)
    text = fields("2", base=base, end=end, k=k, page_k=page_k, pages=pages, codes=codes)
    try:
        offsets = decode(text, base=base, binding=BINDING)  # OffsetMap checks itself
    except OffsetMapError:
        assert error_of(text, base) == "malformed"
        return
    assert incomplete_count(offsets) <= len(codes)
    assert offsets.end == end


@pytest.mark.parametrize(
    ("end", "k", "page_k", "pages", "codes"),
    [
        pytest.param(5, 0, 0, 0, "1" + "0" * 9, id="a whole character of filling"),
        pytest.param(2**50, 40, 0, 0, "1", id="low bits missing"),
        pytest.param(MAX_OFFSET + 1, 0, 0, 0, "1", id="end too high"),
        pytest.param(0, 0, 0, 0, "1", id="an offset at end"),
        pytest.param(
            5_000, 0, 0, 2, "11" + "1" + "0" * 2_048 + "1", id="an offset on a page that is not listed"
        ),
        pytest.param(5_000, 0, 0, 3, "11", id="fewer pages than announced"),
    ],
)
def test_what_no_member_writes_is_malformed(end: int, k: int, page_k: int, pages: int, codes: str) -> None:
    assert error_of(fields("2", base=0, end=end, k=k, page_k=page_k, pages=pages, codes=codes)) == "malformed"


def test_a_text_cannot_claim_more_than_it_is_long() -> None:
    for k, page_k, pages in ((63, 0, 0), (0, 63, 1), (63, 63, 2**32 - 1), (0, 0, 2**32 - 1)):
        assert (
            error_of(
                fields("2", base=0, end=2**62, k=k, page_k=page_k, pages=pages, codes="0" * 60_000 + "1" * 90)
            )
            == "malformed"
        )
    far = decode(
        fields("2", base=0, end=2**62, k=0, page_k=0, pages=0, codes="1" * 50_000), base=0, binding=BINDING
    )
    assert far.incomplete == ((0, 50_000),)


@pytest.mark.parametrize(
    ("base", "runs", "end"),
    [
        (-1, (), 5),
        (5, (), 4),
        (0, ((3, 3),), 9),
        (0, ((4, 3),), 9),
        (0, ((3, 5), (5, 6)), 9),
        (0, ((3, 5), (4, 6)), 9),
        (4, ((3, 5),), 9),
        (0, ((3, 5),), 4),
        (0, (), MAX_OFFSET + 1),
    ],
)
def test_a_map_that_cannot_be_is_refused(base: int, runs: tuple[tuple[int, int], ...], end: int) -> None:
    with pytest.raises(ValueError, match="offset map"):
        OffsetMap(base, runs, end)


def test_a_map_counts_what_is_complete() -> None:
    offsets = OffsetMap(10, ((10, 12), (15, 16)), 20)
    assert offsets.completed == 7
    assert [offset for offset in range(25) if holds(offsets, offset)] == [12, 13, 14, 16, 17, 18, 19]


def test_the_error_crosses_processes_and_repeats_no_text() -> None:
    with pytest.raises(OffsetMapError) as caught:
        decode("a secret", base=0, binding=BINDING)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (copied.reason, str(copied)) == ("not-ours", "not-ours")
