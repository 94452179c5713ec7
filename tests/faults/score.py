# SPDX-License-Identifier: BSD-2-Clause
"""Judge the findings about a fault: is the right one first, and is its owner right?"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from case import Case, Trouble

Finding = dict[str, Any]
RIGHT, WRONG, BROKEN, NOT_RUN = "right", "wrong", "broken", "not run"
GRAVE = ("error", "warning")
GOAL = 0.9


@dataclass
class Result:
    """What was found on one fault, in one mode."""

    case: str
    id: str
    family: int
    mode: str
    verdict: str = BROKEN
    first: str = ""
    right_owner: bool | None = None
    right_place: bool | None = None  # address and port; no part of the score
    owner: str = ""
    seconds: float = 0
    why_not: str = ""
    findings: list[Finding] = field(default_factory=list)
    strangers: list[Finding] = field(default_factory=list)
    rest: list[Finding] = field(default_factory=list)  # summary and other rows
    stderr: list[str] = field(default_factory=list)
    netns: dict[str, int] = field(default_factory=dict)  # inodes of the namespaces, by name

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def owner_of(finding: Finding, prefix: str = "") -> str:
    """Return the name of a container, or of its cgroup without the path; of the peer by "peer_"."""
    path = str(finding.get(f"{prefix}cgroup") or "").rstrip("/")
    return finding.get(f"{prefix}container") or path.rpartition("/")[2]


def is_ours(finding: Finding, names: set[str], netns: set[int]) -> bool:
    """Return whether a finding is about the fault's containers; others may live on this host."""
    owners = {owner_of(finding), owner_of(finding, "peer_")} - {""}
    if owners & names:
        return True
    if finding.get("netns") is not None:
        return finding["netns"] in netns
    return not owners


def judge(result: Result, trouble: Trouble, case: Case, findings: Iterable[Finding]) -> None:
    """Write the verdict on findings that are sorted by rank."""
    result.findings = sorted(findings, key=lambda each: each.get("rank") or 0)
    if not case.id:
        _judge_healthy(result)
        return
    if not result.findings:
        result.verdict, result.why_not = WRONG, "nothing found"
        return
    first = result.findings[0]
    result.first, result.owner = first["id"], owner_of(first)
    result.right_owner = result.owner in {each.name for each in trouble.owners}
    to = first.get("daddr"), first.get("dport")
    result.right_place = to[0] in (None, *trouble.daddr) and trouble.dport in (None, to[1])
    right_id = first["id"] in (case.id, *trouble.ids)
    blamed = _blamed(result.findings, {each.name for each in trouble.bystanders})
    result.verdict = RIGHT if right_id and result.right_owner and not blamed else WRONG
    if not right_id:
        place = [each["id"] for each in result.findings]
        other = f"; its own is number {place.index(case.id) + 1}" if case.id in place else ""
        result.why_not = f"found {first['id']}{other}: {first.get('text')}"
    elif not result.right_owner:
        wanted = " or ".join(each.name for each in trouble.owners)
        result.why_not = f"owner {result.owner or 'unknown'}, not {wanted}"
    elif blamed:
        result.why_not = f"also names {blamed[0]}"


def _blamed(findings: list[Finding], names: set[str]) -> list[str]:
    """Return who of these is named by a warning."""
    grave = [each for each in findings if each.get("severity") in GRAVE]
    return [owner for each in grave if (owner := owner_of(each)) in names]


def _judge_healthy(result: Result) -> None:
    grave = [each for each in result.findings if each.get("severity") in GRAVE]
    result.verdict = WRONG if grave else RIGHT
    if result.findings:
        result.first = (grave or result.findings)[0]["id"]
    if grave:
        result.why_not = f"found {grave[0]['id']}: {grave[0].get('text')}"


def line(result: Result) -> str:
    """Return a result's line of the table."""
    owner = {None: "-", True: "yes", False: "no"}[result.right_owner]
    text = (
        f"{result.case:<52} v{result.family} {result.mode:<7} {result.first or '-':<22} "
        f"{owner:<5} {result.seconds:6.1f}  {result.verdict}"
    )
    return f"{text}: {result.why_not}" if result.why_not else text


HEADER = f"{'FAULT':<52} IP {'WHY':<7} {'FOUND FIRST':<22} {'OWNER':<5} {'SECONDS':>7}  VERDICT"


def totals(results: list[Result]) -> list[str]:
    """Return the score in words, over all modules and by finding."""
    faults = [each for each in results if each.id]
    quiet = [each for each in results if not each.id]
    told = []
    for name, some in (("faults", faults), ("healthy traffic", quiet)):
        if not some:
            continue
        verdicts = Counter(each.verdict for each in some)
        run = len(some) - verdicts[NOT_RUN]
        words = (
            f"{name}: {verdicts[RIGHT]} of {len(some)} right ({verdicts[RIGHT] / len(some):.0%})"
        )
        if run:
            words += f", {verdicts[RIGHT] / run:.0%} of {run} that ran"
        rest = ", ".join(
            f"{verdicts[key]} {key}" for key in (WRONG, BROKEN, NOT_RUN) if verdicts[key]
        )
        told.append(words + (f"; {rest}" if rest else ""))
    return told


def passed(results: list[Result]) -> bool:
    """Return whether the goal is reached: nothing broken, healthy traffic without a finding."""
    faults = [each for each in results if each.id]
    right = sum(each.verdict == RIGHT for each in faults)
    if any(each.verdict == BROKEN for each in results):
        return False
    if any(each.verdict == WRONG and not each.id for each in results):
        return False
    return right >= GOAL * len(faults)
