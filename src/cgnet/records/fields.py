# SPDX-License-Identifier: BSD-2-Clause
"""What the fields of a record are made of, and how a record is taken apart.

A group's fields depend on some parts of a record. Parts are taken out of all records of a batch alike,
so that who renders may go column by column: a number is written as it is, and bytes that come again
(the owner, the addresses) need not be decoded again: who renders may keep what it made of them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


T = TypeVar("T")
REMEMBERED = 8192  # of each group, some 4 MB; then it begins anew
NUMBERS = {1: "B", 2: "H", 4: "I", 8: "Q"}  # codes of struct, by size in bytes


class Group(NamedTuple):
    """Fields that are decoded together.

    ``values`` takes the bytes of ``part``, and of ``more`` behind them. ``repeats``: the same bytes will
    be seen often. ``settled`` tells whether they will then give the same values, as long as ``version``
    stays what it is.
    """

    fields: tuple[str, ...]
    part: slice
    values: Callable[[bytes], tuple[Any, ...]]
    repeats: bool
    settled: Callable[[tuple[Any, ...]], bool] = lambda _values: True
    more: tuple[slice, ...] = ()
    version: Callable[[], int] = lambda: 0

    @property
    def parts(self) -> tuple[slice, ...]:
        """All bytes that the values depend on."""
        return self.part, *self.more

    def values_of(self, taken: Any) -> tuple[Any, ...]:
        """Return the values of what was taken from a record: bytes, or a tuple of them."""
        return self.values(b"".join(taken) if self.more else taken)


class ValueCache(dict[Any, T]):
    """What was made of a group's values, by what was taken from the record."""

    def __init__(self, group: Group, make: Callable[[tuple[Any, ...]], T]) -> None:
        """Nothing was made yet; ``make`` makes it of the values."""
        self._group = group
        self._make = make
        self._passing: list[Any] = []
        self._version = group.version()

    def __missing__(self, taken: Any) -> T:
        values = self._group.values_of(taken)
        made = self._make(values)
        if len(self) >= REMEMBERED:
            self.clear()
        self[taken] = made
        if not (self._group.repeats and self._group.settled(values)):
            self._passing.append(taken)
        return made

    def of(self, column: Sequence[Any]) -> list[T]:
        """Return what is made of each record's. What may be another thing the next time is forgotten."""
        if self._version != (version := self._group.version()):
            self._version = version
            self.clear()
        made = list(map(self.__getitem__, column))
        for taken in self._passing:
            self.pop(taken, None)
        self._passing.clear()
        return made


class Number(NamedTuple):
    """A field that is an unsigned number of the record, in units of ``per``; ``null`` means none."""

    field: str
    part: slice
    per: int = 1
    null: int | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """Its one field."""
        return (self.field,)

    @property
    def parts(self) -> tuple[slice, ...]:
        """Its one part."""
        return (self.part,)

    def of(self, numbers: Sequence[int], null: T) -> Sequence[int | T]:
        """Return the value for each number; ``null`` stands for none."""
        if self.per == 1 and self.null is None:
            return numbers
        per, none = self.per, self.null
        return [null if number == none else number // per for number in numbers]


class TimestampField(NamedTuple):
    """A field that is a moment of the kernel's monotonic clock, as text."""

    field: str
    part: slice
    texts: Callable[[Sequence[int]], list[str]]  # in nanoseconds; plain ASCII

    @property
    def fields(self) -> tuple[str, ...]:
        """Its one field."""
        return (self.field,)

    @property
    def parts(self) -> tuple[slice, ...]:
        """Its one part."""
        return (self.part,)


AnyGroup = Group | Number | TimestampField


def _itself(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return values


def values_of(group: AnyGroup) -> Callable[[Sequence[Any]], Iterable[tuple[Any, ...]]]:
    """Return what makes the values of a group's fields, of what was taken from each record."""
    if isinstance(group, Group):
        return ValueCache(group, _itself).of
    if isinstance(group, TimestampField):
        return lambda moments: zip(group.texts(moments), strict=True)
    return lambda numbers: zip(group.of(numbers, None), strict=True)


class Parts:
    """Takes the parts of groups out of records, each part once."""

    def __init__(self, groups: Sequence[AnyGroup], size: int, least: int) -> None:
        """``size`` is a record's, ``least`` that of the shortest one: the last part then has no end.

        Raises ValueError for parts that overlap.
        """
        self._size, self._least = size, least
        wanted = {(part.start, part.stop): group for group in groups for part in group.parts}
        found = sorted(wanted, key=lambda part: part[0])
        self._tail = found[-1][0] if found and found[-1][1] is None else None
        codes, at = "=", 0
        for start, stop in found if self._tail is None else found[:-1]:
            if start < at:
                raise ValueError(f"{wanted[start, stop].fields}: parts of a record overlap")
            is_bytes = isinstance(wanted[start, stop], Group)
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
        """Return of each group what was taken from each record, a tuple where that is several parts.

        Groups of the same parts have the same column. Raises struct.error.
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
