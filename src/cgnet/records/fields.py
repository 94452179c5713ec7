# SPDX-License-Identifier: BSD-2-Clause
"""Fields of a record, and the extraction of their bytes.

A group's fields depend on slices of a record. The slices are extracted from all records of a batch
at once, so that a renderer can work by column: numbers are written unchanged, and text rendered
from repeating bytes (the owner, the addresses) can be cached.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


T = TypeVar("T")
MAX_CACHED = 8192  # per group, some 4 MB; the cache is cleared when full
NUMBERS = {1: "B", 2: "H", 4: "I", 8: "Q"}  # struct format codes, by size in bytes


class FieldGroup(NamedTuple):
    """Fields that are decoded together.

    ``values`` decodes the bytes of ``part`` followed by those of ``more``. ``repeats``: the same
    bytes will occur often. ``is_final`` returns whether given values are final: the same bytes
    decode to them as long as ``version`` returns the same number.
    """

    fields: tuple[str, ...]
    part: slice
    values: Callable[[bytes], tuple[Any, ...]]
    repeats: bool
    is_final: Callable[[tuple[Any, ...]], bool] = lambda _values: True
    more: tuple[slice, ...] = ()
    version: Callable[[], int] = lambda: 0

    @property
    def parts(self) -> tuple[slice, ...]:
        """All slices that the values depend on."""
        return self.part, *self.more

    def values_of(self, taken: Any) -> tuple[Any, ...]:
        """Decode a record's slices: bytes, or a tuple of bytes if there are several."""
        return self.values(b"".join(taken) if self.more else taken)


class ValueCache(dict[Any, T]):
    """A cache of objects made from a group's values, keyed by the record's slices."""

    def __init__(self, group: FieldGroup, make: Callable[[tuple[Any, ...]], T]) -> None:
        """Start empty; ``make`` makes an object from a tuple of values."""
        self._group = group
        self._make = make
        self._passing: list[Any] = []
        self._version = group.version()

    def __missing__(self, taken: Any) -> T:
        values = self._group.values_of(taken)
        made = self._make(values)
        if len(self) >= MAX_CACHED:
            self.clear()
        self[taken] = made
        if not (self._group.repeats and self._group.is_final(values)):
            self._passing.append(taken)
        return made

    def of(self, column: Sequence[Any]) -> list[T]:
        """Return the object for each record's slices. Values that may change aren't kept."""
        if self._version != (version := self._group.version()):
            self._version = version
            self.clear()
        made = list(map(self.__getitem__, column))
        for taken in self._passing:
            self.pop(taken, None)
        self._passing.clear()
        return made


class NumberField(NamedTuple):
    """A field that is an unsigned number, divided by ``per``; the number ``null`` is no value."""

    field: str
    part: slice
    per: int = 1
    null: int | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The name of the field, as a tuple."""
        return (self.field,)

    @property
    def parts(self) -> tuple[slice, ...]:
        """The slice of the field, as a tuple."""
        return (self.part,)

    def of(self, numbers: Sequence[int], null: T) -> Sequence[int | T]:
        """Return the value for each number; ``null`` stands for no value."""
        if self.per == 1 and self.null is None:
            return numbers
        per, none = self.per, self.null
        return [null if number == none else number // per for number in numbers]


class TimestampField(NamedTuple):
    """A timestamp of the kernel's monotonic clock, formatted as text."""

    field: str
    part: slice
    texts: Callable[[Sequence[int]], list[str]]  # takes nanoseconds; returns plain ASCII

    @property
    def fields(self) -> tuple[str, ...]:
        """The name of the field, as a tuple."""
        return (self.field,)

    @property
    def parts(self) -> tuple[slice, ...]:
        """The slice of the field, as a tuple."""
        return (self.part,)


class TextField(NamedTuple):
    """A field that is text, made from a part's bytes for a whole batch at once."""

    field: str
    part: slice
    texts: Callable[[Sequence[bytes]], Sequence[str | None]]

    @property
    def fields(self) -> tuple[str, ...]:
        """The name of the field, as a tuple."""
        return (self.field,)

    @property
    def parts(self) -> tuple[slice, ...]:
        """The slice of the field, as a tuple."""
        return (self.part,)


AnyField = FieldGroup | NumberField | TimestampField | TextField


def _itself(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return values


def values_of(group: AnyField) -> Callable[[Sequence[Any]], Iterable[tuple[Any, ...]]]:
    """Return a function from the records' slices to the values of a group's fields."""
    if isinstance(group, FieldGroup):
        return ValueCache(group, _itself).of
    if isinstance(group, TimestampField | TextField):
        return lambda column: zip(group.texts(column), strict=True)
    return lambda numbers: zip(group.of(numbers, None), strict=True)


class RecordSlicer:
    """Extracts the slices of groups from records, each slice once."""

    def __init__(self, groups: Sequence[AnyField], size: int, least: int) -> None:
        """``size`` is the longest record's, ``least`` the shortest one's, in bytes.

        If they differ, the last slice has no end. Raises ValueError if slices overlap.
        """
        self._size, self._least = size, least
        wanted = {(part.start, part.stop): group for group in groups for part in group.parts}
        found = sorted(wanted, key=lambda part: part[0])
        self._tail = found[-1][0] if found and found[-1][1] is None else None
        codes, at = "=", 0
        for start, stop in found if self._tail is None else found[:-1]:
            if start < at:
                raise ValueError(f"{wanted[start, stop].fields}: parts of a record overlap")
            is_bytes = isinstance(wanted[start, stop], FieldGroup | TextField)
            codes += f"{start - at}x" + (f"{stop - start}s" if is_bytes else NUMBERS[stop - start])
            at = stop
        self._struct = struct.Struct(f"{codes}{least - at}x")
        self._take = self._struct.unpack if least == size else self._take_varied
        self._places = [
            tuple(found.index((part.start, part.stop)) for part in group.parts) for group in groups
        ]

    def _take_varied(self, raw: bytes) -> tuple[Any, ...]:
        if not self._least <= len(raw) <= self._size:
            raise struct.error(f"a record of {len(raw)} bytes, not {self._least} to {self._size}")
        return (*self._struct.unpack_from(raw), raw[self._tail :])

    def columns(self, batch: Sequence[bytes]) -> list[Sequence[Any]]:
        """Return a column for each group: each record's slice, or a tuple of several.

        Groups with the same slices share a column. Raises struct.error.
        """
        if not batch:
            return [()] * len(self._places)
        taken = list(zip(*map(self._take, batch), strict=True))
        several = {places for places in self._places if len(places) > 1}
        joined = {
            places: list(zip(*(taken[place] for place in places), strict=True))
            for places in several
        }
        return [joined.get(places) or taken[places[0]] for places in self._places]
