# SPDX-License-Identifier: BSD-2-Clause
"""The cost of the ledger of all sockets: of lookups, learning, and finding open sockets."""

from __future__ import annotations

import statistics
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import tracer

from cgnet.filters.selection import Filters
from cgnet.kernel.variants import HOOK, SOCKETS, TRANSPORT
from cgnet.loader import Object
from cgnet.owners import cgroups
from cgnet.owners.open_sockets import find, seed_sockets
from cgnet.records._layouts import HEAD
from cgnet.run.command import Command
from cgnet.run.launch import Launch, object_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RUNS, SECONDS = 5, 2.0
RING_BYTES = 1 << 16
PROMISED_ASK_NS, PROMISED_LEARN_NS = 80, 60
SEEDS = {10_000: 300, 100_000: 3000}  # sockets, milliseconds
SLAB = "Slab:"


class Ledger(Command):
    """The programs of ledger.bpf.c."""

    object = "ledger"
    jobs = SOCKETS
    layouts = (HEAD,)


class Cost(NamedTuple):
    """Nanoseconds, net of empty programs."""

    ask: float
    learn: float


def _each(stats: dict[str, tuple[int, int]], name: str) -> float:
    time_ns, runs = stats[name]
    return time_ns / max(runs, 1)


def costs(hook: str) -> Cost:
    """Measure under one loop that writes and reads on one connection."""
    kind = "typed" if hook == "tp_btf" else "raw"
    launch = Launch(Ledger(), Filters(), RING_BYTES)
    launch.folder = tracer.BUILD
    with Object(tracer.BUILD / "empty.bpf.o") as idle:  # the first on a hook pays for cold caches
        idle.keep({f"read_first_{kind}"}, set())
        idle.load()
        idle.attach(next(each for each in idle.programs if each.name == f"read_first_{kind}"))
        return _measured(launch, hook)


def _measured(launch: Launch, hook: str) -> Cost:
    with launch.start(None, hook) as obj, tracer.bpf_stats():
        programs = obj.attached()
        before = {each.name: each.stats() for each in programs}
        tracer.load(SECONDS, 1, keep=True)
        spent = {
            each.name: (
                each.stats().run_time_ns - before[each.name].run_time_ns,
                each.stats().run_count - before[each.name].run_count,
            )
            for each in programs
        }
    return Cost(
        _each(spent, "lookup") - _each(spent, "last_probe"),
        _each(spent, "ledger_read") - _each(spent, "last_read"),
    )


@contextmanager
def open_sockets(count: int) -> Iterator[None]:
    """Keep ``count`` sockets open while the body runs."""
    command = [str(tracer.BUILD / "sockets"), str(count)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        if process.stdout.readline() != "open\n":
            raise RuntimeError("the sockets could not be opened")
        yield
        process.stdin.close()


def _slab_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(SLAB):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo tells nothing")


def seeding(hook: str) -> tuple[float, float]:
    """Return the ms that it takes to find open sockets, and the bytes of kernel memory."""
    filters = Filters()
    (kind,) = HOOK.only(hook).variants
    with Object(object_path("ledger", kind, tracer.BUILD)) as obj:
        obj.keep({"ledger_seed", "ledger_gone"}, set(TRANSPORT.variants[0].unused_maps))
        config = (cgroups.config(filters.hierarchies), filters.config())
        obj.set_constants({each.layout.name: each.pack() for each in config})
        obj.load()
        slab, begin = _slab_bytes(), time.monotonic()
        if hook == "tp_btf":
            seed = next(each for each in obj.programs if each.name == "ledger_seed")
            obj.iterate(seed)
        else:
            seed_sockets(obj.map("seeds"), find(), filters)
        return (time.monotonic() - begin) * 1000, _slab_bytes() - slab


def measure(add: Callable[..., None]) -> None:
    """Measure both hooks."""
    for hook in ("tp_btf", "raw_tp"):
        found = [costs(hook) for _ in range(RUNS)]
        promised = hook == "tp_btf"
        for name, values, most in (
            ("owner asked for, tcp_probe", [each.ask for each in found], PROMISED_ASK_NS),
            ("learning, each read", [each.learn for each in found], PROMISED_LEARN_NS),
        ):
            middle = statistics.median(values)
            add(
                f"{name}, {hook}",
                f"{middle:.0f} ns net",
                f"<= {most} ns" if promised else "beside it",
                reached=middle <= most if promised else None,
            )
    for count, most in SEEDS.items():
        with open_sockets(count):
            for hook in ("tp_btf", "raw_tp"):
                took, grown = seeding(hook)
                add(
                    f"{count:,} sockets found at the start, {hook}",
                    f"{took:.0f} ms, {grown / count:.0f} bytes a socket",
                    f"<= {most} ms",
                    reached=took <= most,
                )
