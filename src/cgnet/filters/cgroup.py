# SPDX-License-Identifier: BSD-2-Clause
"""``--cgroup``: marks of existing cgroups, and of new ones when they are created.

The kernel side is bpf/filter/cgroup_events.bpf.h.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from cgnet.errors import CgnetError, LibbpfError, UsageError
from cgnet.owners import cgroups
from cgnet.records._layouts import (
    CgroupKey,
    CgroupMark,
    CgroupMarks,
    FilterUse,
    Undecided,
)
from cgnet.text import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cgnet.loader import Map
    from cgnet.owners.cgroups import Hierarchy

log = logging.getLogger(__name__)

SELECTED_CGROUPS = 32768  # entries of the map, if the filter is used
MAX_GIVEN = 65535  # owner.given is 16 bits wide
SELECTED, EXCLUDED = int(CgroupMarks.CGROUP_SELECTED), int(CgroupMarks.CGROUP_EXCLUDED)
ANY_NAMES = "(?:/[^/]++)*"
WILDCARD = re.compile(r"(\*|\?|\[!?+.[^]]*\])", re.DOTALL)


class Mark(NamedTuple):
    """A cgroup's mark on the kernel side: struct cgroup_mark."""

    marks: int
    given: int


class Given(NamedTuple):
    """One ``--cgroup``: a directory, or a pattern for paths inside the hierarchy."""

    number: int  # from 1
    text: str
    mark: int
    hierarchy: Hierarchy
    path: str  # inside the hierarchy
    top: Path | None  # the directory; None for a pattern
    pattern: re.Pattern[str] | None


def is_pattern(text: str) -> bool:
    """Return whether a path has wildcards."""
    return any(character in text for character in "*?[")


def pattern_of(path: str) -> re.Pattern[str]:
    """Translate a pattern: ``*`` and ``?`` match within a name, ``**`` any number of names.

    Others choose the names of cgroups. So the expression never backtracks in vain: the text after a
    star is matched at its first occurrence (an atomic group); if there is any match, there is one
    with it.
    """
    runs: list[list[str]] = [[]]  # of names, split at **
    for name in path.strip("/").split("/"):
        if name == "**":
            runs.append([])
        else:
            runs[-1].append(name)
    first, *others = map(_translate_names, runs)
    if not others:
        return re.compile(first, re.DOTALL)
    between = "".join(f"(?>{ANY_NAMES}?{run})" for run in others[:-1] if run)
    return re.compile(f"{first}{between}{ANY_NAMES}{others[-1]}", re.DOTALL)


def _translate_names(names: list[str]) -> str:
    return "".join(f"(?>/{_translate(name)}(?![^/]))" for name in names)


def _translate(name: str) -> str:
    runs = [""]  # split at stars
    for number, part in enumerate(WILDCARD.split(name)):
        if number % 2 == 0:  # literal text
            runs[-1] += re.escape(part)
        elif part == "*":
            runs.append("")
        else:
            runs[-1] += "[^/]" if part == "?" else _translate_brackets(part[1:-1])
    first, *others = runs
    if not others:
        return first
    between = "".join(f"(?>[^/]*?{run})" for run in others[:-1] if run)
    return f"{first}{between}[^/]*{others[-1]}"


def _translate_brackets(inside: str) -> str:
    """Translate a set of characters, with fnmatch's meaning; it never matches a slash."""
    excludes = inside.startswith("!")
    ranges = re.findall(r"(.)(?:-(.))?", inside.removeprefix("!"), re.DOTALL)
    found = "".join(
        f"{re.escape(low)}-{re.escape(high or low)}" for low, high in ranges if low <= (high or low)
    )
    if not found:
        return "[^/]" if excludes else "(?!)"
    return f"(?!/)[{'^' if excludes else ''}{found}]"


def _find_pattern(text: str, mounted: list[Hierarchy], inside: Hierarchy) -> tuple[Hierarchy, str]:
    path = PurePosixPath(text)
    if not path.is_absolute():
        raise UsageError(f"--cgroup {text!r}: begin a pattern with /, as in /kubepods/*")
    for each in sorted(mounted, key=lambda each: -len(each.place.parts)):
        inner = each.inside(Path(path))
        if inner is not None:
            return each, decode(os.fsencode(inner))
    return inside, decode(os.fsencode(path))


