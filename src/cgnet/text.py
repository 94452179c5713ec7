# SPDX-License-Identifier: BSD-2-Clause
"""Text from outside: names chosen by others, numbers typed by users."""

from __future__ import annotations

CUT = "…"  # stands for the last name of a path that the kernel truncated


def decode(name: bytes) -> str:
    """Return a name as text; bytes that aren't UTF-8 are escaped."""
    return name.decode(errors="backslashreplace")


def is_number(text: str) -> bool:
    """Return whether the text is a non-empty string of ASCII digits."""
    return text.isascii() and text.isdigit()


def number(text: str, most: int) -> int | None:
    """Return a number from 0 to ``most``, else None. The text may have any length."""
    if not is_number(text):
        return None
    # Python refuses to parse thousands of digits; one more than ``most`` has is enough.
    found = int(text.lstrip("0")[: len(str(most)) + 1] or "0")
    return found if found <= most else None
