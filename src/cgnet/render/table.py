# SPDX-License-Identifier: BSD-2-Clause
"""A table that streams: fitted to a terminal's line, or complete in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.render import Renderer, sources_of, with_owner
from cgnet.render.layout import (
    Room,
    cells,
    choose,
    fit,
    has_single_cells,
    share_out,
    terminal_width,
)
from cgnet.render.screen import CLEAR, drawn_anew
from cgnet.render.text import local_time, short_number, texts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cgnet.records.schema import CountSchema, Schema

SEPARATOR = " "
# Amounts: shown in thousands, millions, … if too wide for their column.
QUANTITIES = frozenset({
    "count", "tx_bytes", "rx_bytes", "tx_segs", "rx_segs", "retrans", "syn_retrans", "len", "payload",
    "tx_bytes_delta", "rx_bytes_delta", "retrans_delta", "recv_q", "send_q", "unsent", "cwnd",
    "ssthresh", "delivery_rate", "drops", "turns",
})  # fmt: skip


class Column(NamedTuple):
    """How a field is shown. ``width`` is the common one; numbers are aligned right.

    ``tight``, ``least``, ``wish`` and ``most`` are other widths on a terminal; 0 means ``width``.
    """

    header: str
    width: int
    right: bool = False
    style: str = ""
    tight: int = 0
    least: int = 0
    wish: int = 0
    most: int = 0

    @property
    def room(self) -> Room:
        """The column's widths on a terminal."""
        width = self.width
        return Room(
            self.tight or width, self.least or width, width, self.wish or width, self.most or width
        )


DEFAULT_WIDTH, DEFAULT_MOST = 10, 40
# A pod's cgroup path has about 200 characters. A longer text shifts the rest of its own row: anyone
# may create a path of thousands, and padding to it would fill disks.
MAX_GROWN = 256


def _path(header: str) -> Column:
    return Column(header, 24, style="cyan", tight=8, least=16, wish=40, most=64)


def _address(header: str) -> Column:
    return Column(header, 15, tight=9, least=15, most=39)


COLUMNS = {
    "time": Column("TIME", 12, style="dim"),
    "owner": _path("CONTAINER/CGROUP"),
    "cgroup": _path("CGROUP"),
    "pid": Column("PID", 7, right=True),
    "uid": Column("UID", 5, right=True),
    "comm": Column("COMM", 15, tight=8),
    "saddr": _address("SOURCE"),
    "sport": Column("SPORT", 5, right=True),
    "daddr": _address("DESTINATION"),
    "peer": Column("PEER", 15, style="cyan", tight=9, least=12, wish=24, most=40),
    "dport": Column("PORT", 5, right=True),
    "family": Column("IP", 2, right=True),
    "netns": Column("NETNS", 10, right=True),
    "result": Column("RESULT", 12, most=15),
    "latency_us": Column("LATENCY", 7, right=True),
    "syn_retrans": Column("RETRANS", 7, right=True),
    "role": Column("ROLE", 6),
    "tcp_state": Column("STATE", 11, most=14),
    "rtt_us": Column("RTT", 7, right=True, style="bold"),
    "srtt_us": Column("SRTT", 7, right=True),
    "min_rtt_us": Column("MIN RTT", 7, right=True),
    "delivery_rate": Column("DELIVERED/S", 11, right=True),
    "busy_us": Column("BUSY", 7, right=True),
    "rwnd_limited_us": Column("RWND LIMITED", 12, right=True),
    "sndbuf_limited_us": Column("SNDBUF LIMITED", 14, right=True),
    "reordering": Column("REORDERING", 10, right=True),
    "dsack_dups": Column("DSACK DUPS", 10, right=True),
    "duration_us": Column("LASTED", 7, right=True),
    "ttfb_us": Column("TTFB", 7, right=True),
    "ttfb_min_us": Column("MIN TTFB", 8, right=True),
    "ttfb_max_us": Column("MAX TTFB", 8, right=True),
    "turns": Column("TURNS", 5, right=True),
    "handshake_us": Column("HANDSHAKE", 9, right=True),
    "tx_bytes": Column("SENT", 10, right=True),
    "rx_bytes": Column("RECEIVED", 10, right=True),
    "tx_segs": Column("TX SEGS", 7, right=True),
    "rx_segs": Column("RX SEGS", 7, right=True),
    "retrans": Column("RETRANS", 7, right=True),
    "closed_by": Column("CLOSED", 6),
    "close_cause": Column("CAUSE", 7),
    "cause": Column("CAUSE", 15, style="bold", tight=10),
    "attempt": Column("TRY", 3, right=True),
    "dropped_here": Column("DROPPED", 7),
    "dropped_packet": Column("PACKET", 7),
    "dropped_at": Column("DROPPED AT", 26, tight=12, least=20, most=48),
    "drop_reason": Column("REASON", 20, tight=12, most=32),
    "segs": Column("SEGS", 4, right=True),
    "seq": Column("SEQ", 10, right=True),
    "rto_us": Column("RTO", 7, right=True),
    "cwnd": Column("CWND", 5, right=True),
    "ssthresh": Column("SSTHRESH", 8, right=True),
    "in_flight": Column("FLIGHT", 6, right=True),
    "rst_reason": Column("RST REASON", 16, tight=10, most=28),
    "dev": Column("DEVICE", 8, most=15),
    "direction": Column("WAY", 7),
    "tcp_flags": Column("FLAGS", 5),
    "len": Column("LEN", 5, right=True),
    "payload": Column("PAYLOAD", 7, right=True),
    "reason": Column("REASON", 20, style="bold", tight=12, most=32),
    "reason_class": Column("CLASS", 13),
    "location": Column("LOCATION", 26, tight=12, least=20, most=48),
    "stage": Column("STAGE", 14, style="cyan", most=18),
    "p50_ns": Column("P50", 7, right=True),
    "p90_ns": Column("P90", 7, right=True),
    "p99_ns": Column("P99", 7, right=True),
    "max_ns": Column("MAX", 7, right=True),
    "share": Column("SHARE", 6, right=True, style="bold"),
    "selected": _path("SELECTED"),
    "count": Column("COUNT", 10, right=True, style="bold"),
    "state": Column("STATE", 11),
    "recv_q": Column("RECVQ", 6, right=True),
    "send_q": Column("SENDQ", 6, right=True),
    "unsent": Column("UNSENT", 6, right=True),
    "mss": Column("MSS", 5, right=True),
    "timer": Column("TIMER", 9),
    "timer_us": Column("LEFT", 7, right=True),
    "limited_by": Column("LIMIT", 6),
    "last_sent_us": Column("SENT", 7, right=True),
    "last_received_us": Column("RECEIVED", 8, right=True),
    "age_us": Column("AGE", 7, right=True),
    "queue": Column("QUEUE", 6, right=True),
    "backlog": Column("BACKLOG", 7, right=True),
    "queue_high": Column("HIGH", 6, right=True),
    "drops": Column("DROPS", 6, right=True),
    "used": Column("USED", 6, right=True, style="bold"),
    "left": Column("LEFT", 6, right=True),
    "first_port": Column("FIRST", 5, right=True),
    "last_port": Column("LAST", 5, right=True),
    "owner_source": Column("OWNER FROM", 10, style="dim"),
}


