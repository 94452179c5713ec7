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
from cgnet.records._layouts import SyncErrors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# linux/capability.h
CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN = 2, 19, 21
CAP_SYS_NICE, CAP_SYS_RESOURCE = 23, 24
CAP_SYSLOG, CAP_PERFMON, CAP_BPF = 34, 38, 39


class Variant(NamedTuple):
    """One way to do a job: what it needs of the kernel, its parts of an object, and what it costs."""

    name: str  # for people
    needs: tuple[Feature, ...] = ()
    code: str = ""  # in the summary, and of options
    hook: str = ""  # code of the only hook that it goes with
    remark: str = ""  # shown where this takes the place of a better one; {why} is the reason
    # What is known without a trial of the needs, which takes up to 10 ms each.
    shown_by: Feature | None = None  # a kernel that has it has all of the needs
    load_tells: bool = False  # loading the programs is a trial as good
    # What it takes of an object.
    programs: frozenset[str] = frozenset()
    beside: bool = False  # they are those of NAME_functions, which runs beside either hook's object
    unused_maps: frozenset[str] = frozenset()  # not created
    small_maps: frozenset[str] = frozenset()  # in its programs, and never filled
    way: str = ""  # of a hook: NAME.WAY.bpf.o has its programs
    folds: bool = False  # fold constants into the code: its kernels' verifiers may not know them
    logs_briefly: bool = False  # its kernels may refuse the buffer of a long log: see loader.py
    function: str = ""  # where its programs attach, by ``code``
    sync_errors: SyncErrors = SyncErrors.SYNC_ERRORS_UNSEEN
    unseen: tuple[str, ...] = ()  # what nothing reports with it


class Job(NamedTuple):
    """A job of a command's programs, and the variants that do it, best first."""

    name: str
    variants: tuple[Variant, ...]
    optional: bool = False  # the command runs without it

    def only(self, *wanted: str) -> Job:
        """Return the job with those of its variants that have these codes or names."""
        chosen = (each for each in self.variants if {each.code, each.name} & {*wanted})
        return self._replace(variants=tuple(chosen))

    def without_remarks(self) -> Job:
        """Return the job for a user who is told the same by another one."""
        return self._replace(variants=tuple(each._replace(remark="") for each in self.variants))


class Chosen(NamedTuple):
    """The variant that does a job on this kernel, if any, and the refused better ones."""

    job: Job
    variant: Variant | None
    refused: tuple[tuple[Variant, str], ...]  # and why

    @property
    def why(self) -> str:
        """Why better ones were refused."""
        return "; ".join(dict.fromkeys(why for _, why in self.refused))

    @property
    def remark(self) -> str:
        """What the user is told of a variant that takes the place of a better one."""
        remark = self.variant.remark if self.variant and self.refused else ""
        return remark.replace("{why}", self.why)

    @property
    def code(self) -> str:
        """The variant's code."""
        return self.variant.code if self.variant else ""

    def why_not(self, code: str) -> str | None:
        """Return why the variant with a code was refused; None if it wasn't."""
        return next((why for each, why in self.refused if each.code == code), None)


