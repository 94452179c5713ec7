# SPDX-License-Identifier: BSD-2-Clause
"""What this host lets cgnet do, found by trying, never by a version number."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cgnet.errors import NotPermittedError, UnsupportedError

KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")
# linux/capability.h
CAP_SYS_ADMIN, CAP_SYS_NICE, CAP_PERFMON, CAP_BPF = 21, 23, 38, 39


class Hook(NamedTuple):
    """One way to run a body: how its sections begin, and the maps that only other ways use."""

    name: str
    unused_maps: frozenset[str]


# The best first.
HOOKS = (Hook("tp_btf", frozenset()), Hook("raw_tp", frozenset({"ledger_slots"})))


def hooks(forced: str | None) -> tuple[Hook, ...]:
    """Return the hooks to try, in order; only ``forced`` if it is given."""
    return tuple(hook for hook in HOOKS if forced in (None, hook.name))


def effective_capabilities() -> frozenset[int]:
    """Return the numbers of this process's effective capabilities."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
            return frozenset(number for number in range(64) if mask >> number & 1)
    return frozenset()


def require_capabilities() -> None:
    """Raise NotPermittedError unless tracing programs may be loaded.

    CAP_BPF and CAP_PERFMON came with Linux kernel commit 2c78ee898d8f "bpf: Implement CAP_BPF" (in
    v5.8); before, and instead of both, it is CAP_SYS_ADMIN.
    """
    have = effective_capabilities()
    if CAP_SYS_ADMIN in have:
        return
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    if last < CAP_BPF:
        raise NotPermittedError("needs CAP_SYS_ADMIN on this kernel: run it as root (sudo cgnet …)")
    missing = [
        name
        for name, number in (("CAP_BPF", CAP_BPF), ("CAP_PERFMON", CAP_PERFMON))
        if number not in have
    ]
    if missing:
        raise NotPermittedError(f"needs {' and '.join(missing)}: run it as root (sudo cgnet …)")


def require_btf(given: Path | None) -> None:
    """Raise UnsupportedError unless there is a BTF to relocate the programs with."""
    if given is None and not KERNEL_BTF.exists():
        raise UnsupportedError(
            f"this kernel has no BTF ({KERNEL_BTF} is missing): "
            "give the one of exactly this kernel with --btf FILE"
        )


def has_kprobes() -> bool:
    """Tell whether the kernel was built with kprobes."""
    return Path("/sys/bus/event_source/devices/kprobe").exists()
