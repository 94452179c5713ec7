# SPDX-License-Identifier: BSD-2-Clause
"""Stages of a packet that are kernel functions, and the hooks that work at them here.

The table is in bpf/trace_functions.bpf.c; it is read from the names of the object's programs. Each
function is tried with a tiny program: a name in the kernel's BTF or symbols guarantees nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from cgnet.errors import LibbpfError, refusal, strerror
from cgnet.kernel import probes, variants
from cgnet.kernel.probes import FENTRY, FEXIT, KPROBE, KRETPROBE, Answer
from cgnet.loader import Object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cgnet.kernel.probes import Feature
    from cgnet.loader import Program

log = logging.getLogger(__name__)

FENTRY_WAY, MULTI_WAY, KPROBE_WAY = "fentry", "kprobe.multi", "kprobe"
WAYS = (FENTRY_WAY, MULTI_WAY, KPROBE_WAY)  # best first
KINDS: Mapping[str, frozenset[str]] = {
    FENTRY_WAY: frozenset({"fentry", "fexit"}),
    MULTI_WAY: frozenset({"kprobe", "kretprobe"}),
    KPROBE_WAY: frozenset({"kprobe", "kretprobe"}),
}
NEEDS: Mapping[str, tuple[Feature, ...]] = {
    FENTRY_WAY: (FENTRY, FEXIT),
    MULTI_WAY: (),
    KPROBE_WAY: (KPROBE, KRETPROBE),
}
BOTH = "both"  # the part of functions that handle both IPv4 and IPv6


class Row(NamedTuple):
    """A program at a function: a row of the table."""

    stage: str
    part: str  # v4, v6 or both; each part of a stage needs a hook
    function: str
    kind: str  # of hook
    program: str


class Choice(NamedTuple):
    """The function and hook that cover a part of a stage; None for both if none works."""

    stage: str
    part: str
    functions: tuple[str, ...]  # candidates, best first
    function: str | None
    way: str | None
    why: str  # why better candidates were refused

    @property
    def name(self) -> str:
        """The name to display."""
        return self.stage if self.part == BOTH else f"{self.stage} of IP{self.part}"


class Functions(NamedTuple):
    """The hooks that work on this kernel."""

    programs: Mapping[str, str]  # the hook of each program, by the program's name
    choices: tuple[Choice, ...]

    @property
    def unseen(self) -> dict[str, str]:
        """The stages that no hook covers here, with the reason."""
        wholly = {each.stage for each in self.choices} - {
            each.stage for each in self.choices if each.way
        }
        return {
            each.stage if each.stage in wholly else each.name: each.why
            for each in self.choices
            if not each.way
        }


def stage_of(program: str) -> str:
    """Return the stage that a program reports, by its name."""
    return program.partition("__")[0]


def attach(obj: Object, program: Program, way: str) -> dict[str, str]:
    """Attach an optional program; return its stage and the reason if the kernel refuses it."""
    function = program.section.partition("/")[2]
    try:
        if way == FENTRY_WAY:
            obj.attach(program)
        else:
            obj.attach_kprobe(program, function, multi=way == MULTI_WAY)
    except LibbpfError as error:
        return {stage_of(program.name): f"{function}: {strerror(refusal(error).errno)}"}
    return {}


def remarks(unseen: Mapping[str, str]) -> list[str]:
    """Return a line that lists the stages not seen here, if any; log the reasons for -v."""
    names: dict[str, list[str]] = {}
    for stage, why in unseen.items():
        names.setdefault(why, []).append(stage)
    for why, stages in names.items():
        log.info("not seen here: %s: %s", ", ".join(stages), why)
    if not unseen:
        return []
    return [f"not seen here: {', '.join(unseen)}; cgnet doctor tells why"]


def rows(programs: Iterable[Program]) -> list[Row]:
    """Return the table from programs' names, STAGE__PART__FUNCTION__KIND; skip other names."""
    found = []
    for program in programs:
        stage, *rest = program.name.split("__", 2)
        if len(rest) == 2:
            function = program.section.partition("/")[2]
            found.append(Row(stage, rest[0], function, program.hook, program.name))
    return found


def read(path: Path) -> list[Row]:
    """Return the table of an object file. Raises LibbpfError."""
    with Object(path) as obj:
        return rows(obj.programs)


def _works(way: str, function: str) -> Answer:
    answer = variants.all_work(NEEDS[way])
    return probes.trial_at(way, function) if answer.ok else answer


def _choose(stage: str, part: str, functions: tuple[str, ...], ways: Iterable[str]) -> Choice:
    refused: dict[str, None] = {}
    for function in functions:
        for way in ways:
            answer = _works(way, function)
            if answer.ok:
                return Choice(stage, part, functions, function, way, "; ".join(refused))
            refused[f"{way}: {answer.why.removeprefix(f'{way}: ')}"] = None
    return Choice(stage, part, functions, None, None, "; ".join(refused) or "not asked for")


def choose(table: list[Row], ways: Iterable[str] = WAYS) -> Functions:
    """Choose for each part of each stage the first function, and its best hook, that works.

    A trial takes some 5 ms where fentry works; where nothing works, two trials suffice for all
    functions. Raises as variants.works().
    """
    ways = tuple(ways)
    places: dict[tuple[str, str], dict[str, None]] = {}
    for row in table:
        places.setdefault((row.stage, row.part), {})[row.function] = None
    choices = tuple(
        _choose(stage, part, tuple(functions), ways) for (stage, part), functions in places.items()
    )
    chosen = {(each.stage, each.part, each.function): each.way for each in choices}
    programs = {}
    for row in table:
        way = chosen.get((row.stage, row.part, row.function))
        if way and row.kind in KINDS[way]:
            programs[row.program] = way
    return Functions(programs, choices)
