"""The offset tracker: which offsets of one assignment are complete, and how far the offset map can follow.

Offsets are kept by pages of 1,024, each an int whose bit i says that offset 1,024 * page + i is incomplete;
pages without such a bit are not kept. So a run of offsets costs a few operations however many offsets are
tracked, and a log whose offsets lie far apart costs a small page each.

Admission. Messages complete out of order, and what completed above the commit position must fit into the
offset map, whose size the broker limits. So an offset may only be handed out, or completed unhandled, below
the *frontier*: the tracker moves it up only while the map of everything below it would fit, with every
offset there that is incomplete now listed as such. Completing never makes that map longer (`bits_bound`
says why), so it fits ever after. The bound needs only a few numbers (how many offsets below the frontier
are incomplete, how many pages they lie in, how far the frontier is from the commit position), so asking
costs the same for any map.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping

from retriable_kafka_client.core.offset_map import (
    PAGE_SHIFT,
    Binding,
    OffsetMap,
    Run,
    bits_bound,
    capacity,
    encode,
)

__all__ = ["Tracker"]

_SIZE = 1 << PAGE_SHIFT
_LOW = _SIZE - 1
_FULL = (1 << _SIZE) - 1
_NONE: Mapping[int, int] = {}


class Tracker:
    """The offsets of one assignment.

    ``start`` is the first offset to consume, the commit position. ``restored`` is what the last owner knew
    beyond it; its base must be ``start``. ``budget_units`` limits the offset map's text, in UTF-16 units.

    Offsets arrive in increasing order, each once (`register`); those that ``restored`` knows complete at
    once. What is skipped on the way does not exist in the log, which counts as complete. A call that raises
    ValueError is a mistake of the caller and changes nothing.
    """

    __slots__ = (
        "_budget_bits",
        "_budget_units",
        "_expected",
        "_frontier",
        "_incomplete",
        "_known",
        "_next",
        "_open",
        "_open_pages",
        "_pages",
        "_position",
        "_waiting",
        "_waiting_pages",
    )

    def __init__(self, start: int, restored: OffsetMap | None = None, *, budget_units: int) -> None:
        if start < 0:
            raise ValueError("start must be an offset")
        if restored is not None and restored.base != start:
            raise ValueError("the restored map must begin at start")
        self._next = start
        self._position = start
        # Page -> mask, never 0, in increasing order: new pages come behind all others. Not a dict: finding
        # a dict's first key passes over all that were deleted before it.
        self._pages: OrderedDict[int, int] = OrderedDict()
        self._incomplete = 0  # of the registered offsets
        # What `restored` leaves open at `_next` and above stands in the pages too, so that the map keeps
        # it.
        self._expected: deque[Run] = deque(restored.incomplete if restored is not None else ())
        self._known = restored.end if restored is not None else start  # where `restored` ends
        for first, stop in self._expected:
            for page, mask in _masks(first, stop):
                self._pages[page] = self._pages.get(page, 0) | mask
        # All of `restored` is admitted: its map fitted, and can only become shorter.
        self._frontier = self._known
        self._open = sum(stop - first for first, stop in self._expected)  # bits below the frontier
        self._open_pages = len(self._pages)  # pages that begin below it
        self._waiting = _Ascending()  # the other incomplete offsets
        self._waiting_pages = _Ascending()  # the other pages
        self._budget_units = budget_units
        self._budget_bits = capacity(budget_units)

    # What is known --------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The commit position: the lowest incomplete offset, else ``next_offset``. Never falls. O(1)."""
        return self._position

    @property
    def next_offset(self) -> int:
        """One past the highest offset that was registered or passed over; at first ``start``."""
        return self._next

    @property
    def frontier(self) -> int:
        """Offsets below it may be handed out and completed."""
        return self._frontier

    @property
    def incomplete(self) -> int:
        """How many registered offsets are not complete."""
        return self._incomplete

    @property
    def span(self) -> int:
        """How many offsets lie between ``position`` and ``next_offset``, complete or not."""
        return self._next - self._position

    @property
    def code_share(self) -> float:
        """The part of the budget that the map of everything below the frontier takes at most.

        It may exceed 1 after the budget was cut. 1.0 when there is no budget and something is admitted.
        """
        if self._frontier <= self._position:
            return 0.0
        if self._budget_bits <= 0:
            return 1.0
        return bits_bound(self._open, self._open_pages, self._position, self._frontier) / self._budget_bits

    @property
    def overfull(self) -> bool:
        """Whether the map may not list all that is complete, or will be: the budget was cut, or passed on purpose."""
        if self._frontier <= self._position:
            return False
        return bits_bound(self._open, self._open_pages, self._position, self._frontier) > self._budget_bits

    def is_incomplete(self, offset: int) -> bool:
        """Whether the offset is registered and not complete."""
        known = 0 <= offset < self._next
        return known and self._pages.get(offset >> PAGE_SHIFT, 0) >> (offset & _LOW) & 1 == 1

    def unread(self, stop: int, first: int) -> int:
        """How many offsets from ``first`` (at least ``next_offset``) up to ``stop`` are not known to be complete."""
        first = max(self._next, first)
        if first >= stop:
            return 0
        known = max(0, min(self._known, stop) - first)
        if not known:
            return stop - first
        expected = sum(
            min(high, stop) - max(low, first) for low, high in self._expected if low < stop and high > first
        )
        return stop - first - known + expected

    # Arrival --------------------------------------------------------------------------------------

    def register(self, first: int, stop: int) -> list[Run]:
        """Take note that first .. stop - 1 were delivered, and return the runs of them that are not
        complete already.

        ``first`` may lie above ``next_offset``; what is between does not exist. ValueError if it lies
        below, or if the run is empty.
        """
        if not self._next <= first < stop:
            raise ValueError(f"cannot register {first}..{stop - 1}: the next offset is {self._next}")
        if first >= self._known and not self._expected:
            fresh = [(first, stop)]
        else:
            fresh = self._redelivered(first, stop)
        if not self._incomplete:
            self._position = fresh[0][0] if fresh else stop
        for low, high in fresh:
            self._incomplete += high - low
        if stop > self._known:
            self._enter(max(first, self._known), stop)
        self._next = stop
        return fresh

    def advance(self, offset: int) -> None:
        """Take note that nothing below ``offset`` will be delivered any more: markers and compacted records
        stand there.

        Nothing happens if that is known.
        """
        if offset <= self._next:
            return
        if self._expected:
            self._redelivered(offset, offset)
        self._next = offset
        if not self._incomplete:
            self._position = offset

    def _redelivered(self, first: int, stop: int) -> list[Run]:
        """Take what is expected below ``stop``; return what of the run was expected or is not known."""
        fresh: list[Run] = []
        expected = self._expected
        while expected and expected[0][0] < stop:
            low, high = expected.popleft()
            if high > stop:
                expected.appendleft((stop, high))
                high = stop
            if low < first:  # expected, but no longer in the log
                gone = min(high, first)
                self._clear(_masks(low, gone), gone - low)
                low = gone
            if low < high:
                fresh.append((low, high))
        low = max(self._known, first)
        if low < stop:
            if fresh and fresh[-1][1] == low:
                low = fresh.pop()[0]
            fresh.append((low, stop))
        return fresh

    def _enter(self, first: int, stop: int) -> None:
        if stop > self._frontier:
            self._waiting.add(max(first, self._frontier), stop)
        pages = self._pages
        for page, mask in _masks(first, stop):
            if page in pages:
                pages[page] |= mask
                continue
            pages[page] = mask
            if page << PAGE_SHIFT < self._frontier:
                self._open_pages += 1
            else:
                self._waiting_pages.add(page, page + 1)

    # Admission ------------------------------------------------------------------------------------

    def admit(self, stop: int) -> int:
        """Raise the frontier to ``stop`` (at most ``next_offset``), or as far as the budget allows, and
        return it.

        The offset at ``position`` is always admitted, since it needs no map. A frontier above ``stop``
        stays. ValueError if ``stop`` lies above both.
        """
        if stop <= self._frontier:
            return self._frontier
        if stop > self._next:
            raise ValueError(f"cannot admit {stop - 1}: the next offset is {self._next}")
        count = self._waiting.below(stop)
        if self._fits(count, stop):
            self._move(count, stop)
            return stop
        # The largest number of waiting offsets that fits. Most often, while the map is full, that is none.
        fitting = bisect_left(
            range(count), True, key=lambda index: not self._fits(index + 1, self._waiting[index] + 1)
        )
        if fitting == 0 and count and self._waiting[0] == self._position:
            fitting = 1
        if fitting:
            self._move(fitting, self._waiting[fitting - 1] + 1)
        return self._frontier

    def admit_beyond(self, stop: int) -> None:
        """Raise the frontier to ``stop`` (at most ``next_offset``) whatever the budget: the map will hold less than is
        complete.
        """
        if stop > self._next:
            raise ValueError(f"cannot admit {stop - 1}: the next offset is {self._next}")
        if stop > self._frontier:
            self._move(self._waiting.below(stop), stop)

    def set_budget(self, budget_units: int) -> None:
        """Change the limit of the offset map's text. What has been admitted stays so."""
        self._budget_units = budget_units
        self._budget_bits = capacity(budget_units)

    def _fits(self, count: int, stop: int) -> bool:
        """Whether the map of everything below ``stop``, where ``count`` more offsets wait, fits."""
        if stop <= self._position:
            return True
        pages = self._open_pages + self._waiting_pages.below((stop - 1 >> PAGE_SHIFT) + 1)
        return bits_bound(self._open + count, pages, self._position, stop) <= self._budget_bits

    def _move(self, count: int, stop: int) -> None:
        pages = self._waiting_pages.below((stop - 1 >> PAGE_SHIFT) + 1)
        self._waiting.drop(count)
        self._waiting_pages.drop(pages)
        self._open += count
        self._open_pages += pages
        self._frontier = stop

    # Completion -----------------------------------------------------------------------------------

    def complete(self, first: int, stop: int) -> None:
        """Take note that first .. stop - 1 need no more work.

        ValueError unless all of them are registered, admitted and not complete yet.
        """
        pages = self._pages
        count = stop - first
        sound = 0 <= first < stop <= self._frontier and stop <= self._next and count <= self._incomplete
        masks = _masks(first, stop) if sound else []
        for page, mask in masks:
            sound = sound and pages.get(page, 0) & mask == mask
        if not sound:
            raise ValueError(f"cannot complete {first}..{stop - 1}: not all are admitted and incomplete")
        self._clear(masks, count)
        self._incomplete -= count
        if first == self._position:
            self._position = self._lowest()

    def _clear(self, masks: list[tuple[int, int]], count: int) -> None:
        """Take away bits below the frontier, which are all set."""
        pages = self._pages
        for page, mask in masks:
            left = pages[page] ^ mask
            if left:
                pages[page] = left
            else:
                del pages[page]
                self._open_pages -= 1
        self._open -= count

    def _lowest(self, without: Mapping[int, int] = _NONE, count: int = 0) -> int:
        """The lowest incomplete offset but for ``count`` ones whose bits, by page, are ``without``."""
        if self._incomplete > count:
            for page, mask in self._pages.items():
                mask &= ~without.get(page, 0)  # noqa: PLW2901 - the rest of it
                if mask:
                    return (page << PAGE_SHIFT) + (mask & -mask).bit_length() - 1
        return self._next

    # The map --------------------------------------------------------------------------------------

    def position_with(self, besides: Collection[int]) -> int:
        """Return what ``position`` is once these, which could all be completed now, are complete."""
        return self._lowest(_by_page(besides), len(besides)) if besides else self._position

    def offset_map(self, besides: Collection[int] = ()) -> OffsetMap:
        """Return what is complete at and above ``position``, up to the last such offset.

        With ``besides``, which could all be completed now, what it will be once they are: the map begins at the position
        of then.
        """
        without = _by_page(besides)
        base = self._lowest(without, len(besides)) if besides else self._position
        end = max(base, self._frontier)
        runs: list[Run] = []
        for first, stop in _runs_below(self._pages, end, without):
            if runs and runs[-1][1] == first:
                runs[-1] = (runs[-1][0], stop)
            else:
                runs.append((first, stop))
        if runs and runs[-1][1] == end:
            end = runs.pop()[0]
        return OffsetMap(base, tuple(runs), end)

    def encode(self, binding: Binding, besides: Collection[int] = (), *, units: int = 0) -> str:
        """Return the offset map as text for the commit of ``position_with(besides)``. Never raises.

        It is within the budget, or ``units`` where they are more. It holds all that is complete, unless the budget was
        cut, or ``restored`` exceeds it: then less, and never anything untrue.
        """
        most = max(self._budget_units, units)
        return encode(self.offset_map(besides), binding=binding, budget_units=most)

    def validate(self) -> None:
        """Check every invariant. O(what is tracked); for tests."""
        pages, frontier = self._pages, self._frontier
        assert self._known <= frontier <= max(self._known, self._next)
        assert self._position == self._lowest() <= self._next
        if not pages:
            assert self._incomplete == self._open == self._open_pages == 0
            assert not self._expected and not len(self._waiting) and not self._waiting_pages
            return
        masks = pages.values()
        assert list(pages) == sorted(pages) and min(masks) > 0 and max(masks) <= _FULL
        bits = sum([mask.bit_count() for mask in masks])
        assert bits == self._incomplete + sum([stop - first for first, stop in self._expected])
        assert self._incomplete == _count_below(pages, self._next)
        for first, stop in self._expected:
            assert self._next <= first < stop <= self._known
        assert self._open == _count_below(pages, frontier)
        assert self._open + len(self._waiting) == bits
        assert self._open_pages == len([page for page in pages if page << PAGE_SHIFT < frontier])
        assert self._open_pages + len(self._waiting_pages) == len(pages)
        if len(self._waiting):
            last = self._waiting[len(self._waiting) - 1]
            assert frontier <= self._waiting[0] <= last < self._next
            assert self.is_incomplete(self._waiting[0]) and self.is_incomplete(last)


