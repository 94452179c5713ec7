# SPDX-License-Identifier: BSD-2-Clause
"""Run ``cgnet why`` on one fault."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from case import AFTER, BEFORE, CASES, Case, Trouble
from harness import PATIENCE_S, Tracer, tracing, wait_until
from lab import Lab
from score import BROKEN, NOT_RUN, Result, is_ours, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

DURATION_S = 10.0
LATE_S = 60.0  # how long after its duration `why` may end before the trial gives up


def load_cases() -> list[Case]:
    """Return all faults and all healthy traffic."""
    if not CASES:
        for path in sorted((Path(__file__).parent / "cases").glob("*.py")):
            importlib.import_module(f"cases.{path.stem}")
    return CASES


def begin_trouble(steps: Iterator[Trouble | None]) -> Trouble:
    trouble = next(steps)
    assert trouble is not None, "the second step gives the trouble"
    return trouble


def wait_seen(trouble: Trouble) -> None:
    wait_until(f"the user to see: {trouble.sees}", trouble.seen)


def _watch(
    tracer: Tracer, steps: Iterator[Trouble | None], trouble: Trouble | None, duration_s: float
) -> Trouble:
    """Begin the trouble, if it isn't there yet; wait until `why` ends."""
    trouble = trouble or begin_trouble(steps)
    tracer.process.wait(duration_s + LATE_S)
    for reader in tracer._readers:
        reader.join(PATIENCE_S)
    assert tracer.process.returncode == 0, (tracer.process.returncode, tracer.said[-20:])
    wait_seen(trouble)
    return trouble


def run_trial(
    case: Case, family: int, mode: str, duration_s: float = DURATION_S, *options: str
) -> Result:
    """Return the result of one fault in one mode; an error of the set-up is told in it."""
    result = Result(case.name, case.id, family, mode)
    if case.not_run:
        result.verdict, result.why_not = NOT_RUN, case.not_run
        return result
    try:
        _run(case, result, duration_s, options)
    except Exception as error:  # noqa: BLE001 - told, and counted
        result.verdict, result.why_not = BROKEN, f"{type(error).__name__}: {error}"
    return result


def _run(case: Case, result: Result, duration_s: float, options: tuple[str, ...]) -> None:
    with Lab(result.family) as lab:
        steps = case.steps(lab)
        next(steps)
        trouble = None
        if result.mode == AFTER:
            trouble = begin_trouble(steps)
            wait_seen(trouble)
        arguments = ("--duration", str(duration_s), *options)
        begin = time.monotonic()
        with tracing(*arguments, command="why") as tracer:
            try:
                trouble = _watch(tracer, steps, trouble, duration_s)
            finally:
                result.stderr = list(tracer.said)
            result.seconds = round(time.monotonic() - begin, 1)
            rows = [json.loads(each) for each in tracer.lines]
        names = {each.name for each in lab.ends}
        result.netns = {each.netns: each.inode for each in lab.places}
        netns = set(result.netns.values())
        findings = [each for each in rows if each["type"] == "finding"]
        result.rest = [each for each in rows if each["type"] != "finding"]
        result.strangers = [each for each in findings if not is_ours(each, names, netns)]
        ours = [each for each in findings if is_ours(each, names, netns)]
        judge(result, trouble, case, ours)


def trials(
    only: list[str], families: list[int], modes: list[str]
) -> Iterator[tuple[Case, int, str]]:
    """Yield each fault in each family and mode; names are matched by their parts."""
    for case in load_cases():
        if only and not any(each in case.name for each in only):
            continue
        for family in case.families:
            for mode in case.modes:
                if family in families and mode in modes:
                    yield case, family, mode


ALL_MODES = [BEFORE, AFTER]
