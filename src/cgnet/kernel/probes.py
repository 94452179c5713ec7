# SPDX-License-Identifier: BSD-2-Clause
"""Feature probes: each is a trial of one tiny program of bpf/probe.bpf.c on this kernel.

Version numbers show nothing where distributions backport, and BTF lists helpers that don't work.
"""

from __future__ import annotations

import errno
import functools
import logging
import sys
import time
from pathlib import Path
from typing import NamedTuple

from cgnet.errors import (
    CgnetError,
    LibbpfError,
    NotPermittedError,
    UnsupportedError,
    refusal,
    strerror,
)
from cgnet.kernel import tracefs
from cgnet.loader import Object, Program

log = logging.getLogger(__name__)

OBJECT = Path(__file__).parents[1] / "_bpf" / "probe.bpf.o"
FRAME = 8  # bytes
MIN_STACK = 5 * FRAME  # from a system call to a tracepoint; the first frames are the program's own
ALL = "everything: no command runs without it"


class Feature(NamedTuple):
    """A kernel feature. ``cost`` is the consequence for the user where it is missing.

    Its program is ``probe_NAME``, with its own ``maps``. ``attach``: the program must attach, too,
    as a kernel may load it and yet refuse that. ``fires``: the program must run; it writes its
    result to its map.
    """

    name: str
    purpose: str
    cost: str
    maps: frozenset[str] = frozenset()
    attach: bool = False
    fires: bool = False


class Answer(NamedTuple):
    """A probe's answer. ``ok`` is None if unknown; ``why`` is empty if ``ok`` is True."""

    ok: bool | None
    why: str = ""


TP_BTF = Feature(
    "tp_btf",
    "hooks with typed arguments: a field is one load",
    "more time for each event, and a slower ledger: raw_tp is taken",
)
RAW_TP = Feature(
    "raw_tp",
    "hooks that every kernel has; new and removed cgroups",
    ALL,
    attach=True,
)
FENTRY = Feature("fentry", "the call of a kernel function", "see fexit", attach=True)
FEXIT = Feature(
    "fexit",
    "the return of a kernel function: errors before a SYN leaves",
    "kprobes are taken, which take longer",
    attach=True,
)
KPROBE = Feature("kprobe", "as fentry, for kernels without it", "see kretprobe", attach=True)
KRETPROBE = Feature(
    "kretprobe",
    "as fexit, for kernels without it",
    "where fexit is missing too, errors before a SYN leaves are seen with --sync-errors on only",
    attach=True,
)
TRACEPOINT = Feature(
    "tracepoint",
    "the connect system call: errors before a SYN leaves, with --sync-errors on",
    "where fexit and kretprobe are missing too, such errors are not seen",
)
RING_BUFFER = Feature(
    "ring_buffer",
    "the way of records to user space",
    "perf buffers are taken, one for each CPU: a busy one may be full while others are empty",
    frozenset({"probe_ring"}),
)
PERF_BUFFERS = Feature(
    "perf_buffers",
    "the way of records to user space, for kernels without ring buffers",
    ALL,
    frozenset({"probe_perf"}),
)
TASK_BTF = Feature(
    "task_btf", "the current task, typed, in tp_btf", "as without tp_btf: raw_tp is taken"
)
TCP_SOCK = Feature(
    "tcp_sock", "a socket's TCP part, typed, in tp_btf", "as without tp_btf: raw_tp is taken"
)
SOCKET_COOKIE = Feature(
    "socket_cookie",
    "a number for a socket that is never used again, in tp_btf",
    "as without tp_btf: raw_tp is taken, and sockets are known by their address",
)
COMPARE_AND_SWAP = Feature(
    "compare_and_swap",
    "slots of the ledger that are claimed without a lock",
    "as without tp_btf: raw_tp is taken, and the ledger is a hash",
)
SOCKET_STORAGE = Feature(
    "socket_storage",
    "owners kept with a listener, and handed on to what it accepts",
    "as without tp_btf: raw_tp is taken, and listeners are known by address and port",
    frozenset({"probe_storage"}),
)
TASK_FILE = Feature(
    "task_file",
    "owners of sockets that are open already",
    "with tp_btf, owners of connections from before the start are known only once they are used",
)
MAP_ELEM = Feature(
    "map_elem",
    "connections that are open, for life --interval",
    "life --interval shows those that a process has open, with tp_btf; it takes longer with raw_tp",
)
STORAGE_ELEM = Feature(
    "storage_elem", "the same, of sockets that have storage", "see map_elem, with tp_btf"
)
LPM_TRIE = Feature(
    "lpm_trie",
    "networks to select by",
    ALL,
    frozenset({"probe_trie"}),
)
ARRAY_OF_MAPS = Feature(
    "array_of_maps",
    "counts that are read without losing any: two maps that change places",
    ALL,
    frozenset({"probe_outer"}),
)
STACK = Feature(
    "stack",
    "the functions that a dropped packet came through",
    "drop: no stack, and no direction where the function that drops doesn't tell it",
    frozenset({"probe_frames"}),
    attach=True,
    fires=True,
)
FEATURES = (
    TP_BTF, RAW_TP, FENTRY, FEXIT, KPROBE, KRETPROBE, TRACEPOINT, RING_BUFFER, PERF_BUFFERS,
    TASK_BTF, TCP_SOCK,
    SOCKET_COOKIE, COMPARE_AND_SWAP, SOCKET_STORAGE, TASK_FILE, MAP_ELEM,
    STORAGE_ELEM, LPM_TRIE, ARRAY_OF_MAPS, STACK,
)  # fmt: skip
PROBE_OF_WAYS = {
    "fentry": "probe_fentry", "kprobe.multi": "probe_kprobe", "kprobe": "probe_kprobe",
}  # fmt: skip
MAPS = frozenset[str]().union(*(feature.maps for feature in FEATURES))