class _Ascending:
    """Increasing numbers, added at the end, taken from the beginning, found in O(log runs)."""

    __slots__ = ("_firsts", "_gone", "_head", "_places", "_total")

    def __init__(self) -> None:
        # Run i begins with _firsts[i], which was the _places[i]th to be added.
        self._firsts: list[int] = []
        self._places: list[int] = []
        self._head = 0  # the first run that is not all gone
        self._gone = 0  # how many were taken away
        self._total = 0  # how many were added

    def __len__(self) -> int:
        return self._total - self._gone

    def __getitem__(self, index: int) -> int:
        place = self._gone + index
        run = bisect_right(self._places, place, self._head) - 1
        return self._firsts[run] + place - self._places[run]

    def below(self, stop: int) -> int:
        """Return how many are lower than ``stop``, which is not below what is gone."""
        run = bisect_left(self._firsts, stop, self._head) - 1
        if run < self._head:
            return 0
        place = self._places[run] + stop - self._firsts[run]
        following = self._places[run + 1] if run + 1 < len(self._places) else self._total
        return min(place, following) - self._gone

    def add(self, first: int, stop: int) -> None:
        if not self._firsts or self._firsts[-1] + self._total - self._places[-1] != first:
            self._firsts.append(first)
            self._places.append(self._total)
        self._total += stop - first

    def drop(self, count: int) -> None:
        """Take away the first ``count``."""
        self._gone += count
        if self._gone == self._total:
            self._firsts.clear()
            self._places.clear()
            self._head = 0
            return
        self._head = bisect_right(self._places, self._gone, self._head) - 1
        if self._head > 64 and self._head > len(self._firsts) // 2:
            del self._firsts[: self._head], self._places[: self._head]
            self._head = 0


