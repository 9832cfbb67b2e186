"""The offset map: which offsets above the commit position are complete, as a text for the commit metadata.

The text is a wire format: members of other versions, and the next owner of the partition, read it.

```
"rkc"   magic                     3 characters
"2"     version                   1 character
"s"     alphabet, "s" or "w"      1 character
then a bit string, most significant bit first, 6 ("s") or 15 ("w") bits a character:
  32    CRC-32 (that of zlib) of the version's character and all bits behind this field, with zero bits
        added up to a whole byte; in version "1" of the bits alone
  64    base: the commit position that this map belongs to
  32    binding: BLAKE2b, 4-byte digest, of the place (topic and partition by name)
  32    binding: BLAKE2b, 4-byte digest, of the cluster's id; not in version "1", which is still read
  32    binding: BLAKE2b, 4-byte digest, of the topic's incarnation
  64    end: about this offset and those above, the map says nothing
   6    k, the Rice parameter of the offsets
   6    the Rice parameter of the pages
  32    the number of pages; 0 for a flat map
   *    the codes of the pages
   *    the codes of the incomplete offsets
   *    filling: zero bits up to a whole character
```

Codes stand for increasing numbers: each for the gap g >= 0, how many numbers lie between the previous one
(for the first code: between a start, itself counted) and this one. It is g >> k zero bits, a one, and the
low k bits of g. With k = 0 that is a bit set, with a large k a sparse list. Every code has a one in front
of its low bits and the filling has none, so the filling cannot be taken for a code.

In a flat map the numbers are the incomplete offsets, and the start is base. But the usual sight is a few
messages that take long, a million complete ones behind them, and then thousands at work side by side: no
single k suits that. Hence the paged map. A page is 1,024 offsets (page p begins with offset 1,024 * p).
First come the pages that hold an incomplete offset, with base's page as the start, then the incomplete
offsets as if these pages stood side by side: the numbers are 1,024 * (index of the page in that list) +
(offset within the page), and the start is 0.

The alphabet "s" is that of base64 (``A-Z a-z 0-9``, then ``-`` and ``_``). "w" has 32,768 letters from
three ranges of the Basic Multilingual Plane, assigned since Unicode 3.0; none is a surrogate, a combining
mark or changes under NFC:

```
    0 ..  6581   U+3400 .. U+4DB5   CJK ideographs, extension A
 6582 .. 27483   U+4E00 .. U+9FA5   CJK ideographs
27484 .. 32767   U+AC00 .. U+C0A3   Hangul syllables
```

Each is one UTF-16 unit, which is what the broker counts, and three bytes of UTF-8. "s" is used when it
fits. A map that says nothing (end = base) still says whose position it stands beside: a position whose map
names this cluster, this place and another incarnation was committed for a topic that is gone; one that names
another cluster was copied by a tool, for the records that it copied, too. Brokers that know of no topic ids
may learn of them: then the map of before names the incarnation as it was named without (``Binding.fallback``).
A map may claim less than is true: one that does not fit ends earlier.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, NamedTuple, TypeAlias

__all__ = [
    "MAX_OFFSET",
    "PAGE_SHIFT",
    "Binding",
    "MapFault",
    "OffsetMap",
    "OffsetMapError",
    "Run",
    "bits_bound",
    "capacity",
    "coded_bits",
    "decode",
    "encode",
]

Run: TypeAlias = tuple[int, int]
"""Offsets first .. stop - 1. A plain pair: a fragmented map has ten thousand, and each slice makes one."""

MapFault: TypeAlias = Literal[
    "not-ours", "version", "malformed", "checksum", "cluster", "base", "binding", "topic"
]

MAX_OFFSET = 2**63 - 1
PAGE_SHIFT = 10  # a page is 1 << PAGE_SHIFT offsets

_MAGIC = "rkc"
_VERSION = "2"
_PREFIX_UNITS = len(_MAGIC) + 2


class _Version(NamedTuple):
    """What differs between the versions of the format."""

    fields: tuple[int, ...]  # bits of each field of the header
    seed: int  # what the checksum goes on from


# CRC, base, place, cluster, incarnation, end, k, k of the pages, their number
_FIELDS = (32, 64, 32, 32, 32, 64, 6, 6, 32)
_CLUSTER_FIELD = 3
_VERSIONS = {
    "1": _Version(_FIELDS[:_CLUSTER_FIELD] + _FIELDS[_CLUSTER_FIELD + 1 :], 0),
    "2": _Version(_FIELDS, zlib.crc32(b"2")),
}
_CRC_BITS = _FIELDS[0]
_HEADER_BITS = sum(_FIELDS)

_WIDTHS = {"s": 6, "w": 15}
_RANGES = {
    "s": (("A", "Z"), ("a", "z"), ("0", "9"), ("-", "-"), ("_", "_")),
    "w": (("\u3400", "\u4db5"), ("\u4e00", "\u9fa5"), ("\uac00", "\uc0a3")),
}
_LETTERS = {
    alphabet: "".join(chr(code) for low, high in ranges for code in range(ord(low), ord(high) + 1))
    for alphabet, ranges in _RANGES.items()
}


class OffsetMapError(ValueError):
    """A text that is not a map for this place; ``reason`` says why. It does not repeat what others wrote."""

    def __init__(self, reason: MapFault) -> None:
        super().__init__(reason)
        self.reason: MapFault = reason


@dataclass(frozen=True, slots=True)
class OffsetMap:
    """Every offset in base .. end - 1 is complete but those in ``incomplete``; of the others nothing is
    said.

    ``incomplete`` holds runs in increasing order that neither touch nor overlap, all inside base .. end -
    1. ValueError for anything else.
    """

    base: int
    incomplete: tuple[Run, ...]
    end: int

    def __post_init__(self) -> None:
        lowest = self.base
        for first, stop in self.incomplete:
            if not lowest <= first < stop:
                raise ValueError("the runs of an offset map must increase, and neither touch nor overlap")
            lowest = stop + 1
        last_stop = self.incomplete[-1][1] if self.incomplete else self.base
        if not 0 <= self.base <= last_stop <= self.end <= MAX_OFFSET:
            raise ValueError("an offset map must have 0 <= base <= end, and its runs between them")

    @property
    def completed(self) -> int:
        """How many offsets the map says are complete."""
        return self.end - self.base - sum(stop - first for first, stop in self.incomplete)


class Binding(NamedTuple):
    """What a map is bound to."""

    place: bytes  # names topic and partition
    incarnation: bytes  # differs when a topic of that name is made anew
    cluster: bytes = b""  # its id
    fallback: bytes | None = None  # what named the incarnation while the brokers named no topic ids


def capacity(budget_units: int) -> int:
    """Return how many bits of codes fit into so many UTF-16 units; below 0 if the header does not."""
    return (budget_units - _PREFIX_UNITS) * _WIDTHS["w"] - _HEADER_BITS


def bits_bound(incomplete: int, pages: int, base: int, end: int) -> int:
    """Return a number of bits that the codes of no such map exceed: the number of incomplete offsets in
    base .. end - 1 and of pages that they lie in (more is allowed) is all that it needs. O(1).

    It never grows when an offset completes, when base passes complete offsets, or when ``end`` falls,
    whatever that leaves out: see `_rice_bound`; a page without an incomplete offset goes, and with it 1,024
    numbers of the second list.
    """
    flat = _rice_bound(incomplete, end - base)
    listed = _rice_bound(pages, (end - 1 >> PAGE_SHIFT) - (base >> PAGE_SHIFT) + 1)
    return min(flat, listed + _rice_bound(incomplete, pages << PAGE_SHIFT))


def _rice_bound(count: int, span: int) -> int:
    """Return a number of bits that the codes of ``count`` numbers within ``span`` never exceed.

    The gaps add up to span - count at most, and rounding each down to a multiple of 2**k can only lose. So
    for any k they take at most count * (1 + k) + (span - count >> k) bits, and this is the least of that
    over k: it exceeds the truth by less than a bit for each number, and is exact for a bit set that ends at
    the span's end.

    One number less never makes it more: for each k the first term falls by 1 + k, the second rises by at
    most 1.
    """
    gaps = span - count
    # One more in k changes the length by count - ceil((gaps >> k) / 2). That grows with k, so the length is
    # least at the first k where it is not negative, that is where gaps >> k <= 2 * count.
    k = (gaps // (2 * count + 1)).bit_length()
    return count * (1 + k) + (gaps >> k)


def coded_bits(offsets: OffsetMap) -> int:
    """Return how many bits the codes of this map take, without header and filling. O(runs)."""
    return _Codes(offsets.incomplete, offsets.base, paged=True).bits


def encode(offsets: OffsetMap, *, binding: Binding, budget_units: int) -> str:
    """Return the map as a text of at most ``budget_units`` UTF-16 units. Never raises.

    What does not fit is cut to the longest beginning that fits and ends before an incomplete run; the text is
    empty if not even the header fits.
    """
    base, runs, end = offsets.base, offsets.incomplete, offsets.end
    room = capacity(budget_units)
    codes = _Codes(runs, base, paged=False)
    if codes.k > 1 or codes.bits > room:
        codes = _Codes(runs, base, paged=True)
    if codes.bits > room:
        kept = bisect_right(range(len(runs)), room, key=lambda n: _Codes(runs[:n], base, paged=True).bits) - 1
        if kept < 0:
            return ""
        end = runs[kept][0]
        codes = _Codes(runs[:kept], base, paged=True)
    alphabet = "s" if _PREFIX_UNITS + -(-(_HEADER_BITS + codes.bits) // _WIDTHS["s"]) <= budget_units else "w"
    bound = (_digest(binding.place), _digest(binding.cluster), _digest(binding.incarnation))
    values = (base, *bound, end, codes.k, codes.page_k, codes.pages)
    header = "".join([f"{value:0{size}b}" for value, size in zip(values, _FIELDS[1:], strict=True)])
    body = header + codes.text()
    body += "0" * (-(_CRC_BITS + len(body)) % _WIDTHS[alphabet])
    checksum = _checksum(body, _VERSIONS[_VERSION])
    return f"{_MAGIC}{_VERSION}{alphabet}{_to_letters(f'{checksum:0{_CRC_BITS}b}{body}', alphabet)}"


def decode(text: str, *, base: int, binding: Binding) -> OffsetMap:
    """Return the map that `encode` wrote for this base and binding; for the empty text the map that says
    nothing.

    Raises OffsetMapError, and nothing else, for any other text. Time and memory are bounded by the text's
    length, whatever it claims.
    """
    if not text:
        return OffsetMap(base, (), base)
    bits, width, version = _bits(text)
    at = 0
    fields: list[int] = []
    for size in version.fields:
        fields.append(int(bits[at : at + size], 2))
        at += size
    cluster = _digest(binding.cluster)
    if len(version.fields) < len(_FIELDS):
        fields.insert(_CLUSTER_FIELD, cluster)
    checksum, claimed_base, claimed_place, claimed_cluster, incarnation, end, k, page_k, page_count = fields
    if checksum != _checksum(bits[_CRC_BITS:], version):
        raise OffsetMapError("checksum")
    if claimed_cluster != cluster:
        raise OffsetMapError("cluster")
    if claimed_base != base:
        raise OffsetMapError("base")
    if claimed_place != _digest(binding.place):
        raise OffsetMapError("binding")
    names = (binding.incarnation,) if binding.fallback is None else (binding.incarnation, binding.fallback)
    if incarnation not in [_digest(name) for name in names]:
        raise OffsetMapError("topic")

    if page_count:
        page_runs, at = _read(bits, at, page_k, base >> PAGE_SHIFT, page_count)
        pages = [page for first, stop in page_runs for page in range(first, stop)]
        if len(pages) < page_count:
            raise OffsetMapError("malformed")
        packed, at = _read(bits, at, k, 0, len(bits))
        runs = _spread(packed, pages)
    else:
        runs, at = _read(bits, at, k, base, len(bits))
    if len(bits) - at >= width or not base <= end <= MAX_OFFSET or (runs and runs[-1][1] > end):
        raise OffsetMapError("malformed")
    # The first run cannot lie below base in a flat map; in a paged one it can, by less than a page.
    if runs and runs[0][0] < base:
        raise OffsetMapError("malformed")
    return OffsetMap(base, tuple(runs), end)


class _Codes:
    """The codes of some runs above ``base``: paged if that is allowed and shorter, else flat."""

    __slots__ = ("_offsets", "_pages", "bits", "k", "page_k", "pages")

    def __init__(self, runs: Iterable[Run], base: int, *, paged: bool) -> None:
        self._pages: list[Run] = []
        self._offsets = _steps(runs, base)
        self.pages = self.page_k = 0
        self.bits, self.k = _best(self._offsets)
        if paged and self._offsets:
            page_runs, packed = _pack(runs)
            listed, offsets = _steps(page_runs, base >> PAGE_SHIFT), _steps(packed, 0)
            page_bits, page_k = _best(listed)
            bits, k = _best(offsets)
            if page_bits + bits < self.bits:
                self._pages, self._offsets = listed, offsets
                self.bits, self.k, self.page_k = page_bits + bits, k, page_k
                self.pages = sum(length for _, length in listed)

    def text(self) -> str:
        return _written(self._pages, self.page_k) + _written(self._offsets, self.k)


def _steps(runs: Iterable[Run], start: int) -> list[tuple[int, int]]:
    """Return the runs as (numbers left out before it, numbers in it)."""
    steps: list[tuple[int, int]] = []
    for first, stop in runs:
        steps.append((first - start, stop - first))
        start = stop
    return steps


def _pack(runs: Iterable[Run]) -> tuple[list[Run], list[Run]]:
    """Return the pages that the runs lie in, and the runs as if those pages stood side by side."""
    pages: list[Run] = []
    packed: list[Run] = []
    last = index = -1
    for first, stop in runs:
        low = first
        while low < stop:
            page = low >> PAGE_SHIFT
            if page != last:
                _append(pages, page, page + 1)
                index += 1
                last = page
            high = min(stop, page + 1 << PAGE_SHIFT)
            moved = index - page << PAGE_SHIFT
            _append(packed, low + moved, high + moved)
            low = high
    return pages, packed


def _spread(packed: Iterable[Run], pages: list[int]) -> list[Run]:
    """Undo `_pack`. OffsetMapError when there are not so many pages."""
    runs: list[Run] = []
    for first, stop in packed:
        low = first
        while low < stop:
            index = low >> PAGE_SHIFT
            if index >= len(pages):
                raise OffsetMapError("malformed")
            high = min(stop, index + 1 << PAGE_SHIFT)
            moved = pages[index] - index << PAGE_SHIFT
            _append(runs, low + moved, high + moved)
            low = high
    return runs


def _append(runs: list[Run], first: int, stop: int) -> None:
    if runs and runs[-1][1] == first:
        first = runs.pop()[0]
    runs.append((first, stop))


def _best(steps: list[tuple[int, int]]) -> tuple[int, int]:
    """Return how many bits the codes take with the best k, and that k.

    The length is convex in k, since that of every single code is (see `_rice_bound`); so walking from that
    function's k, which is near, finds the least.
    """
    gaps = [gap for gap, _ in steps]  # those between neighbours are 0
    count = sum([length for _, length in steps])

    def length(k: int) -> int:
        return count * (1 + k) + sum([gap >> k for gap in gaps])

    k = (sum(gaps) // (2 * count + 1)).bit_length()
    best = length(k)
    for step in (-1, 1):
        while k + step >= 0 and (other := length(k + step)) < best:
            best, k = other, k + step
    return best, k


def _written(steps: list[tuple[int, int]], k: int) -> str:
    again = "1" + "0" * k  # a number right behind another one
    if not k:
        return "".join(["0" * gap + again * length for gap, length in steps])
    low = (1 << k) - 1
    return "".join([f"{'0' * (gap >> k)}1{gap & low:0{k}b}{again * (length - 1)}" for gap, length in steps])


def _read(bits: str, at: int, k: int, start: int, most: int) -> tuple[list[Run], int]:
    """Return the numbers that the next codes stand for, ``most`` at most, and the place behind them."""
    runs: list[Run] = []
    first = stop = start  # the run that is being read
    while most and (one := bits.find("1", at)) >= 0:
        most -= 1
        low = one + 1
        gap = one - at << k
        at = low + k
        if at > len(bits):
            raise OffsetMapError("malformed")
        if k:
            gap |= int(bits[low:at], 2)
        if gap:
            if first < stop:
                runs.append((first, stop))
            first = stop = stop + gap
        stop += 1
    if first < stop:
        runs.append((first, stop))
    return runs, at


def _digest(name: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=4).digest(), "big")


def _checksum(bits: str, version: _Version) -> int:
    size = -(-len(bits) // 8)
    return zlib.crc32((int(bits, 2) << size * 8 - len(bits)).to_bytes(size, "big"), version.seed)


def _bits(text: str) -> tuple[str, int, _Version]:
    """Return the bits behind the text's prefix, enough for a header, how many a character has, and the version."""
    if not text.startswith(_MAGIC):
        raise OffsetMapError("not-ours")
    version = _VERSIONS.get(text[len(_MAGIC) : len(_MAGIC) + 1])
    if version is None:
        raise OffsetMapError("version")
    alphabet = text[_PREFIX_UNITS - 1 : _PREFIX_UNITS]
    if alphabet not in _WIDTHS:
        raise OffsetMapError("malformed")
    width = _WIDTHS[alphabet]
    if (len(text) - _PREFIX_UNITS) * width < sum(version.fields):
        raise OffsetMapError("malformed")
    return (
        "".join([f"{_value(letter, alphabet):0{width}b}" for letter in text[_PREFIX_UNITS:]]),
        width,
        version,
    )


def _to_letters(bits: str, alphabet: str) -> str:
    letters, width = _LETTERS[alphabet], _WIDTHS[alphabet]
    return "".join([letters[int(bits[at : at + width], 2)] for at in range(0, len(bits), width)])


def _value(letter: str, alphabet: str) -> int:
    """Return the letter's number. OffsetMapError when it is not of the alphabet."""
    before = 0
    for low, high in _RANGES[alphabet]:
        if low <= letter <= high:
            return before + ord(letter) - ord(low)
        before += ord(high) - ord(low) + 1
    raise OffsetMapError("malformed")