def column(field: str) -> Column:
    """Return how a field is shown."""
    width = max(DEFAULT_WIDTH, len(field))
    return COLUMNS.get(field) or Column(field.upper(), width, tight=8, most=DEFAULT_MOST)


class Fitted:
    """Columns on a terminal: those that fit its current line, and never more."""

    def __init__(self, fields: Sequence[str], order: Sequence[str], kept: int) -> None:
        """``fields`` are in display order, ``order`` has the most important ones first.

        The first ``kept`` fields of ``order`` are narrowed before one is left out.
        """
        self._rooms = [column(field).room for field in fields]
        ranks = {field: rank for rank, field in enumerate(order)}
        self._order = sorted(range(len(fields)), key=lambda index: ranks[fields[index]])
        self._kept = kept
        self._terminal = 0
        self.shown: list[int] = []  # indices of fields
        self.widths: list[int] = []
        self.follow()

    def follow(self) -> bool:
        """Follow the terminal's width; return whether it has changed."""
        width = terminal_width()
        if width == self._terminal:
            return False
        self._terminal = width
        gap = len(SEPARATOR)
        self.shown = choose(self._rooms, self._order, self._kept, gap, width)
        self.widths = share_out([self._rooms[index] for index in self.shown], gap, width)
        return True

    def evict_if_full(self, lines: Sequence[Sequence[str]]) -> None:
        """Do nothing: a text that is too wide is cut."""


class Grown:
    """Uncut columns: as wide as their widest text so far, up to MAX_GROWN."""

    def __init__(self, fields: Sequence[str]) -> None:
        """Begin with the common widths."""
        self.shown = list(range(len(fields)))
        self.widths = [column(field).width for field in fields]

    def follow(self) -> bool:
        """Return False: no terminal is involved."""
        return False

    def evict_if_full(self, lines: Sequence[Sequence[str]]) -> None:
        """Widen the columns for new lines."""
        for index, column_texts in enumerate(zip(*lines, strict=True)):
            width_of = len if has_single_cells("".join(column_texts)) else cells
            widest = max(map(width_of, column_texts))
            self.widths[index] = max(self.widths[index], min(widest, MAX_GROWN))


