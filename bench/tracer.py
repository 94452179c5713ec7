# SPDX-License-Identifier: BSD-2-Clause
"""Shared parts of the measurements: the load, a tracer beside it, the kernel's statistics."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build/bench"
CGNET = ROOT / ".venv/bin/cgnet"
LOOP = BUILD / "loop"
OBJECTS = {  # their sources, and compiler options as in the Makefile
    "empty": ("empty",),
    "ledger.typed": ("ledger", "-mcpu=v3", "-DTYPED=1"),
    "ledger.raw": ("ledger", "-mcpu=v2", "-DTYPED=0"),
}
BPF_ENABLE_STATS, BPF_STATS_RUN_TIME = 32, 0  # linux/bpf.h
SYS_BPF = {"x86_64": 321, "aarch64": 280}
PATIENCE_S = 30.0


class Load(NamedTuple):
    """The result of the load."""

    connections: int
    seconds: float

    @property
    def rate(self) -> float:
        """Connections per second."""
        return self.connections / self.seconds


def build(bpf_clang: str) -> None:
    """Compile the load and the empty programs."""
    BUILD.mkdir(parents=True, exist_ok=True)
    compiler = bpf_clang.split(maxsplit=1)[0]
    source = ROOT / "bench/loop.c"
    subprocess.run([compiler, "-O2", "-Wall", "-o", LOOP, source], check=True)
    subprocess.run(
        [compiler, "-O2", "-Wall", "-o", BUILD / "sockets", ROOT / "bench/sockets.c"], check=True
    )
    for name, (stem, *more) in OBJECTS.items():
        target = str(BUILD / f"{name}.bpf.o")
        command = [*bpf_clang.split(), *more, "-Ibpf", "-c", f"bench/{stem}.bpf.c", "-o", target]
        subprocess.run(command, check=True, cwd=ROOT)


def load(seconds: float, loops: int, cgroup: Path | None = None, *, keep: bool = False) -> Load:
    """Run client loops, in ``cgroup`` if given; ``keep``: each on one connection."""
    enter = f"echo $$ >{cgroup}/cgroup.procs && " if cgroup else ""
    command = ["sh", "-c", f"{enter}exec {LOOP} {seconds} {loops}{' keep' if keep else ''}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    connections, took = done.stdout.split()
    return Load(int(connections), float(took))


class Running(NamedTuple):
    """A tracer beside the load."""

    process: subprocess.Popen[str]
    output: Path
    start_s: float

    def resident_mb(self) -> float:
        """Return the peak of the resident memory, in MB (10⁶ bytes)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise RuntimeError("the tracer is gone")

    def summary(self) -> dict[str, int]:
        """Return cgnet's last record, the summary, once it has ended."""
        with self.output.open() as lines:
            for line in lines:
                last = line
        found: dict[str, int] = json.loads(last)
        return found


@contextmanager
def cgnet(*arguments: str, command: str = "connect") -> Iterator[Running]:
    """Run ``cgnet connect -o json``, or another command, into a file while the body runs."""
    output = BUILD / "records.jsonl"
    started = time.monotonic()
    with output.open("w") as file:
        process = subprocess.Popen(
            [CGNET, command, "-o", "json", *arguments],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.startswith("cgnet: tracing"):
                break
        else:
            raise RuntimeError("cgnet did not start")
        yield Running(process, output, time.monotonic() - started)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@contextmanager
def bpf_stats() -> Iterator[None]:
    """Have the kernel measure programs until the descriptor closes; sysctls aren't changed."""
    attributes = (ctypes.c_uint32 * 1)(BPF_STATS_RUN_TIME)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_BPF[os.uname().machine], BPF_ENABLE_STATS, attributes, 4)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "BPF_ENABLE_STATS")
    try:
        yield
    finally:
        os.close(fd)


def require_root() -> None:
    """Exit with a message unless this is root."""
    if os.geteuid() != 0:
        sys.exit("bench: needs root: run 'make bench'")
