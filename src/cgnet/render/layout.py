# SPDX-License-Identifier: BSD-2-Clause
"""Select the columns that fit a terminal's line, and compute their widths."""

from __future__ import annotations

import re
import shutil
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ELLIPSIS = "…"
# Below redrawn rows: the cursor's line, the summary's, and the shell's next prompt.
LINES_BELOW = 3
FEWEST_LINES = 2
# Characters of one cell each, such as those of "1 µs". Others may have none, or two.
_SINGLES = re.compile("[ -~\xa1-\xac\xae-\u02ff]*")


class Room(NamedTuple):
    """A column's widths in cells, ascending: all columns reach one before any gets the next."""

    tight: int  # on a narrow terminal
    least: int  # beside optional columns
    common: int  # before an optional column is added
    wish: int
    most: int


def terminal_width() -> int:
    """Return the terminal's columns: COLUMNS if set, 80 if unknown."""
    return shutil.get_terminal_size().columns


def terminal_lines() -> int:
    """Return how many of the terminal's lines may be redrawn: by LINES if set, at least two."""
    return max(FEWEST_LINES, shutil.get_terminal_size().lines - LINES_BELOW)


@lru_cache(maxsize=4096)
def _char_cells(char: str) -> int:
    from rich.cells import get_character_cell_size  # noqa: PLC0415 - only for wide characters

    return get_character_cell_size(char)


def has_single_cells(text: str) -> bool:
    """Return whether each character surely has one cell; control characters count as such."""
    return text.isascii() or _SINGLES.fullmatch(text) is not None


def cells(text: str) -> int:
    """Return the width of a text in cells."""
    return len(text) if has_single_cells(text) else sum(map(_char_cells, text))


def _length(chars: Iterable[str], width: int) -> int:
    """Return how many characters fit; those of width 0 stay with the preceding one."""
    number = 0
    for char in chars:
        width -= _char_cells(char)
        if width < 0:
            break
        number += 1
    return number


def shortened(text: str, width: int) -> str:
    """Return a text of at most ``width`` cells: a longer one loses its middle."""
    if cells(text) <= width:
        return text
    if width <= 0:
        return ""
    head = text[: _length(text, (width - 1) // 2)]
    tail = text[len(text) - _length(reversed(text), width - 1 - cells(head)) :]
    while tail and unicodedata.combining(tail[0]):  # its base character is cut off
        tail = tail[1:]
    return head + ELLIPSIS + tail


def fit(text: str, width: int, *, right: bool, cut: bool) -> str:
    """Pad to ``width`` cells of a terminal; if ``cut``, a longer text loses its middle."""
    if cut:
        text = shortened(text, width)
    pad = " " * max(0, width - cells(text))
    return pad + text if right else text + pad


def choose(
    rooms: Sequence[Room], order: Sequence[int], kept: int, gap: int, width: int
) -> list[int]:
    """Return the indices of the columns that fit ``width`` cells, ``gap`` cells apart, ascending.

    ``order`` has all indices, the most important first. The first ``kept`` are narrowed as far as
    possible before one is left out; others are added as long as all have their common widths.
    """
    found = list(order[:kept])
    while len(found) > 1 and sum(rooms[index].tight + gap for index in found) > width + gap:
        found.pop()
    if len(found) < kept:
        return sorted(found)
    left = width + gap - sum(rooms[index].common + gap for index in found)
    for index in order[kept:]:
        left -= rooms[index].common + gap
        if left < 0:
            break
        found.append(index)
    return sorted(found)


def _grow(widths: list[int], targets: Sequence[int], room: int) -> int:
    """Widen columns towards ``targets``, in proportion to need; return the remaining room."""
    needs = [max(0, target - width) for width, target in zip(widths, targets, strict=True)]
    total = sum(needs)
    given = min(room, total)
    shares = [need * given // total if total else 0 for need in needs]
    for place in range(len(widths)):  # the rounding remainder goes to the first ones
        if sum(shares) < given and shares[place] < needs[place]:
            shares[place] += 1
    for place, share in enumerate(shares):
        widths[place] += share
    return room - given


def share_out(rooms: Sequence[Room], gap: int, width: int) -> list[int]:
    """Return the widths of the columns from ``choose``, at most ``width`` with gaps."""
    widths = [room.tight for room in rooms]
    left = width - sum(widths) - gap * (len(widths) - 1)
    if left < 0:
        return [width]  # a single column, on a line that is too short for it
    for targets in zip(*(room[1:] for room in rooms), strict=True):
        left = _grow(widths, targets, left)
    return widths


def filled(pieces: Iterable[str], width: int, indent: str) -> list[str]:
    """Return pieces joined into lines; a piece that is longer than a line is cut."""
    lines: list[str] = []
    for piece in pieces:
        line = f"{lines[-1]} {piece}" if lines else piece
        if lines and cells(line) <= width:
            lines[-1] = line
        else:
            lines.append(shortened(indent * bool(lines) + piece, width))
    return lines