class Table(Renderer):
    """The renderer for ``-o table`` and ``-o wide``."""

    def __init__(
        self,
        schema: Schema | CountSchema,
        fields: list[str],
        *,
        terminal: bool,
        header: bool,
        first: Sequence[str] = (),
        then: Sequence[str] = (),
        whole: bool = False,
    ) -> None:
        """Show ``fields``, in this order; ``terminal``: in colour.

        On a terminal rows are fitted to its line, unless ``whole``: ``first`` are the fields that a
        narrow one keeps, ``then`` the next ones, the most important first.
        """
        self._schema = schema.only(sources_of(fields))
        self._fields = fields
        self.redraws = terminal
        self._header = header
        self._columns = [column(field) for field in fields]
        self._fitted = terminal and not whole
        self._owes_header = False  # before the first row
        self._paint: Callable[[str, str], str] = lambda text, _style: text
        first = [field for field in first if field in fields] or fields
        order = dict.fromkeys([*first, *(field for field in then if field in fields), *fields])
        self._asked_for = len(first) == len(fields)  # all of them
        self._layout = Fitted(fields, [*order], len(first)) if self._fitted else Grown(fields)
        self._is_plain = not terminal  # no colours, and nothing is cut
        if terminal:
            self._paint = _painter()

    @property
    def left_out(self) -> list[str]:
        """The requested fields that the terminal has no room for."""
        shown = self._layout.shown if self._asked_for else range(len(self._fields))
        return [field for index, field in enumerate(self._fields) if index not in shown]

    @property
    def shown(self) -> list[str]:
        """The fields that are shown."""
        return [self._fields[index] for index in self._layout.shown]

    def header(self) -> str:
        """Return the line of headers."""
        if not self._header:
            return ""
        texts = [each.header for each in self._columns]
        if self._fitted:  # the beginning of a word matters most
            for index, width in zip(self._layout.shown, self._layout.widths, strict=True):
                texts[index] = texts[index][:width]
        return self._line(texts, ["bold"] * len(texts))

    def begin(self) -> str:
        """Return "": the headers wait for the widths of the first rows."""
        self._owes_header = True
        return ""

    def finish(self) -> str:
        """Return the headers if there were no rows."""
        return self.header() if self._owes_header else ""

    def above(self, batch: list[Any]) -> str:
        """Return headers before the first rows, or if the terminal's width has changed."""
        if not batch or not (self._layout.follow() or self._owes_header):
            return ""
        self._owes_header = False
        self._layout.evict_if_full(self._texts(self._rows_of(batch)))
        return self.header()

    def rows(self, batch: list[Any]) -> str:
        """Return a line for each record."""
        rows = self._rows_of(batch)
        lines = self._texts(rows)
        self._layout.evict_if_full(lines)
        styles = [each.style for each in self._columns]
        if self._is_plain:
            return "".join(self._plain_lines(lines, styles))
        return "".join(
            self._line(line, self._styles(row, styles))
            for row, line in zip(rows, lines, strict=True)
        )

    def _rows_of(self, batch: list[Any]) -> list[dict[str, Any]]:
        return [with_owner(row) for row in self._schema.rows(batch)]

    def _texts(self, rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
        """Return the texts of each row, made column by column."""
        return list(zip(*(self._column(rows, field) for field in self._fields), strict=True))

    def _column(self, rows: list[dict[str, Any]], field: str) -> list[str]:
        if field == "time":
            offset = self._schema.clock.offset_ns
            return [local_time(row["ts_ns"], offset) for row in rows]
        return list(map(texts_of(field), [row[field] for row in rows]))

    def _styles(self, row: dict[str, Any], styles: list[str]) -> list[str]:
        return [
            _result_style(row["result"]) if field == "result" else style
            for field, style in zip(self._fields, styles, strict=True)
        ]

    def _plain_lines(self, lines: Sequence[Sequence[str]], styles: Sequence[str]) -> Iterator[str]:
        """Yield lines that are neither cut nor coloured."""
        widths = zip(self._columns, self._layout.widths, strict=True)
        template = SEPARATOR.join(f"%{'' if each.right else '-'}{width}s" for each, width in widths)
        for texts in lines:
            line = template % tuple(texts)
            yield line.rstrip() + "\n" if has_single_cells(line) else self._line(texts, styles)

    def _line(self, texts: Sequence[str], styles: Sequence[str]) -> str:
        padded = []
        for index, width in zip(self._layout.shown, self._layout.widths, strict=True):
            each, text = self._columns[index], texts[index]
            if self._fitted and self._fields[index] in QUANTITIES:
                text = short_number(text, width)
            padded.append(
                self._paint(fit(text, width, right=each.right, cut=self._fitted), styles[index])
            )
        return SEPARATOR.join(padded).rstrip() + "\n"

    def screen(self, batch: list[Any]) -> str:
        """Return rows in place of the last ones, as many as the terminal has lines for."""
        if not self.redraws:
            return self.rows(batch)
        self._layout.follow()
        self._owes_header = False
        rows = self.rows(batch)  # first: they may widen the columns
        return drawn_anew(self.header(), rows)

    def clear(self) -> str:
        """Return the sequence that clears a terminal."""
        return CLEAR if self.redraws else ""


def _result_style(result: str) -> str:
    return {"ok": "green", "aborted": "yellow"}.get(result, "red")


def _painter() -> Callable[[str, str], str]:
    """Return a function that colours as rich would here: not with NO_COLOR or a dumb terminal."""
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