# Programs and maps are those of bpf/; bpf/README.md has the grammar of their names.
TYPED, RAW = "tp_btf", "raw_tp"
HOOK = Job("hook", (
    Variant(
        TYPED, code=TYPED, way="typed", shown_by=COMPARE_AND_SWAP,
        needs=(
            TP_BTF, TASK_BTF, TCP_SOCK, SOCKET_COOKIE, COMPARE_AND_SWAP, SOCKET_STORAGE, RAW_TP,
            RING_BUFFER,
        ),
    ),
    Variant(
        RAW, code=RAW, way="raw", needs=(RAW_TP,), load_tells=True, folds=True,
        remark="raw_tp runs in the place of tp_btf, each event takes more time ({why})",
    ),
))  # fmt: skip
TRANSPORT = Job("transport", (
    Variant(
        "ring buffer", (RING_BUFFER,), code="ring",
        unused_maps=frozenset({"perf", "pending_records"}),
    ),
    Variant(
        "perf buffers", (PERF_BUFFERS,), code="perf", hook=RAW, unused_maps=frozenset({"ring"}),
        logs_briefly=True, remark="perf buffers take the place of the ring buffer ({why})",
    ),
))  # fmt: skip
# Owners of attempts. The maps of all sockets' owners are in the code that learns listeners.
ATTEMPTS = Job("ledger", (
    Variant(
        "slots by socket cookie", code="slots", hook=TYPED, small_maps=frozenset({"ledger_slots"})
    ),
    Variant(
        "hash by socket address", code="hash", hook=RAW,
        small_maps=frozenset({"ledger_hash", "seeds"}),
    ),
))  # fmt: skip
# Owners of all sockets.
OWNERS = Job("ledger", (
    Variant("slots, then socket storage", code="storage", hook=TYPED),
    Variant("hash by socket address", code="hash", hook=RAW),
))  # fmt: skip
LISTENERS = Job("listeners", (
    Variant("socket storage", hook=TYPED),
    Variant("hash by address and port", hook=RAW),
))  # fmt: skip
# Owners of sockets that were open before.
SEEDS = Job("seeds", (
    Variant(
        "iterator over files", (TASK_FILE,), hook=TYPED, load_tells=True,
        programs=frozenset({"ledger_seed", "ledger_listeners", "syn_seed"}),
    ),
    Variant("/proc", hook=RAW),
    Variant("/proc", hook=TYPED, remark=(
        "owners of connections from before the start are known once they are used, and not before: "
        "this kernel refuses the iterator over files ({why})"
    )),
))  # fmt: skip
# Open sockets, for `life --interval`.
LIVING = Job("living", (
    Variant(
        "iterators over the ledger's maps", (MAP_ELEM, STORAGE_ELEM),
        programs=frozenset({"living", "living_slots", "living_asked"}),
    ),
    Variant(
        "iterator over files", (TASK_FILE,), hook=TYPED, programs=frozenset({"living_files"}),
        remark=(
            "of open connections those are shown that a process has open, and not those that are "
            "closed and still send, that wait for accept(), or are subflows of MPTCP: iterators "
            "over maps are refused ({why})"
        ),
    ),
    Variant(
        "one question for each, by a tracepoint", hook=RAW, programs=frozenset({"living_asked"})
    ),
    Variant("not seen", remark=(
        "connections are shown when they end, and not before: this kernel has no iterator over "
        "maps, and refuses the program that answers in its place ({why})"
    )),
))  # fmt: skip
# What open connections have carried, for sums by owner.
CARRIED = Job("carried", (
    Variant(
        "iterators over the ledger's maps", (MAP_ELEM, STORAGE_ELEM),
        programs=frozenset({"open_stored", "open_slots"}),
    ),
    Variant(
        "iterator over files", (TASK_FILE,), programs=frozenset({"open_files"}),
        remark=(
            "what connections carry that no process has open is counted when they end: iterators over "
            "maps are refused ({why})"
        ),
    ),
    Variant("not seen", remark=(
        "what connections carry is counted when they end: this kernel has no iterator over maps or "
        "files ({why})"
    )),
))  # fmt: skip
NETWORKS = Job("networks", (Variant("trie of prefixes", (LPM_TRIE,), load_tells=True),))
COUNTS = Job(
    "counts", (Variant("two tables that change places", (ARRAY_OF_MAPS,), load_tells=True),)
)
_CONNECT = ("tcp_v4_connect", "tcp_v6_connect", "inet_stream_connect")
SYNC_ERRORS = Job("sync_errors", (
    Variant(
        "fexit", (FEXIT, FENTRY), code="fexit", beside=True,
        programs=frozenset(f"{at}_{kind}" for at in _CONNECT for kind in ("fentry", "fexit")),
        sync_errors=SyncErrors.SYNC_ERRORS_BY_FUNCTION,
    ),
    Variant(
        "kprobe", (KRETPROBE, KPROBE), code="kprobe", beside=True,
        programs=frozenset(f"{at}_{kind}" for at in _CONNECT for kind in ("kprobe", "kretprobe")),
        sync_errors=SyncErrors.SYNC_ERRORS_BY_FUNCTION,
        remark=(
            "attempts that fail before a SYN leaves are seen by kprobes, which take longer than "
            "fexit ({why})"
        ),
    ),
    Variant(
        "tracepoints of the system call, with --sync-errors on", (TRACEPOINT,), code="tracepoint",
        beside=True, programs=frozenset({"connect_syscall_enter", "connect_syscall_exit"}),
        sync_errors=SyncErrors.SYNC_ERRORS_BY_SYSCALL,
        remark=(
            "attempts that fail before a SYN leaves are seen at the connect system call, and every "
            "system call of the host is some 50 ns slower: fexit and kprobes aren't taken ({why})"
        ),
    ),
    Variant("not seen", code="none", remark=(
        "what fails before a SYN (no route) isn't shown; --sync-errors on does it"
    )),
))  # fmt: skip
# The path of a dropped packet: `stack`, and `direction` if the function alone doesn't show it.
STACKS = Job("stacks", (
    Variant("of the tracepoint", (STACK,), shown_by=COMPARE_AND_SWAP),
    Variant("not seen", unseen=("stack", "direction")),
))  # fmt: skip
# The walk over the kernel's sockets, and the processes that have them open, for `sockets`.
WALK = Job("walk", (Variant(RAW, (RAW_TP,), load_tells=True),))
HOLDERS = Job("holders", (
    Variant("iterator over files", (TASK_FILE,), load_tells=True), Variant("/proc"),
))  # fmt: skip
# Of the objects that follow connection attempts, and of those that follow all sockets.
CONNECTIONS = (HOOK, TRANSPORT, ATTEMPTS, LISTENERS, SEEDS, NETWORKS, COUNTS, SYNC_ERRORS)
SOCKETS = (HOOK, TRANSPORT, OWNERS, LISTENERS, SEEDS, NETWORKS, COUNTS)
# An object's other programs are loaded whatever its variants are.
PROGRAMS = frozenset[str]().union(
    *(each.programs for job in (*CONNECTIONS, *SOCKETS, LIVING, STACKS) for each in job.variants)
)


