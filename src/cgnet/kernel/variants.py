# SPDX-License-Identifier: BSD-2-Clause
"""Features of this host, and the variants of cgnet that they allow: by trial, never by version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cgnet.errors import NotPermittedError, UnsupportedError
from cgnet.kernel import probes
from cgnet.kernel.btf import KERNEL_BTF
from cgnet.kernel.probes import (
    ARRAY_OF_MAPS,
    COMPARE_AND_SWAP,
    FENTRY,
    FEXIT,
    KPROBE,
    KRETPROBE,
    LPM_TRIE,
    MAP_ELEM,
    PERF_BUFFERS,
    RAW_TP,
    RING_BUFFER,
    SOCKET_COOKIE,
    SOCKET_STORAGE,
    STACK,
    STORAGE_ELEM,
    TASK_BTF,
    TASK_FILE,
    TCP_SOCK,
    TP_BTF,
    TRACEPOINT,
    Answer,
    Feature,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

# linux/capability.h
CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN = 2, 19, 21
CAP_SYS_NICE, CAP_SYS_RESOURCE = 23, 24
CAP_SYSLOG, CAP_PERFMON, CAP_BPF = 34, 38, 39


class Hook(NamedTuple):
    """A variant of the programs: the prefix of its sections, and the suffix of its object files."""

    name: str
    way: str  # of NAME.WAY.bpf.o
    needs: tuple[Feature, ...]
    asked: Feature | None = None  # one of ``needs``, tried before all programs are: it takes 1 ms
    folds: bool = False  # fold constants into the code: its kernels' verifiers may not know them
    slower: str = ""  # the consequence of using this hook in place of a better one


# Best first. Every hook needs raw_tp, for cgroup events.
HOOKS = (
    Hook(
        "tp_btf", "typed",
        (TP_BTF, TASK_BTF, TCP_SOCK, SOCKET_COOKIE, COMPARE_AND_SWAP, SOCKET_STORAGE, RAW_TP),
        COMPARE_AND_SWAP,
    ),
    Hook("raw_tp", "raw", (RAW_TP,), folds=True, slower="each event takes more time"),
)  # fmt: skip


def hooks(forced: str | None) -> tuple[Hook, ...]:
    """Return the hooks to try, in order; only ``forced`` if given."""
    return tuple(hook for hook in HOOKS if forced in (None, hook.name))


class Transport(NamedTuple):
    """A transport of records to user space, and the maps that only the other transport uses."""

    name: str
    shown: str
    unused_maps: frozenset[str]
    needs: tuple[Feature, ...]
    logs_briefly: bool = False  # its kernels may refuse the buffer of a long log: see loader.py

    def takes(self, hook: Hook) -> bool:
        """Return whether it goes with a hook: kernels with typed programs have ring buffers."""
        return self.name == "ring" or hook.name == "raw_tp"

    @property
    def is_there(self) -> bool:
        """Whether the kernel has it, or may have it. Raises as works()."""
        return all_work(self.needs).ok is not False


# Best first.
TRANSPORTS = (
    Transport("ring", "ring buffer", frozenset({"perf", "pending_records"}), (RING_BUFFER,)),
    Transport("perf", "perf buffers", frozenset({"ring"}), (PERF_BUFFERS,), logs_briefly=True),
)


def transport(forced: str | None) -> Transport:
    """Return ``forced``, else the best one available. Raises UnsupportedError, or as works()."""
    if forced:
        return next(each for each in TRANSPORTS if each.name == forced)
    for each in TRANSPORTS:
        if each.is_there:
            return each
    why = all_work(TRANSPORTS[-1].needs).why
    raise UnsupportedError(f"this kernel has no way of records to user space ({why})")


def is_second_best(runs: Mapping[str, str]) -> bool:
    """Return whether other kernels have a better hook or transport than those in ``runs``."""
    best = {"hook": HOOKS[0].name, "transport": TRANSPORTS[0].name}
    return any(runs.get(part, name) != name for part, name in best.items())


class Capability(NamedTuple):
    """A capability, and the consequence for a process that lacks it."""

    number: int
    name: str
    cost: str


SYMBOLS = "cgnet drop shows ? for locations and stacks"
LOADING = "no program can be loaded, and no command runs"
CAPABILITIES = (
    Capability(CAP_BPF, "CAP_BPF", LOADING),
    Capability(CAP_PERFMON, "CAP_PERFMON", LOADING),
    Capability(
        CAP_SYS_ADMIN,
        "CAP_SYS_ADMIN",
        "no --sync-errors on by tracepoints where tracefs isn't mounted or readable",
    ),
    Capability(
        CAP_DAC_READ_SEARCH,
        "CAP_DAC_READ_SEARCH",
        "a cgroup's path is found by a walk over all cgroups; who isn't root has no --sync-errors on "
        "by tracepoints",
    ),
    Capability(CAP_SYS_NICE, "CAP_SYS_NICE", "the reader runs at its own priority all the time"),
    Capability(
        CAP_SYS_RESOURCE,
        "CAP_SYS_RESOURCE",
        "kernels before 5.11 may refuse the maps, which they count as locked memory",
    ),
    Capability(
        CAP_SYS_PTRACE, "CAP_SYS_PTRACE", "--netns PID is refused for processes of other users"
    ),
    Capability(CAP_SYSLOG, "CAP_SYSLOG", SYMBOLS),
)


def cost_without(missing: Capability, held: frozenset[int]) -> str:
    """Return the consequence of lacking ``missing`` for a process that holds ``held``."""
    if missing.cost == LOADING and CAP_SYS_ADMIN in held:
        return "nothing: CAP_SYS_ADMIN stands for it"
    if missing.number == CAP_SYS_ADMIN and last_capability() < CAP_BPF:
        return LOADING
    return missing.cost


class Way(NamedTuple):
    """One way to implement a part, and all features that it needs."""

    name: str
    needs: tuple[Feature, ...]


class Part(NamedTuple):
    """A part of a command, with the ways to implement it, best first."""

    name: str
    ways: tuple[Way, ...]


class Choice(NamedTuple):
    """The way that this kernel takes, if any, and the refused better ones: (name, reason)."""

    part: str
    way: str | None
    refused: tuple[tuple[str, str], ...]


TYPED, UNTYPED = (hook.needs for hook in HOOKS)
HOOK = Part("hook", tuple(Way(hook.name, hook.needs) for hook in HOOKS))
TRANSPORT = Part("transport", tuple(Way(each.shown, each.needs) for each in TRANSPORTS))
# Owners of attempts, and of accepted sockets: the hook determines both.
LEDGER = Part(
    "ledger", (Way("slots by socket cookie", TYPED), Way("hash by socket address", UNTYPED))
)
OWNERS = Part(
    "ledger", (Way("slots, then socket storage", TYPED), Way("hash by socket address", UNTYPED))
)
LISTENERS = Part(
    "listeners", (Way("socket storage", TYPED), Way("hash by address and port", UNTYPED))
)
# Owners of sockets that were open before.
SEEDS = Part("seeds", (Way("iterator over files", (*TYPED, TASK_FILE)), Way("/proc", ())))
# Open sockets, for `life --interval`: the first of these that an object has and that works.
LIVING = Part(
    "living",
    (
        Way("iterators over the ledger's maps", (MAP_ELEM, STORAGE_ELEM)),
        Way("iterator over files", (*TYPED, TASK_FILE)),
        Way("one question for each, by a tracepoint", UNTYPED),
        Way("not seen", ()),
    ),
)
NETWORKS = Part("networks", (Way("trie of prefixes", (LPM_TRIE,)),))
COUNTS = Part("counts", (Way("two tables that change places", (ARRAY_OF_MAPS,)),))
SYNC_ERRORS = Part(
    "sync_errors",
    (
        Way("fexit", (FEXIT, FENTRY)),
        Way("kprobe", (KRETPROBE, KPROBE)),
        Way("tracepoints of the system call, with --sync-errors on", (TRACEPOINT,)),
        Way("not seen", ()),
    ),
)
# The path of a dropped packet: `stack`, and `direction` if the function alone doesn't show it.
STACKS = Part("stacks", (Way("of the tracepoint", (STACK,)), Way("not seen", ())))
# The processes that have sockets open, for `sockets`.
HOLDERS = Part("holders", (Way("iterator over files", (TASK_FILE,)), Way("/proc", ())))
WALK = Part("walk", (Way("raw_tp", (RAW_TP,)),))
# The parts of each command. Commands that aren't listed need nothing of the kernel.
CONNECTIONS = (HOOK, TRANSPORT, LEDGER, LISTENERS, SEEDS, NETWORKS, COUNTS, SYNC_ERRORS)
SOCKETS = (HOOK, TRANSPORT, OWNERS, LISTENERS, SEEDS, NETWORKS, COUNTS)
NEEDS = {
    "connect": CONNECTIONS,
    "connlat": CONNECTIONS[:-1],
    "rtt": SOCKETS,
    "life": (*SOCKETS, LIVING),
    "drop": (*SOCKETS, STACKS),
    "trace": SOCKETS,
    "sockets": (WALK, HOLDERS, NETWORKS),
}


def works(feature: Feature) -> Answer:
    """Return whether the kernel has a feature, by a trial; the answer is cached.

    Raises CgnetError if the trial programs are missing, UnsupportedError without libbpf.
    """
    try:
        require_capabilities()
    except NotPermittedError as error:
        return Answer(ok=None, why=f"not permitted: {error}")
    return probes.trial(feature)


def all_work(needs: tuple[Feature, ...]) -> Answer:
    """Return the first answer that isn't a yes; later features aren't tried. Raises as works()."""
    for feature in needs:
        answer = works(feature)
        if not answer.ok:
            return answer._replace(why=f"{feature.name}: {answer.why}")
    return Answer(ok=True)


def hooks_work(kinds: frozenset[str]) -> Answer:
    """Return whether programs of these kinds, as section prefixes, work. Raises as works().

    Learning that fexit is refused takes 4 to 10 ms; a command's whole object takes 80.
    """
    return all_work(tuple(feature for feature in probes.FEATURES if feature.name in kinds))


def choose(part: Part) -> Choice:
    """Return the best way that works, as the loader does. Raises as works()."""
    refused: list[tuple[str, str]] = []
    for way in part.ways:
        answer = all_work(way.needs)
        if answer.ok:
            return Choice(part.name, way.name, tuple(refused))
        refused.append((way.name, answer.why.removeprefix(f"{way.name}: ")))
    return Choice(part.name, None, tuple(refused))


def _capabilities(kind: str) -> frozenset[int]:
    """Return a set of this process's capabilities, as numbers: "CapEff" or "CapBnd".

    Raises UnsupportedError without /proc.
    """
    status = Path("/proc/self/status")
    try:
        text = status.read_text(errors="surrogateescape")
    except OSError as error:
        raise UnsupportedError(f"{status}: {error.strerror}; is /proc mounted?") from error
    for line in text.split("\n"):
        if line.startswith(f"{kind}:"):
            mask = int(line.split()[1], 16)
            return frozenset(number for number in range(64) if mask >> number & 1)
    return frozenset()


def effective_capabilities() -> frozenset[int]:
    """Return the numbers of this process's effective capabilities. Raises UnsupportedError."""
    return _capabilities("CapEff")