class CgroupFilter:
    """All values of ``--cgroup``."""

    def __init__(self, values: Iterable[str], mounted: list[Hierarchy], inside: Hierarchy) -> None:
        """Find the directories. Raises UsageError if one doesn't exist."""
        self.given: list[Given] = []
        for number, value in enumerate(values, 1):
            mark = EXCLUDED if value.startswith("!") else SELECTED
            text = value.removeprefix("!")
            try:
                hierarchy, top = cgroups.resolve(text, mounted, inside)
                found = Given(number, text, mark, hierarchy, hierarchy.told_path(top), top, None)
            except UsageError:
                if not is_pattern(text):
                    raise
                hierarchy, path = _find_pattern(text, mounted, inside)
                found = Given(number, text, mark, hierarchy, path, None, pattern_of(path))
            self.given.append(found)
        if len(self.given) > MAX_GIVEN:
            raise UsageError(f"--cgroup: more than {MAX_GIVEN} in one run")
        self._patterns = [each for each in self.given if each.pattern]
        self._paths: dict[tuple[int, str], list[Given]] = {}
        for each in self.given:
            if not each.pattern:
                self._paths.setdefault((each.hierarchy.id, each.path), []).append(each)

    @property
    def use(self) -> int:
        """The bits of enum filter_use."""
        return sum({each.mark for each in self.given})

    @property
    def hierarchies(self) -> list[Hierarchy]:
        """The hierarchies of the given paths, in order."""
        return list({each.hierarchy.id: each.hierarchy for each in self.given}.values())

    def has_patterns(self, hierarchy: int) -> bool:
        """Return whether the path of a new cgroup must be matched."""
        return any(each.hierarchy.id == hierarchy for each in self._patterns)

    def _naming(self, hierarchy: int, path: str) -> Iterator[Given]:
        """Yield the options that match just this path."""
        yield from self._paths.get((hierarchy, path), ())
        for each in self._patterns:
            # The root has no name: * doesn't match it, ** does.
            names = "" if path == "/" else path
            if each.hierarchy.id == hierarchy and each.pattern and each.pattern.fullmatch(names):
                yield each

    def _own_mark(self, hierarchy: int, path: str, parent: Mark) -> Mark:
        marks, given = parent
        for each in self._naming(hierarchy, path):
            marks |= each.mark
            given = each.number if each.mark == SELECTED else given
        return Mark(marks, given)

    def mark(self, hierarchy: int, path: str) -> Mark:
        """Return a cgroup's mark by its path: its own, with those of its ancestors."""
        found = Mark(0, 0)
        for above in (*reversed(PurePosixPath(path).parents), PurePosixPath(path)):
            found = self._own_mark(hierarchy, str(above), found)
        return found

    def decide(self, undecided: int, hierarchy: int, path: str | None) -> int | None:
        """Decide about an owner that the kernel side left undecided.

        Return the number of the ``--cgroup`` that selects it, 0 if it is selected without one, or
        None.
        """
        mark = self.mark(hierarchy, path) if path is not None else Mark(0, 0)
        if mark.marks & EXCLUDED:
            return None
        if undecided == Undecided.UNDECIDED_SELECTED or mark.marks & SELECTED:
            return mark.given
        return None if self.use & FilterUse.FILTER_INCLUDES else 0

    # -- the map

    def _tops(self, hierarchy: Hierarchy) -> Iterator[Path]:
        """Yield the directories to walk: the mount if there are patterns, else those given."""
        if self.has_patterns(hierarchy.id):
            yield hierarchy.mount
            return
        tops = {each.top for each in self.given if each.top and each.hierarchy.id == hierarchy.id}
        yield from (top for top in tops if tops.isdisjoint(top.parents))

    def fill(self, selected: Map) -> None:
        """Mark existing cgroups, after attaching the program on cgroup_mkdir.

        A cgroup is marked before its children are listed. A child created earlier is in the list;
        one created later gets its mark from the kernel side.
        """
        for hierarchy in self.hierarchies:
            for top in self._tops(hierarchy):
                self._fill(selected, hierarchy, top)

    def _fill(self, selected: Map, hierarchy: Hierarchy, top: Path) -> None:
        above = PurePosixPath(hierarchy.told_path(top)).parent
        marks = {top.parent: self.mark(hierarchy.id, str(above))}
        for path in cgroups.subtree(top):
            inherited = marks.get(path.parent, Mark(0, 0))
            mark = marks[path] = self._own_mark(hierarchy.id, hierarchy.told_path(path), inherited)
            if mark.marks:
                _set(selected, hierarchy.id, path, mark)

    def created(
        self, selected: Map, hierarchy: int, cgroup: int, path: str, tell: Callable[[str], None]
    ) -> None:
        """Decide about a new cgroup; mark the tree of a given path that is created again."""
        again = self._paths.get((hierarchy, path), [])
        if all(each.id != hierarchy for each in self.hierarchies):
            return
        mark = self.mark(hierarchy, path)
        key = cgroup_key(hierarchy, cgroup)
        if mark.marks:
            try:
                selected.update(key, _settled(mark))
            except LibbpfError as error:
                log.warning("--cgroup: %s isn't followed: %s", path, error)
        else:
            selected.discard(key)
        for each in again:
            try:
                self._fill(selected, each.hierarchy, each.top or each.hierarchy.mount)
            except CgnetError as error:  # no room; the run continues without it
                log.warning("%s", error)
            tell(f"--cgroup {each.text}: it is there again")

    def renamed(
        self, selected: Map, hierarchy: int, path: str, tell: Callable[[str], None]
    ) -> None:
        """Mark a cgroup that was renamed to a given path. Selected cgroups stay selected."""
        given = next(self._naming(hierarchy, path), None)
        if given is None:
            return
        try:
            self._fill(selected, given.hierarchy, given.hierarchy.outer_path(path))
        except CgnetError as error:  # no room; the run continues without it
            log.warning("%s", error)
        if self.is_given(hierarchy, path):
            tell(f"--cgroup {given.text}: a cgroup was renamed to it")

    def unmatched(self, hierarchy: int, paths: Iterable[str]) -> list[str]:
        """Return the selecting patterns that match none of the paths."""
        waiting = {
            each.number: each
            for each in self._patterns
            if each.hierarchy.id == hierarchy and each.mark == SELECTED
        }
        for path in paths:
            if not waiting:
                break
            for each in self._naming(hierarchy, path):
                waiting.pop(each.number, None)
        return [each.text for each in waiting.values()]

    def is_given(self, hierarchy: int, path: str) -> str | None:
        """Return the option's value if one gives just this path, else None."""
        return next((each.text for each in self._paths.get((hierarchy, path), ())), None)


def cgroup_key(hierarchy: int, cgroup: int) -> bytes:
    """Return struct cgroup_key."""
    return CgroupKey(cgroup, hierarchy).pack()


def _settled(mark: Mark) -> bytes:
    """Return struct cgroup_mark. Once written, the mark of an existing cgroup doesn't change."""
    return CgroupMark(mark.marks | CgroupMarks.CGROUP_SETTLED, mark.given).pack()


def _set(selected: Map, hierarchy: int, path: Path, mark: Mark) -> None:
    try:
        key = cgroup_key(hierarchy, cgroups.cgroup_id(path))
        selected.update(key, _settled(mark))
    except LibbpfError as error:
        raise CgnetError(
            f"--cgroup {path}: more than {SELECTED_CGROUPS} cgroups ({os.strerror(error.errno)})"
        ) from error
    except FileNotFoundError:
        return  # removed meanwhile
    except OSError as error:  # nested deeper than a path can express
        # No traceback: the message is for the user, who can do nothing about it.
        log.error(  # noqa: TRY400
            "--cgroup %s: a cgroup below it isn't selected: %s", path, error.strerror
        )
