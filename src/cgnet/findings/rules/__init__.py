# SPDX-License-Identifier: BSD-2-Clause
"""The rules of ``cgnet why``: each looks at what a watch saw, and yields findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgnet.findings.finding import ranked
from cgnet.findings.rules import attempts, ends, queues, transfers

if TYPE_CHECKING:
    from cgnet.findings.finding import Finding
    from cgnet.findings.watched import Watched

RULES = (*attempts.RULES, *queues.RULES, *transfers.RULES, *ends.RULES)


def judge(watched: Watched) -> list[Finding]:
    """Return the findings, ranked: the worst first."""
    return ranked(finding for rule in RULES for finding in rule(watched))
