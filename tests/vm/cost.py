# SPDX-License-Identifier: BSD-2-Clause
"""What the programs cost in a guest, each kind of hook and transport beside the others, in one run.

A guest that is emulated is slow: the ratios tell something, the times don't.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")
COSTS = re.compile(r"(\w+): (\d+) runs, (\d+) ns each")
CONNECTIONS, BURSTS = 100, 5
ROUNDS = 3
PATIENCE_S = 120
# A command's way to a record for each event, and which of its programs count.
COMMANDS = {
    "connect": (("connect",), re.compile("client|server")),
    "rtt": (("rtt", "--slower", "0us"), re.compile("probe|state|ledger")),
}
WAYS = (("tp_btf", "ring"), ("raw_tp", "ring"), ("raw_tp", "perf"))


def make_connections() -> None:
    """Connect, say something, hear it, close; as often as CONNECTIONS says."""

    def answer(server: socket.socket) -> None:
        for _ in range(CONNECTIONS):
            with server.accept()[0] as sock:
                while data := sock.recv(64):
                    sock.send(data)

    with socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        for _ in range(CONNECTIONS):
            with socket.create_connection(server.getsockname()) as sock:
                for _ in range(BURSTS):
                    sock.send(b"x" * 64)
                    sock.recv(64)
        thread.join()


def cost_of(cgnet: Path, command: str, hook: str, transport: str) -> float | None:
    """Return the nanoseconds that the programs took for a connection; None if they don't run here."""
    words, counted = COMMANDS[command]
    process = subprocess.Popen(
        [cgnet, "-v", *words, "--hook", hook, "--transport", transport, "-o", "json"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    for line in process.stderr:
        if line.startswith("cgnet: tracing"):
            break
    else:
        return None if process.wait() else 0.0
    make_connections()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[1]
    found = [(int(runs), int(ns)) for name, runs, ns in COSTS.findall(said) if counted.search(name)]
    return sum(runs * ns for runs, ns in found) / CONNECTIONS


def measure(cgnet: Path) -> dict[str, dict[str, float | None]]:
    """Return the cost of each way, by command: the least of several rounds, in turn."""
    before = STATISTICS.read_text()
    STATISTICS.write_text("1")
    try:
        return {command: _measure(cgnet, command) for command in COMMANDS}
    finally:
        STATISTICS.write_text(before)


def _measure(cgnet: Path, command: str) -> dict[str, float | None]:
    found: dict[str, list[float]] = {f"{hook}, {transport}": [] for hook, transport in WAYS}
    for _ in range(ROUNDS):
        for hook, transport in WAYS:
            cost = cost_of(cgnet, command, hook, transport)
            found[f"{hook}, {transport}"] += [] if cost is None else [cost]
    return {way: min(costs, default=None) for way, costs in found.items()}


def ratio(costs: dict[str, Any], one: str, other: str) -> str:
    """Say how much the first costs of the second."""
    if not costs.get(one) or not costs.get(other):
        return "-"
    return f"{costs[one] / costs[other]:.2f}"


def ratios(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a guest's rows: kernel, cgroups, command, tp_btf / raw_tp, perf / ring."""
    return [
        (
            found["release"],
            found["layout"],
            command,
            ratio(costs, "tp_btf, ring", "raw_tp, ring"),
            ratio(costs, "raw_tp, perf", "raw_tp, ring"),
        )
        for command, costs in (found.get("costs") or {}).items()
    ]
