# SPDX-License-Identifier: BSD-2-Clause
"""The output of ``cgnet why``: findings, or the verdict without any, and the summary."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from cgnet.counting.sums import OTHER
from cgnet.findings.finding import Finding, Harm, who
from cgnet.findings.rules.base import plural
from cgnet.records.schema import SCHEMA, CountSchema
from cgnet.render import make_renderer
from cgnet.render.findings import finding_text
from cgnet.render.layout import terminal_lines, terminal_width
from cgnet.render.text import duration, escape
from cgnet.run import output
from cgnet.run.output import STALLED, Patience, Writer, cannot_write, tell

if TYPE_CHECKING:
    from cgnet.commands.why.child import Child
    from cgnet.counting.sums import OwnerSums
    from cgnet.findings.watched import Watched
    from cgnet.records.schema import Clock
    from cgnet.run.command import Options
    from cgnet.run.reader import Stop
    from cgnet.run.signals import Signals

STDOUT = 1
HOST = {"container": None, "cgroup": None}
FIELDS = tuple(
    Finding("", "error", "certain", Harm.NONE, HOST, {}, None, None, 0, 0, "", {}, "", "").row(0)
)
FEWEST = 3  # findings that are shown on any terminal
CLEAR_LINE = "\r\x1b[K"
NOTHING = "nothing seen to judge: no attempt, no segment, no open connection of the selected owners"
FINE = "nothing wrong was seen: {seen}; look at the application"
NOT_OF_PEERS = "nothing wrong was seen with what --peer selects; with all: {seen}"


def harm_text(row: dict[str, Any], harm: Harm) -> str:
    """Return what connections suffered."""
    count, seconds = row["count"], row["seconds"]
    connections = plural(count, "connection")
    lasted = f", {duration(round(seconds * 1e6))}" if seconds else ""
    if harm is Harm.FAILED:
        return f"{connections} failed{lasted}"
    if harm is Harm.STALLED:
        return f"{connections} stalled{lasted}"
    if harm is Harm.SLOWED:
        return f"{connections} slowed{lasted}"
    return connections


class Report:
    """Writes to standard output; progress goes to standard error."""

    def __init__(
        self, options: Options, clock: Clock, stop: Stop, *, quiet: bool, by_peer: bool
    ) -> None:
        """Choose the format; ``quiet``: show no progress. Raises UsageError for unknown fields.

        ``by_peer``: findings are selected by either end, and what was seen isn't.
        """
        self._options, self._clock = options, clock
        self._fine = NOT_OF_PEERS if by_peer else FINE
        self._schema = CountSchema("finding", clock, FIELDS)
        self.fd = STDOUT
        self._out = Writer(STDOUT, Patience(stop.reached, lambda: stop.insisted))
        self._terminal = os.isatty(STDOUT)
        self.for_people = options.output in ("table", "wide") and not options.fields
        self._renderer = make_renderer(
            options.output, self._schema, options.fields or list(self._schema.fields),
            {}, terminal=self._terminal, header=not options.no_header,
        )  # fmt: skip
        self._progress = sys.stderr.isatty() and self.for_people and not quiet
        self._told = ""
        self.records = 0

    def close(self) -> None:
        """Close the writer."""
        self._out.close()

    def raise_problem(self) -> None:
        """Raise CgnetError if writing failed, unless the output only stalled."""
        if self._out.problem not in ("", STALLED):
            raise cannot_write(self._out.problem)

    def _write(self, text: str) -> None:
        self._out.write(output.encode(text))

    def progress(self, text: str | None) -> None:
        """Show a line that replaces the last one, on a terminal; None removes it."""
        if not self._progress:
            return
        width = terminal_width() - 1
        line = escape(text or "")[:width]
        os.write(sys.stderr.fileno(), output.encode(f"{CLEAR_LINE}{line}"))

    def _record(self, kind: str, **fields: Any) -> dict[str, Any]:
        ts_ns = time.monotonic_ns()
        return {
            "schema": SCHEMA, "type": kind, "time": self._clock.text(ts_ns), "ts_ns": ts_ns, **fields,
        }  # fmt: skip

    def findings(self, found: list[Finding], watched: Watched) -> None:
        """Write the findings, or what is fine."""
        limit = self._options.limit
        found = found[:limit]
        rows = [self._record("finding", **each.row(rank)) for rank, each in enumerate(found, 1)]
        self.records = len(rows)
        if not self.for_people:
            self._write(self._renderer.begin())
            self._write(self._renderer.rows(rows) if rows else "")
            self._write(self._renderer.finish())
            return
        whole = self._options.output == "wide"
        texts = [
            finding_text(row, who(row), harm_text(row, each.harm), terminal_width(), whole=whole)
            for row, each in zip(rows, found, strict=True)
        ]
        shown = len(texts)
        if self._terminal and not whole:
            shown = _on_screen(texts)
        self._write("".join(texts[:shown]))
        if left := len(texts) - shown:
            self._write(f"and {plural(left, 'finding')} that harm less: -o wide shows all\n")
        if not rows:
            self._write(f"{verdict(watched, self._fine)}\n")

    def summary(
        self,
        found: list[Finding],
        watched: Watched,
        signals: Signals,
        *,
        missed: int,
        sums: dict[int, OwnerSums] | None,
        child: Child | None,
    ) -> None:
        """Write the summary, or print it on standard error. ``sums`` are by owner, if they are known."""
        seen = seen_of(watched)
        lost = {name: number for name, number in watched.lost.items() if number}
        fields: dict[str, Any] = {
            "findings": len(found),
            "lost": sum(lost.values()),
            "lost_by_signal": lost,
            "missed": missed,
            **owners_of(sums),
            "unknown_owners": sum(each.unknown_owners for each in signals.all),
            "verdict": None if found else verdict(watched, self._fine),
            **seen,
            **signals.runs,
        }
        if child:
            fields["exit_status"] = child.status
        if not self.for_people:
            notice = self._renderer.notice(self._record("summary", **fields))
            if notice:
                self._write(notice)
                return
        told = ", ".join(f"{number} {name}" for name, number in seen.items() if name != "seconds")
        findings = plural(len(found), "finding")
        tell(f"{findings} in {seen['seconds']:g} s: {told}, {fields['lost']} lost")
        if child:
            tell(f"the command {child.ending}")


def _on_screen(texts: list[str]) -> int:
    """Return how many findings fit on the terminal; at least the first three."""
    room, shown = terminal_lines(), 0
    for text in texts:
        room -= text.count("\n")
        if room < 0 and shown >= FEWEST:
            break
        shown += 1
    return shown


def owners_of(sums: dict[int, OwnerSums] | None) -> dict[str, Any]:
    """Return how many owners did anything, and what those did that have no sums of their own."""
    if sums is None:
        return {"owners": None, "other": None}
    beyond = sums.get(OTHER)
    other = beyond and {
        "established": beyond.established, "failed": beyond.failures.total(),
        "accepts": beyond.accepts, "ends": beyond.closes.total(), "resends": beyond.resends.total(),
        "drops": beyond.drops.total(),
    }  # fmt: skip
    return {"owners": len(sums) - bool(beyond), "other": other}


def seen_of(watched: Watched) -> dict[str, Any]:
    """Return how much there was to judge, of what is selected."""
    attempts = [each for each in watched.attempts if watched.selects(each.row)]
    failed = [each for each in attempts if each.row["result"] != "ok"]
    return {
        "seconds": round(watched.seconds, 1),
        "attempts": sum(each.count for each in attempts),
        "failed": sum(each.count for each in failed),
        "resends": sum(each.sums["segs"] for each in watched.resends),
        "drops": sum(each.count for each in watched.drops if watched.selects_packet(each.row)),
        "ends": sum(each.count for each in watched.ends),
        "open": watched.open,
    }


def verdict(watched: Watched, fine: str = FINE) -> str:
    """Return what there is to say without a finding; ``fine`` is the template if there was traffic."""
    seen = seen_of(watched)
    if not any(seen[name] for name in ("attempts", "resends", "drops", "ends", "open")):
        return NOTHING
    told = [
        f"{seen['attempts']} attempts, {seen['failed']} failed",
        f"{seen['drops']} drops" if seen["drops"] else "no drops",
        f"{seen['resends']} retransmissions" if seen["resends"] else "no retransmissions",
    ]
    rtts = [each.row["srtt_us"] for each in watched.ends if each.row.get("srtt_us")]
    if rtts:
        told.append(f"RTT {duration(sorted(rtts)[len(rtts) // 2])}")
    if all(each["recv_q"] == 0 for each in watched.listeners):
        told.append("accept queues empty")
    return fine.format(seen=", ".join(told))
