# SPDX-License-Identifier: BSD-2-Clause
"""The rules of ``cgnet why``: each looks at what a watch saw, and yields findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgnet.findings.finding import UNKNOWN, ranked, who
from cgnet.findings.rules import attempts, ends, queues, servers, transfers

if TYPE_CHECKING:
    from cgnet.findings.finding import Finding
    from cgnet.findings.watched import Watched

RULES = (*attempts.RULES, *queues.RULES, *transfers.RULES, *servers.RULES, *ends.RULES)


def judge(watched: Watched) -> list[Finding]:
    """Return the findings, ranked: the worst first."""
    found = [finding for rule in RULES for finding in rule(watched)]
    return ranked(each for each in found if not _is_explained(each, found))


HERE = frozenset(
    {
        "firewall-drop", "firewall-reject", "rp-filter", "no-route", "qdisc-limit", "tcp-memory",
        "source-address-missing",
    }
)  # fmt: skip
# By a symptom: the causes that explain it, where they hit the same connections.
EXPLAINED = {
    "slow-server": HERE
    | {
        "path-loss", "path-reordering", "mtu-blackhole", "accept-queue-full", "peer-vanished",
        "cpu-limit",
    },
    "firewall-drop": frozenset({"firewall-reject"}),  # ICMP's rate is limited: some go unanswered
    "path-loss": HERE | {"mtu-blackhole"},
    "mtu-blackhole": HERE,
    "peer-vanished": HERE | {"mtu-blackhole"},
}  # fmt: skip


def _is_explained(symptom: Finding, found: list[Finding]) -> bool:
    """Return whether another finding, of the same service and owner, tells why."""
    causes = EXPLAINED.get(symptom.id, frozenset[str]())
    ends = {who(symptom.owner), who(symptom.peer)} - {UNKNOWN}
    return any(
        each.id in causes
        and each.dport == symptom.dport
        and (not ends or ends & {who(each.owner), who(each.peer)})
        for each in found
    )
