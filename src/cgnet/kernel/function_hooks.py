# SPDX-License-Identifier: BSD-2-Clause
"""Stages of a packet that are kernel functions, and the hooks that work at them here.

The table is in bpf/trace_functions.bpf.c; it is read from the names of the object's programs. Each
function is tried with a tiny program: a name in the kernel's BTF or symbols guarantees nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cgnet.kernel.probes import FENTRY, FEXIT, KPROBE, KRETPROBE
from cgnet.kernel.variants import Job, Variant
from cgnet.loader import Object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cgnet.kernel.probes import Feature
    from cgnet.kernel.variants import Chosen
    from cgnet.loader import Program

log = logging.getLogger(__name__)

MULTI_WAY, OF_KPROBES = "kprobe.multi", ("kprobe.multi", "kprobe")
# The ways to attach, best first, and the kinds of programs that each takes.
WAYS: Mapping[str, frozenset[str]] = {
    "fentry": frozenset({"fentry", "fexit"}),
    MULTI_WAY: frozenset({"kprobe", "kretprobe"}),
    "kprobe": frozenset({"kprobe", "kretprobe"}),
}
NEEDS: Mapping[str, tuple[Feature, ...]] = {
    "fentry": (FENTRY, FEXIT),
    MULTI_WAY: (),
    "kprobe": (KPROBE, KRETPROBE),
}
BOTH = "both"  # the part of functions that handle both IPv4 and IPv6


def _variant(programs: Iterable[Program], function: str, way: str) -> Variant:
    names = (each.name for each in programs if each.target == function and each.hook in WAYS[way])
    return Variant(
        f"{way} {function}", NEEDS[way], code=way, function=function, programs=frozenset(names),
        beside=True,
    )  # fmt: skip


def jobs(programs: Iterable[Program], ways: Iterable[str] = WAYS) -> list[Job]:
    """Return a job for each part of each stage: its functions, best first, by each of ``ways``."""
    places: dict[tuple[str, str], list[Program]] = {}
    for each in programs:
        if each.stage:
            places.setdefault(each.stage, []).append(each)
    ways = tuple(ways)
    return [
        Job(
            stage if part == BOTH else f"{stage} of IP{part}",
            tuple(
                _variant(found, function, way)
                for function in dict.fromkeys(each.target for each in found)
                for way in ways
            ),
            optional=True,
        )
        for (stage, part), found in places.items()
    ]


def read(path: Path, ways: Iterable[str] = WAYS) -> list[Job]:
    """Return the jobs of an object file's programs. Raises LibbpfError."""
    with Object(path) as obj:
        return jobs(obj.programs, ways)


def unseen(plan: Iterable[Chosen]) -> dict[str, str]:
    """Return the stages that nothing reports here, with the reason; of a part, with its name."""
    stages = [each for each in plan if each.job.optional]
    seen = {stage_of(each.job) for each in stages if each.variant}
    return {
        each.job.name if stage_of(each.job) in seen else stage_of(each.job): each.why
        or "not asked for"
        for each in stages
        if not each.variant
    }


def stage_of(job: Job) -> str:
    """Return the stage of a job."""
    return job.name.partition(" of IP")[0]


def remarks(missing: Mapping[str, str]) -> list[str]:
    """Return a line that lists the stages not seen here, if any; log the reasons for -v."""
    names: dict[str, list[str]] = {}
    for stage, why in missing.items():
        names.setdefault(why, []).append(stage)
    for why, stages in names.items():
        log.info("not seen here: %s: %s", ", ".join(stages), why)
    if not missing:
        return []
    return [f"not seen here: {', '.join(missing)}; cgnet doctor tells why"]
