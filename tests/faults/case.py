# SPDX-License-Identifier: BSD-2-Clause
"""The table of the faults: each has the finding that must come first, and its owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab import End, Lab

    Steps = Callable[[Lab], Iterator["Trouble | None"]]

BEFORE, AFTER = "before", "after"  # `why` starts before the trouble, or after it began
MODES = (BEFORE, AFTER)


@dataclass
class Trouble:
    """A fault that is there: what its user sees, and what `why` has to say."""

    sees: str  # in words
    seen: Callable[[], bool]  # whether the user has seen it
    owners: tuple[End, ...] = ()  # whose finding it is; any of them is right
    daddr: tuple[str, ...] = ()
    dport: int | None = None
    ids: tuple[str, ...] = ()  # others that are as right as the case's own
    bystanders: tuple[End, ...] = ()  # whom no warning may name


@dataclass(frozen=True)
class Case:
    """A fault: a generator whose first step is the set-up, and whose second is the trouble."""

    id: str  # of the finding; empty for healthy traffic
    name: str
    steps: Steps
    families: tuple[int, ...] = (4, 6)
    modes: tuple[str, ...] = MODES
    not_run: str = ""  # why it can't be made here


CASES: list[Case] = []


def fault(
    finding: str,
    families: tuple[int, ...] = (4, 6),
    modes: tuple[str, ...] = MODES,
    not_run: Callable[[], str] = lambda: "",
) -> Callable[
    [Callable[[Lab], Iterator[Trouble | None]]], Callable[[Lab], Iterator[Trouble | None]]
]:
    """Add a fault to the table."""

    def add(steps: Steps) -> Steps:
        prefix = finding or "healthy"
        name = f"{prefix}/{steps.__name__.replace('_', '-')}"
        CASES.append(Case(finding, name, steps, families, modes, not_run()))
        return steps

    return add


def healthy(steps: Steps) -> Steps:
    """Add traffic that must give no finding."""
    return fault("", modes=(AFTER,))(steps)
