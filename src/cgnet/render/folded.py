# SPDX-License-Identifier: BSD-2-Clause
"""Stacks in the format of flame graph tools: "container;outermost;…;innermost COUNT"."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cgnet.render import Renderer, with_owner
from cgnet.render.text import safe

LOST = "[stack is lost]"
# Fields of a row of counts that aren't frames of their own.
NOT_SHOWN = frozenset((
    "schema", "type", "time", "ts_ns", "container", "pod", "pod_namespace", "cgroup", "stack", "count",
    "owner",
))  # fmt: skip


def frames(row: dict[str, Any]) -> list[str]:
    """Return a row's frames, outermost first: its keys, then the functions."""
    keys = [f"{name} {value}" for name, value in row.items() if name not in NOT_SHOWN]
    if row.keys() & {"container", "pod", "cgroup"}:
        keys.insert(0, with_owner(row)["owner"] or "[unknown owner]")
    functions = [frame.partition("+")[0] for frame in reversed(row["stack"])]
    return [*keys, *(functions or [LOST])]


class Folded(Renderer):
    """The renderer for ``--stacks folded``."""

    def rows(self, batch: list[dict[str, Any]]) -> str:
        """Return a line for each stack. Places in one function are counted together."""
        totals: Counter[str] = Counter()
        for row in batch:
            line = ";".join(safe(frame).replace(";", ":") for frame in frames(row))
            totals[line] += row["count"]
        return "".join(f"{line} {count}\n" for line, count in totals.most_common())
