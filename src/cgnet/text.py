# SPDX-License-Identifier: BSD-2-Clause
"""Bytes and text that come from outside: names that strangers chose, numbers that people typed."""

from __future__ import annotations

CUT = "…"  # the last name of a path that is longer than the kernel tells


def decode(name: bytes) -> str:
    """Return a name that a stranger chose as text; bytes that aren't UTF-8 are escaped."""
    return name.decode(errors="backslashreplace")


def is_number(text: str) -> bool:
    """Tell whether it is digits, of ASCII."""
    return text.isascii() and text.isdigit()


def number(text: str, most: int) -> int | None:
    """Return a number from 0 to ``most``, or None. It may have any number of digits."""
    if not is_number(text):
        return None
    # Python refuses to read thousands of digits; one more than the greatest has is enough.
    found = int(text.lstrip("0")[: len(str(most)) + 1] or "0")
    return found if found <= most else None
