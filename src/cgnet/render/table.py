# SPDX-License-Identifier: BSD-2-Clause
"""A table that streams: fixed widths, colour on a terminal, plain text in a pipe."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.render import with_owner
from cgnet.render.text import cell, local_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.events import CountSchema, Schema

SEPARATOR = " "
ELLIPSIS = "…"
CLEAR = "\x1b[H\x1b[2J"  # ECMA-48: cursor home, erase in page


class Column(NamedTuple):
    """How a field is shown. ``width`` is the least one; numbers are aligned right."""

    header: str
    width: int
    right: bool = False
    style: str = ""


DEFAULT_WIDTH = 10
# Paths take what a terminal's line has left, and lose their middle where that is too little; an
# address or a number is never cut.
FLEXIBLE = ("owner", "cgroup", "selected")
LEAST_FLEXIBLE = 16
COLUMNS = {
    "time": Column("TIME", 12, style="dim"),
    "owner": Column("CONTAINER/CGROUP", 24, style="cyan"),
    "cgroup": Column("CGROUP", 24, style="cyan"),
    "pid": Column("PID", 7, right=True),
    "uid": Column("UID", 5, right=True),
    "comm": Column("COMM", 15),
    "saddr": Column("SOURCE", 15),
    "sport": Column("SPORT", 5, right=True),
    "daddr": Column("DESTINATION", 15),
    "dport": Column("PORT", 5, right=True),
    "family": Column("IP", 2, right=True),
    "netns": Column("NETNS", 10, right=True),
    "result": Column("RESULT", 12),
    "latency_us": Column("LATENCY", 7, right=True),
    "syn_retrans": Column("RETRANS", 7, right=True),
    "role": Column("ROLE", 6),
    "tcp_state": Column("STATE", 11),
    "rtt_us": Column("RTT", 7, right=True, style="bold"),
    "srtt_us": Column("SRTT", 7, right=True),
    "min_rtt_us": Column("MIN RTT", 7, right=True),
    "duration_us": Column("LASTED", 7, right=True),
    "handshake_us": Column("HANDSHAKE", 9, right=True),
    "tx_bytes": Column("SENT", 10, right=True),
    "rx_bytes": Column("RECEIVED", 10, right=True),
    "tx_segs": Column("TX SEGS", 7, right=True),
    "rx_segs": Column("RX SEGS", 7, right=True),
    "retrans": Column("RETRANS", 7, right=True),
    "closed_by": Column("CLOSED", 6),
    "close_cause": Column("CAUSE", 7),
    "rst_reason": Column("RST REASON", 16),
    "dev": Column("DEVICE", 8),
    "direction": Column("WAY", 7),
    "tcp_flags": Column("FLAGS", 5),
    "len": Column("LEN", 5, right=True),
    "payload": Column("PAYLOAD", 7, right=True),
    "reason": Column("REASON", 20, style="bold"),
    "reason_class": Column("CLASS", 13),
    "location": Column("LOCATION", 26),
    "stage": Column("STAGE", 14, style="cyan"),
    "p50_ns": Column("P50", 7, right=True),
    "p90_ns": Column("P90", 7, right=True),
    "p99_ns": Column("P99", 7, right=True),
    "max_ns": Column("MAX", 7, right=True),
    "share": Column("SHARE", 6, right=True, style="bold"),
    "selected": Column("SELECTED", 24, style="cyan"),
    "count": Column("COUNT", 10, right=True, style="bold"),
    "owner_source": Column("OWNER FROM", 10, style="dim"),
}


def column(field: str) -> Column:
    """Return how a field is shown."""
    return COLUMNS.get(field, Column(field.upper(), max(DEFAULT_WIDTH, len(field))))


def cells(text: str) -> int:
    """Return how wide a terminal shows a text."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - only for wide characters

    return cell_len(text)


def _head(text: str, width: int) -> str:
    """Return as much of the beginning as fits."""
    while cells(text) > width:
        text = text[:-1]
    return text


