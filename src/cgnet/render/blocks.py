# SPDX-License-Identifier: BSD-2-Clause
"""Packets as blocks of lines, for people: a line for each stage, with the slowest marked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from cgnet.render import Renderer, with_owner
from cgnet.render.layout import cells, filled, shortened, terminal_width
from cgnet.render.text import duration_ns, local_time, safe

if TYPE_CHECKING:
    from cgnet.records.schema import Schema

SLOWEST, OTHER = "*", " "
MIN_PLACE = 8  # cells
NOTES = {
    "app_read": "waiting for the application",
    "in_order": "waiting for data before it",
    "nagle": "waiting for an acknowledgement",
    "window": "waiting for a window",
}


class Blocks(Renderer):
    """The renderer of packets for ``-o table`` and ``-o wide``."""

    def __init__(self, schema: Schema, *, fitted: bool = False) -> None:
        """Show records of ``schema``; ``fitted``: no line is longer than the terminal's."""
        self._schema = schema
        self._fitted = fitted

    def rows(self, batch: list[Any]) -> str:
        """Return a block for each record."""
        return "".join(self._block(with_owner(self._schema.row(raw))) for raw in batch)

    def _block(self, row: dict[str, Any]) -> str:
        slowest = max(row["stages"], key=lambda stage: stage["delta_ns"], default=None)
        width = terminal_width() if self._fitted else sys.maxsize
        lines = filled(self._head(row), width, "  ")
        for stage in row["stages"]:
            lines.append(self._stage(stage, width, slowest=stage is slowest))
        lines.append(shortened(f"  {self._end(row)}", width))
        return "\n".join([*lines, "", ""])

    def _head(self, row: dict[str, Any]) -> list[str]:
        """Return the pieces of a packet's first line; a line break never splits a piece."""
        again = "again" if row["retransmitted"] else ""
        if row["retrans_of"]:
            again += f", after #{row['retrans_of']}"
        if row["retrans_after_ns"]:
            again += f", {duration_ns(row['retrans_after_ns'])} later"
        answer = ""
        if row["answer_after_ns"]:
            answer = f"answer after {duration_ns(row['answer_after_ns'])}"
        pieces = [
            f"{local_time(row['ts_ns'], self._schema.clock.offset_ns)} #{row['packet']}",
            safe(row["owner"] or "-"),
            f"{row['saddr']}:{row['sport']}",
            f"> {row['daddr']}:{row['dport']}",
            *([f"peer {safe(row['peer'] or '-')}"] if "peer" in row else []),
            f"{row['direction']} [{row['tcp_flags']}]",
            f"seq {row['seq']} ack {row['ack']} payload {row['payload']}",
        ]
        return [*pieces, *(piece for piece in (again, answer) if piece)]

    @staticmethod
    def _stage(stage: dict[str, Any], width: int, *, slowest: bool) -> str:
        where = stage["container"] or (f"netns {stage['netns']}" if stage["netns"] else "")
        place = "@".join(safe(each) for each in (stage["dev"], where) if each)
        note = stage["verdict"] or NOTES.get(stage["at"], "")
        mark = SLOWEST if slowest else OTHER
        delta = f"+{duration_ns(stage['delta_ns'])}"
        before = f"{mark} {delta:>9} {stage['at']:14} cpu {stage['cpu']:<3} "
        place = shortened(place, max(MIN_PLACE, width - len(before) - 2 - cells(note)))
        return shortened(f"{before}{place}  {note}".rstrip(), width)

    @staticmethod
    def _end(row: dict[str, Any]) -> str:
        end = row["end"]
        if end == "dropped":
            end += (
                f": {safe(row['reason'] or 'no reason is told')} at {safe(row['location'] or '?')}"
            )
        elif end == "timeout":
            waits = any(stage["at"] == "tcp_receive" for stage in row["stages"])
            end = "still waiting for the application" if waits else "nothing more was heard of it"
            if waits and row["out_of_order"]:
                end = "still waiting for data before it, or for the application"
        return f"total {duration_ns(row['total_ns'])}, {end}"
