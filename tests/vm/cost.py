# SPDX-License-Identifier: BSD-2-Clause
"""What the programs cost in a guest: each way beside the others, and beside other tools, in one run.

A guest that is emulated is slow: the ratios tell something, the times don't.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import measure
import others

from cgnet.kernel import probes
from cgnet.loader import Object

if TYPE_CHECKING:
    from collections.abc import Callable

STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")
COSTS = re.compile(r"(\w+): (\d+) runs, (\d+) ns each")
CONNECTIONS, BURSTS = 100, 5
ROUNDS = 2
PATIENCE_S = 120
EMPTY = "probe_raw_tp"  # of probe.bpf.c, on a tracepoint that connections come to
EVERY = re.compile("")
AT_FUNCTIONS = re.compile("_(fentry|fexit|kprobe|kretprobe)$")
RAW = ("--hook", "raw_tp", "--transport", "ring")
HOOKS = {"tp_btf": ("--hook", "tp_btf"), "raw_tp": RAW}
PERF = {"perf": ("--hook", "raw_tp", "--transport", "perf")}
BY_FUNCTION = {"fentry": "fexit", "kprobe": "kprobe"}  # as --sync-errors-by calls them
FUNCTION_WAYS = ("fentry", "kprobe.multi", "kprobe")


class Compared(NamedTuple):
    """Ways to do one thing."""

    words: tuple[str, ...]  # of cgnet
    ways: dict[str, tuple[str, ...]]  # and what each adds to them
    counted: re.Pattern[str] = EVERY  # names of programs
    others: tuple[tuple[str, str], ...] = ()  # whose tool does something like it, and which


COMPARED = {
    "connect": Compared(
        ("connect",),
        HOOKS | PERF,
        others=(("libbpf-tools", "tcpconnect"), ("bpftrace", "tcpconnect.bt")),
    ),
    "connect --sync-errors auto": Compared(
        ("connect", *RAW),
        {way: ("--sync-errors-by", name) for way, name in BY_FUNCTION.items()},
        AT_FUNCTIONS,
    ),
    "rtt": Compared(("rtt",), HOOKS, others=(("libbpf-tools", "tcprtt"),)),
    "rtt --slower 0us": Compared(("rtt", "--slower", "0us"), HOOKS | PERF),
    "trace --functions": Compared(
        ("trace",), {way: ("--functions", way) for way in FUNCTION_WAYS}, AT_FUNCTIONS
    ),
}


def make_connections(count: int = CONNECTIONS) -> None:
    """Connect, say something, hear it, close; as often as asked."""

    def answer(server: socket.socket) -> None:
        for _ in range(count):
            with server.accept()[0] as sock:
                while data := sock.recv(64):
                    sock.send(data)

    with socket.create_server(("127.0.0.1", 0), backlog=count) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        for _ in range(count):
            with socket.create_connection(server.getsockname()) as sock:
                for _ in range(BURSTS):
                    sock.send(b"x" * 64)
                    sock.recv(64)
        thread.join()


def empty_run() -> float:
    """Return the nanoseconds that an empty program seems to take: the statistics' own time."""
    with Object(probes.OBJECT) as obj:
        obj.keep({EMPTY}, set(probes.MAPS))
        obj.load()
        program = next(each for each in obj.programs if each.name == EMPTY)
        obj.attach(program)
        make_connections()  # caches are warm
        spent, _ = measure.watch([program], make_connections)
    return spent[EMPTY].each


def ours(cgnet: Path, words: tuple[str, ...], counted: re.Pattern[str], empty: float) -> float:
    """Return the nanoseconds that cgnet's programs took for a connection.

    Raises others.OtherError if they don't run here.
    """
    process = subprocess.Popen(
        [cgnet, "-v", *words, "-o", "json"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    for line in process.stderr:
        if line.startswith("cgnet: tracing"):
            break
    else:
        raise others.OtherError(f"ended with {process.wait()}")
    make_connections()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[1]
    found = [(int(runs), int(ns)) for name, runs, ns in COSTS.findall(said) if counted.search(name)]
    if not found:
        raise others.OtherError("none of its programs ran")
    return sum(runs * (ns - empty) for runs, ns in found) / CONNECTIONS


def theirs(tool: str, empty: float) -> float:
    """Return the same of another tool. Raises others.OtherError."""
    with others.running(tool, make_connections) as programs:
        spent, _ = measure.watch(programs, make_connections)
    if not any(each.runs for each in spent.values()):
        raise others.OtherError(f"{tool}'s programs ran, but no more under the load")
    return sum(each.ns - each.runs * empty for each in spent.values()) / CONNECTIONS


def measure_all(cgnet: Path) -> dict[str, dict[str, float | str]]:
    """Return the cost of each way, by what is compared; a text if it doesn't run here."""
    before = STATISTICS.read_text()
    STATISTICS.write_text("1")
    try:
        empty = empty_run()
        return {name: _compare(cgnet, compared, empty) for name, compared in COMPARED.items()}
    finally:
        STATISTICS.write_text(before)


def _compare(cgnet: Path, compared: Compared, empty: float) -> dict[str, float | str]:
    """The least of several rounds, in turn."""
    found: dict[str, float | str] = {}

    def add(way: str, cost: Callable[[], float]) -> None:
        if isinstance(found.get(way), str):  # it won't run the next time, either
            return
        try:
            found[way] = min(float(found.get(way, "inf")), cost())
        except others.OtherError as error:
            found[way] = str(error)

    for _ in range(ROUNDS):
        for way, more in compared.ways.items():
            words = (*compared.words, *more)
            add(way, lambda words=words: ours(cgnet, words, compared.counted, empty))  # type: ignore[misc]
        for whose, tool in compared.others:
            add(whose, lambda tool=tool: theirs(tool, empty))  # type: ignore[misc]
    return found