def _tail(text: str, width: int) -> str:
    while cells(text) > width:
        text = text[1:]
    return text


def fit(text: str, width: int, *, right: bool, cut: bool) -> str:
    """Pad to ``width`` cells of a terminal; if ``cut``, what is longer loses its middle."""
    if cut and cells(text) > width:
        head = _head(text, (width - 1) // 2)
        text = head + ELLIPSIS + _tail(text, width - 1 - cells(head))
    pad = " " * max(0, width - cells(text))
    return pad + text if right else text + pad


class Table:
    """The renderer for ``-o table`` and ``-o wide``."""

    def __init__(
        self, schema: Schema | CountSchema, fields: list[str], *, terminal: bool, header: bool
    ) -> None:
        """Show ``fields``, in their order; ``terminal`` says whether to cut and to colour."""
        self._schema = schema
        self._fields = fields
        self._terminal = terminal
        self._header = header
        self._columns = [column(field) for field in fields]
        self._widths = [each.width for each in self._columns]
        self._cut = [terminal and field in FLEXIBLE for field in fields]
        self._paint: Callable[[str, str], str] = lambda text, _style: text
        if terminal:
            self._stretch()
            self._paint = _painter()

    def _stretch(self) -> None:
        """Give the room that the terminal's line has left to the paths, or take theirs."""
        flexible = [i for i, field in enumerate(self._fields) if field in FLEXIBLE]
        used = sum(self._widths) + len(SEPARATOR) * (len(self._widths) - 1)
        room = shutil.get_terminal_size().columns - used
        for i in flexible:
            self._widths[i] = max(LEAST_FLEXIBLE, self._widths[i] + room // len(flexible))

    def header(self) -> str:
        """Return the line of headers."""
        if not self._header:
            return ""
        return self._line([each.header for each in self._columns], ["bold"] * len(self._columns))

    def rows(self, batch: list[Any]) -> str:
        """Return a line for each record."""
        return "".join(map(self._row, self._schema.rows(batch)))

    def _row(self, row: dict[str, Any]) -> str:
        row = with_owner(row)
        cells = [self._cell(row, field) for field in self._fields]
        styles = [
            _result_style(row["result"]) if field == "result" else each.style
            for field, each in zip(self._fields, self._columns, strict=True)
        ]
        return self._line(cells, styles)

    def _cell(self, row: dict[str, Any], field: str) -> str:
        if field == "time":
            return local_time(row["ts_ns"], self._schema.clock.offset_ns)
        return cell(field, row[field])

    def _line(self, cells: list[str], styles: list[str]) -> str:
        padded = (
            self._paint(fit(text, width, right=each.right, cut=cut), style)
            for text, width, cut, each, style in zip(
                cells, self._widths, self._cut, self._columns, styles, strict=True
            )
        )
        return SEPARATOR.join(padded).rstrip() + "\n"

    def clear(self) -> str:
        """Return the sequence that clears a terminal."""
        return CLEAR if self._terminal else ""

    def notice(self, row: dict[str, Any]) -> str:  # noqa: ARG002
        """A table has one kind of rows: told on stderr instead."""
        return ""


def _result_style(result: str) -> str:
    return {"ok": "green", "aborted": "yellow"}.get(result, "red")


def _painter() -> Callable[[str, str], str]:
    """Return how rich would colour on this terminal: not at all for NO_COLOR or a dumb one."""
    from rich.console import Console  # noqa: PLC0415 - 70 ms, and only for terminals
    from rich.style import Style  # noqa: PLC0415

    console = Console()
    system = console.color_system and console._color_system  # noqa: SLF001
    if not system or console.no_color:
        return lambda text, _style: text
    styles: dict[str, Style] = {}

    def paint(text: str, style: str) -> str:
        if style not in styles:
            styles[style] = Style.parse(style or "none")
        return styles[style].render(text, color_system=system)

    return paint
