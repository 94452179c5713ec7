# SPDX-License-Identifier: BSD-2-Clause
"""Redraw a terminal in place of the last text."""

from __future__ import annotations

import re

from cgnet.render.layout import cells, shortened, terminal_lines, terminal_width

CLEAR = "\x1b[H\x1b[2J"  # ECMA-48: cursor home, erase in page
SGR = re.compile(r"\x1b\[[0-9;]*m")


def _lines_of(line: str, width: int) -> int:
    """Return how many lines of the terminal a line takes."""
    return max(1, -(-cells(SGR.sub("", line)) // width))


def drawn_anew(header: str, body: str) -> str:
    """Return a sequence that clears the terminal and draws a header and the first lines that fit.

    If lines are left out, the last line reports their number.
    """
    lines, width, room = body.splitlines(), max(1, terminal_width()), terminal_lines()
    room -= sum(_lines_of(line, width) for line in header.splitlines())
    heights = [_lines_of(line, width) for line in lines]
    if sum(heights) <= room:
        return CLEAR + header + body
    kept = 0
    room -= 1  # for the number of lines left out
    for height in heights:
        room -= height
        if room < 0:
            break
        kept += 1
    more = shortened(f"… {len(lines) - kept} more lines", width)
    return CLEAR + header + "".join(f"{line}\n" for line in (*lines[:kept], more))
