# SPDX-License-Identifier: BSD-2-Clause
"""Findings for people: a few lines each, as wide as the terminal; escaped, as strangers choose names."""

from __future__ import annotations

import textwrap
from typing import Any

from cgnet.render.text import safe

INDENT = "   "
MIN_WIDTH = 40
MAX_EVIDENCE = 4  # entries of a finding's evidence that one line shows


def _wrapped(label: str, text: str, width: int) -> list[str]:
    first = f"{INDENT}{label}"
    return textwrap.wrap(
        safe(text), max(width, MIN_WIDTH), initial_indent=first,
        subsequent_indent=INDENT + " " * len(label), break_long_words=True, break_on_hyphens=False,
    )  # fmt: skip


def _evidence(evidence: dict[str, Any]) -> str:
    told = [
        f"{name} {value}"
        for name, value in evidence.items()
        if isinstance(value, int | float | str)
    ]
    return ", ".join(told[:MAX_EVIDENCE])


def finding_text(row: dict[str, Any], owner: str, harm: str, width: int, *, whole: bool) -> str:
    """Return a finding's lines. ``whole``: with all its evidence, and uncut commands."""
    head = f"{row['rank']}  {row['severity'].upper()}  {row['id']}  {safe(owner)}"
    lines = [f"{head}  ({row['confidence']}; {harm})"]
    lines += _wrapped("", row["text"], width)
    told = _evidence(row["evidence"])
    if whole:
        told = ", ".join(f"{name} {value}" for name, value in row["evidence"].items())
    if told:
        seen = _wrapped("seen: ", told, width)
        lines += seen if whole else seen[:1]
    lines += _wrapped("fix:  ", row["fix"], width)
    lines.append(f"{INDENT}more: {safe(row['more'])}")
    return "\n".join(lines) + "\n"