def last_capability() -> int:
    """Return the number of the last capability that this kernel knows.

    Where /proc is mounted with subset=pid, as by systemd's ProcSubset=, return the last one in this
    process's bounding set.
    """
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except OSError:
        return max(_capabilities("CapBnd"), default=0)


def require_capabilities() -> None:
    """Raise NotPermittedError unless this process may load tracing programs.

    CAP_BPF and CAP_PERFMON exist since Linux kernel commit 2c78ee898d8f "bpf: Implement CAP_BPF"
    (in v5.8); before, CAP_SYS_ADMIN is required, which still stands for both.
    """
    have = effective_capabilities()
    if CAP_SYS_ADMIN in have:
        return
    if last_capability() < CAP_BPF:
        raise NotPermittedError("needs CAP_SYS_ADMIN on this kernel: run it as root (sudo cgnet …)")
    missing = [
        name
        for name, number in (("CAP_BPF", CAP_BPF), ("CAP_PERFMON", CAP_PERFMON))
        if number not in have
    ]
    if missing:
        raise NotPermittedError(f"needs {' and '.join(missing)}: run it as root (sudo cgnet …)")


def require_btf(given: Path | None) -> None:
    """Raise UnsupportedError unless there is BTF for CO-RE: ``given``, or the kernel's own."""
    if given is None and not KERNEL_BTF.exists():
        raise UnsupportedError(
            f"this kernel has no BTF ({KERNEL_BTF} is missing): "
            "give the one of exactly this kernel with --btf FILE, or put it where docs/kernels.md says"
        )