def _by_page(offsets: Iterable[int]) -> dict[int, int]:
    """Return the pages that these lie in, and their bits in each."""
    pages: dict[int, int] = {}
    for offset in offsets:
        page = offset >> PAGE_SHIFT
        pages[page] = pages.get(page, 0) | 1 << (offset & _LOW)
    return pages


def _masks(first: int, stop: int) -> list[tuple[int, int]]:
    """Return the pages that hold first .. stop - 1, and the bits in each."""
    page, low = first >> PAGE_SHIFT, first & _LOW
    if low + stop - first <= _SIZE:
        return [(page, (1 << stop - first) - 1 << low)]
    masks = [(page, _FULL >> low << low)]
    last, high = stop >> PAGE_SHIFT, stop & _LOW
    masks += [(between, _FULL) for between in range(page + 1, last)]
    if high:
        masks.append((last, (1 << high) - 1))
    return masks


def _runs_below(pages: Mapping[int, int], end: int, without: Mapping[int, int]) -> Iterator[Run]:
    """Yield what is incomplete or expected below ``end``, but for ``without``. Runs may touch where pages do."""
    for page, mask in pages.items():
        start = page << PAGE_SHIFT
        if start >= end:
            break
        if page in without:
            mask &= ~without[page]  # noqa: PLW2901 - the rest of it
            if not mask:
                continue
        bits = bin(mask)[:1:-1]  # bit i of the mask is bits[i]; its last one is always a one
        stop = 0
        while (first := bits.find("1", stop, end - start)) >= 0:
            stop = bits.find("0", first, end - start)
            if stop < 0:
                stop = min(len(bits), end - start)
            yield start + first, start + stop


def _count_below(pages: Mapping[int, int], end: int) -> int:
    """How many are incomplete or expected below ``end``."""
    count = 0
    for page, mask in pages.items():
        room = end - (page << PAGE_SHIFT)
        if room > 0:
            count += (mask & (1 << room) - 1 if room < _SIZE else mask).bit_count()
    return count
