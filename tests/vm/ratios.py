# SPDX-License-Identifier: BSD-2-Clause
"""From what ways cost in guests, and what they leave of a rate, to rows."""

from __future__ import annotations

from typing import Any

# What connections are made beside: rates.py measures it, in guests.
BESIDE = ("trace", "trace --functions none", "trace --summary", "pwru")
OURS = ("tp_btf", "raw_tp")  # the best that is there is what others are compared with
RATIOS = {
    "tp_btf / raw_tp": ("tp_btf", "raw_tp"),
    "perf / ring": ("perf", "raw_tp"),
    "fentry / kprobe": ("fentry", "kprobe"),
    "kprobe.multi / kprobe": ("kprobe.multi", "kprobe"),
    "libbpf-tools / cgnet": ("libbpf-tools", *OURS),
    "bpftrace / cgnet": ("bpftrace", *OURS),
}


def ratio(costs: dict[str, Any], one: str, *beside: str) -> str:
    """Say how often the first costs what the first of the others does that is there.

    What an empty program costs as much as is nothing.
    """
    if one not in costs:
        return ""
    other = next((costs[way] for way in beside if isinstance(costs.get(way), float)), None)
    if isinstance(costs[one], str) or not other or other <= 0:
        return "-"
    return f"{max(costs[one], 0) / other:.2f}"


def ratios(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a guest's rows: the kernel, what is compared, RATIOS."""
    return [
        (found["release"], f"`{name}`", *(ratio(costs, *ways) for ways in RATIOS.values()))
        for name, costs in (found.get("costs") or {}).items()
    ]


def kept(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a guest's row, if it was measured: the kernel, what is left of the rate by BESIDE."""
    rates = found.get("rates")
    if not rates:
        return []
    told = (rates.get(way, "-") for way in BESIDE)
    return [(found["release"], *("-" if isinstance(each, str) else f"{each:.2f}" for each in told))]
