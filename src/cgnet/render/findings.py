# SPDX-License-Identifier: BSD-2-Clause
"""Findings for people: a few lines each, as wide as the terminal; escaped, as strangers choose names."""

from __future__ import annotations

import textwrap
from typing import Any

from cgnet.render.layout import ELLIPSIS, shortened
from cgnet.render.text import safe

INDENT = "   "
MIN_WIDTH = 40
TEXT_LINES = 3  # so that three findings fit on a screen of 24 lines


def _wrapped(label: str, text: str, width: int, most: int | None) -> list[str]:
    """Return a paragraph's lines; of more than ``most`` the last one is cut."""
    return textwrap.wrap(
        safe(text), width, initial_indent=f"{INDENT}{label}",
        subsequent_indent=INDENT + " " * len(label), break_on_hyphens=False,
        max_lines=most, placeholder=f" {ELLIPSIS}",
    )  # fmt: skip


def _evidence(evidence: dict[str, Any], *, whole: bool) -> str:
    told = [
        (name, value)
        for name, value in evidence.items()
        if whole or not isinstance(value, list | dict)
    ]
    return ", ".join(f"{name} {value}" for name, value in told)


def finding_text(row: dict[str, Any], owner: str, harm: str, width: int, *, whole: bool) -> str:
    """Return a finding's lines. ``whole``: nothing is cut."""
    width = max(width, MIN_WIDTH)
    start = f"{row['rank']}  {row['severity'].upper()}  {row['id']}  "
    end = f"  ({row['confidence']}; {harm})"
    name = safe(owner)
    lines = [f"{start}{name if whole else shortened(name, width - len(start) - len(end))}{end}"]
    lines += _wrapped("", row["text"], width, None if whole else TEXT_LINES)
    if told := _evidence(row["evidence"], whole=whole):
        lines += _wrapped("seen: ", told, width, None if whole else 1)
    lines += _wrapped("fix:  ", row["fix"], width, None if whole else 1)
    lines.append(f"{INDENT}more: {safe(row['more'])}")
    return "\n".join(lines) + "\n"