@functools.cache
def trial(feature: Feature) -> Answer:
    """Load the feature's program, attach it if attaching is part of the test, and remove it.

    It takes 1 to 2 ms; for typed programs (tp_btf, fentry, fexit, iterators) 3 to 10 ms, as libbpf
    then reads the kernel's BTF. Attaching raw_tp again soon after detaching it takes some 15 ms
    more. The answer is cached. Raises CgnetError if the object is missing, UnsupportedError without
    libbpf.
    """
    begin = time.perf_counter()
    answer = _try(feature)
    ms = (time.perf_counter() - begin) * 1000
    log.debug("%s: %s (%.1f ms)", feature.name, answer.why or "works", ms)
    return answer


@functools.cache
def trial_at(way: str, function: str) -> Answer:
    """Return whether a program can run at a kernel function, by a trial.

    ``way`` is ``fentry``, ``kprobe.multi`` or ``kprobe``. The program is loaded, attached and
    removed. The answer is cached. Raises as trial().
    """
    name = PROBE_OF_WAYS[way]
    multi = way == "kprobe.multi"
    with _open() as obj:
        obj.keep({name}, set(MAPS))
        program = next(each for each in obj.programs if each.name == name)
        try:
            if way == "fentry":
                obj.aim(program, function)
            elif multi:
                obj.use_multi(program)
            obj.load()
        except LibbpfError as error:
            return Answer(ok=False, why=f"not loaded: {strerror(refusal(error).errno)}")
        try:
            if way == "fentry":
                obj.attach(program)
            else:
                obj.attach_kprobe(program, function, multi=multi)
        except LibbpfError as error:
            return Answer(ok=False, why=f"not attached: {strerror(refusal(error).errno)}")
    return Answer(ok=True)


def _try(feature: Feature) -> Answer:
    with _open() as obj:
        name = f"probe_{feature.name}"
        obj.keep({name}, set(MAPS - feature.maps))
        try:
            obj.load()
        except LibbpfError as error:
            return Answer(
                ok=False, why=f"not loaded: {strerror(refusal(error).errno)}{_remark(error)}"
            )
        program = next(each for each in obj.programs if each.name == name)
        answer = _try_hook(obj, program) if feature.attach else _try_tracepoint(program)
        return _try_run(obj, feature) if answer.ok and feature.fires else answer


def _try_hook(obj: Object, program: Program) -> Answer:
    try:
        obj.attach(program)
    except LibbpfError as error:
        return Answer(ok=False, why=f"not attached: {strerror(refusal(error).errno)}")
    return Answer(ok=True)


def _try_run(obj: Object, feature: Feature) -> Answer:
    """Run the program, by setting this thread's name to its current name."""
    try:
        with Path("/proc/thread-self/comm").open("r+b", buffering=0) as name:
            name.write(name.read().rstrip(b"\n"))
    except OSError as error:
        return Answer(ok=None, why=f"/proc/thread-self/comm: {error.strerror}")
    (result,) = feature.maps
    size = int.from_bytes(obj.map(result).lookup(bytes(4), 8), sys.byteorder, signed=True)
    if size < MIN_STACK:
        why = strerror(-size) if size < 0 else f"it has no more than {size // FRAME} frames"
        return Answer(ok=False, why=why)
    return Answer(ok=True)


def _try_tracepoint(program: Program) -> Answer:
    """Check that the tracepoint exists. Opening an event, even briefly, slows system calls."""
    if program.hook == "tracepoint":
        try:
            tracefs.tracepoint_id(program.target)
        except NotPermittedError as error:
            return Answer(ok=None, why=f"not permitted: {error}")
        except UnsupportedError as error:
            return Answer(ok=False, why=str(error))
    return Answer(ok=True)


def _open() -> Object:
    try:
        return Object(OBJECT)
    except LibbpfError as error:
        what = "is missing" if error.errno == errno.ENOENT else f"can't be read ({error})"
        raise CgnetError(f"{OBJECT} {what}; build or reinstall cgnet") from error


def _remark(error: LibbpfError) -> str:
    """Return the verifier's last line, which is its reason, after a colon; else ""."""
    said = error.log.partition("-- BEGIN PROG LOAD LOG --")[2].partition("-- END PROG")[0]
    lines = [line.strip() for line in said.splitlines()[:-1]]
    reasons = [line for line in lines if line and not line.startswith(("processed ", "verifi"))]
    return f": {reasons[-1]}" if reasons else ""
