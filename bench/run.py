# SPDX-License-Identifier: BSD-2-Clause
"""``make bench``: what cgnet costs, on this host, against what the project promises.

Pairs run in turn and the median of their ratios is shown, so that a host that warms up or is shared
disturbs both alike. Nothing here is a test: a figure is reported, reached or not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import time
from functools import partial

import bulk
import drop_cost
import filter_cost
import kernel_cost
import ledger_cost
import listing_cost
import retrans_cost
import rivals
import session_cost
import socket_cost
import start_cost
import sums_memory
import trace_cost
import tracer
import user_side
from kept import Kept, ratio
from rich.console import Console
from rich.table import Table

PAIRS = 11
SECONDS = 4.0
STARTS = 15
RIVAL_PAIRS = 5
# Commands, loops, and records of a connection; 0: they are counted in the kernel.
LOSSES = (("connect", 1, 1), ("connect", 2, 1), ("connlat", 1, 1), ("life", 1, 2), ("rtt", 1, 0))


class Report:
    """Rows of measurements."""

    def __init__(self) -> None:
        self.table = Table("what", "measured", "promised", "", title="cgnet connect")
        self.console = Console()

    def add(
        self, what: str, measured: str, promised: str = "", *, reached: bool | None = None
    ) -> None:
        """Add a row, and print it at once: a run takes minutes."""
        verdict = "" if reached is None else "reached" if reached else "missed"
        self.console.print(f"{what}: {measured}", highlight=False)
        self.table.add_row(what, measured, promised, verdict)


def loss(report: Report, seconds: float) -> None:
    for command, loops, rows in LOSSES:
        with tracer.cgnet(command=command) as running:
            done = tracer.load(seconds, loops)
        summary = running.summary()
        lost = summary["lost"]
        other = summary["records"] - done.connections * rows if rows else 0
        report.add(
            f"{command}, loss, {loops} loop(s), {seconds:.0f} s",
            f"{lost} of {done.connections} at {done.rate:,.0f}/s ({other:+} records of others)",
            "0",
            reached=lost == 0 and other >= 0,
        )


def rate_ratio(beside: rivals.Beside, loops: int, pairs: int) -> Kept:
    """Return the ratio of the connection rate with a tracer to that without."""
    return ratio(beside, lambda: tracer.load(SECONDS, loops).rate, pairs)


def rates(report: Report, pairs: int) -> None:
    for loops, promised in ((1, 0.95), (2, None)):
        kept = rate_ratio(tracer.cgnet, loops, pairs)
        report.add(
            f"connection rate with / without, {loops} loop(s)",
            f"{kept}, of {kept.without:,.0f}/s",
            f">= {promised}" if promised else "reported",
            reached=kept.median >= promised if promised else None,
        )
    kept = rate_ratio(lambda: tracer.cgnet("--count", "-i", "1"), 1, pairs)
    report.add(
        "connection rate with --count -i 1 / without, 1 loop",
        str(kept),
        ">= 0.97",
        reached=kept.median >= 0.97,
    )


def beside_rivals(report: Report) -> None:
    """Measure the kernel cost and the rate with rivals, and with ``life``."""
    ours = partial(tracer.cgnet, command="life")
    compared: list[tuple[str, rivals.Beside]] = [("cgnet life", ours), *rivals.installed()]
    for name, beside in compared:
        try:
            cost = rivals.cost(beside, "empty_raw", lambda: tracer.load(SECONDS, 1).connections)
            kept = rate_ratio(beside, 1, RIVAL_PAIRS)
        except rivals.RivalError as error:
            report.add(f"an ordinary connection with {name}", str(error), "rival")
        else:
            report.add(
                f"an ordinary connection with {name}, 1 loop",
                f"rate {kept.median:.3f} of without; {cost.ns:.0f} ns net, in {cost.runs:.0f} runs",
                "beside it" if beside is ours else "rival",
            )


def starts(report: Report) -> None:
    times = []
    for _ in range(STARTS):
        begin = time.monotonic()
        subprocess.run([tracer.CGNET, "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.monotonic() - begin)
    with tracer.cgnet() as running:
        tracer.load(SECONDS, 1)
        resident = running.resident_mb()
    help_ms = statistics.median(times) * 1000
    report.add("cgnet --help", f"{help_ms:.0f} ms", "<= 120 ms", reached=help_ms <= 120)
    report.add(
        "resident, peak under one loop", f"{resident:.0f} MB", "<= 60 MB", reached=resident <= 60
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bpf-clang", default="clang -g -O2 -target bpf -Ibpf")
    parser.add_argument("--loss-seconds", type=float, default=30)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    args = parser.parse_args()
    tracer.require_root()
    bulk.require_iperf3()
    tracer.build(args.bpf_clang)
    report = Report()
    starts(report)
    start_cost.measure(report.add)
    kernel_cost.measure(report.add)
    filter_cost.measure(report.add)
    ledger_cost.measure(report.add)
    drop_cost.measure(report.add)
    retrans_cost.measure(report.add)
    user_side.measure(report.add)
    socket_cost.measure(report.add)
    listing_cost.measure(report.add)
    trace_cost.measure(report.add)
    session_cost.measure(report.add)
    sums_memory.measure(report.add)
    rates(report, args.pairs)
    beside_rivals(report)
    loss(report, args.loss_seconds)
    report.console.print(report.table)
    rivals.print_known(report.console)
    shutil.rmtree(tracer.BUILD, ignore_errors=True)


if __name__ == "__main__":
    os.environ.pop("NO_COLOR", None)
    main()