def is_second_best(runs: Mapping[str, str]) -> bool:
    """Return whether other kernels have a better hook or transport than those in ``runs``."""
    best = {job.name: job.variants[0].code for job in (HOOK, TRANSPORT)}
    return any(runs.get(name, code) != code for name, code in best.items())


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
        "a cgroup's path is found by a walk over all cgroups; who isn't root has no --sync-errors "
        "on by tracepoints",
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


def _why_not(variant: Variant, *, thoroughly: bool) -> str:
    """Return why this kernel doesn't take a variant; "" if it does. Raises as works()."""
    known = variant.shown_by
    if not thoroughly and (variant.load_tells or (known and works(known).ok is not False)):
        return ""
    answer = all_work(variant.needs)
    if answer.ok and variant.function:
        answer = probes.trial_at(variant.code, variant.function)
    if answer.ok or (answer.ok is None and not thoroughly):
        return ""
    prefix = f"{variant.code}: " if variant.function else ""
    return f"{prefix}{answer.why.removeprefix(prefix)}"


def choose(
    jobs: Iterable[Job], refused: Mapping[Variant, str] | None = None, *, thoroughly: bool = False
) -> dict[str, Chosen]:
    """Return the first variant of each job that this kernel takes, by the job's name.

    ``refused`` are variants that failed to load, and why. Unless ``thoroughly``, what loading the
    programs tells isn't tried. The job of the hook precedes those that go with one. Raises as works().
    """
    plan: dict[str, Chosen] = {}
    for job in jobs:
        hook = plan.get(HOOK.name)
        against: list[tuple[Variant, str]] = []
        for variant in job.variants:
            if hook and variant.hook and hook.code != variant.hook:
                why = hook.why_not(variant.hook)
                if why is None:
                    continue
            else:
                why = (refused or {}).get(variant) or _why_not(variant, thoroughly=thoroughly)
            if not why:
                plan[job.name] = Chosen(job, variant, tuple(against))
                break
            against.append((variant, why))
        else:
            plan[job.name] = Chosen(job, None, tuple(against))
    return plan


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
            f"this kernel has no BTF ({KERNEL_BTF} is missing): give the one of exactly this "
            "kernel with --btf FILE, or put it where docs/kernels.md says"
        )
