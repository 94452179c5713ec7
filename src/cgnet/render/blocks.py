# SPDX-License-Identifier: BSD-2-Clause
"""Packets as blocks of lines, for people: a line for each stage, the slowest marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.render import with_owner
from cgnet.render.text import duration_ns, local_time, safe

if TYPE_CHECKING:
    from cgnet.events import Schema

SLOWEST, OTHER = "*", " "
NOTES = {"app_read": "waiting for the application"}


class Blocks:
    """The renderer of packets for ``-o table`` and ``-o wide``."""

    def __init__(self, schema: Schema) -> None:
        """Show the records of ``schema``."""
        self._schema = schema

    def header(self) -> str:
        """Each block has its own."""
        return ""

    def rows(self, batch: list[Any]) -> str:
        """Return a block for each record."""
        return "".join(self._block(with_owner(self._schema.row(raw))) for raw in batch)

    def _block(self, row: dict[str, Any]) -> str:
        slowest = max(row["stages"], key=lambda stage: stage["delta_ns"], default=None)
        lines = [self._head(row)]
        lines += [self._stage(stage, slowest=stage is slowest) for stage in row["stages"]]
        lines.append(f"  {self._end(row)}")
        return "\n".join([*lines, "", ""])

    def _head(self, row: dict[str, Any]) -> str:
        when = local_time(row["ts_ns"], self._schema.clock.offset_ns)
        again = " again" if row["retransmitted"] else ""
        if row["retrans_of"]:
            again += f", after #{row['retrans_of']}"
        if row["retrans_after_ns"]:
            again += f", {duration_ns(row['retrans_after_ns'])} later"
        return (
            f"{when} #{row['packet']} {safe(row['owner'] or '-')} "
            f"{row['saddr']}:{row['sport']} > {row['daddr']}:{row['dport']} {row['direction']} "
            f"[{row['tcp_flags']}] seq {row['seq']} ack {row['ack']} payload {row['payload']}{again}"
        )

    @staticmethod
    def _stage(stage: dict[str, Any], *, slowest: bool) -> str:
        where = stage["container"] or (f"netns {stage['netns']}" if stage["netns"] else "")
        place = "@".join(safe(each) for each in (stage["dev"], where) if each)
        note = stage["verdict"] or NOTES.get(stage["at"], "")
        mark = SLOWEST if slowest else OTHER
        delta = f"+{duration_ns(stage['delta_ns'])}"
        return f"{mark} {delta:>10} {stage['at']:14} cpu {stage['cpu']:<3} {place}  {note}".rstrip()

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
        return f"total {duration_ns(row['total_ns'])}, {end}"

    def clear(self) -> str:
        """Nothing is taken back."""
        return ""

    def notice(self, row: dict[str, Any]) -> str:  # noqa: ARG002
        """Told on stderr instead."""
        return ""
