# SPDX-License-Identifier: BSD-2-Clause
"""Load the programs of sockets.bpf.c: as many as this kernel takes."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, NamedTuple

from cgnet.commands.sockets.walk import (
    HELD,
    HOLDERS,
    MAX_PORTS,
    PORT_OWNERS,
    Walk,
    room_for_held,
)
from cgnet.errors import (
    CgnetError,
    LibbpfError,
    NotPermittedError,
    UnsupportedError,
    refusal,
    strerror,
)
from cgnet.kernel import variants
from cgnet.kernel.btf import check_layouts
from cgnet.loader import Object
from cgnet.owners import cgroups, processes
from cgnet.records._layouts import (
    FLOW,
    HEAD,
    HELD_SOCKET,
    HOLDER,
    OPEN_SOCKET,
    OWNER,
    SHARER_KEY,
    SOCKET_EVENT,
    SOCKET_NETNS,
    SOCKET_QUERY,
    SocketsConfig,
)
from cgnet.run.launch import OBJECTS

if TYPE_CHECKING:
    from pathlib import Path

    from cgnet.filters.selection import Filters
    from cgnet.records._layouts import Packable

PATH = OBJECTS / "sockets.raw.bpf.o"
LAYOUTS = (
    SOCKET_EVENT, HEAD, OWNER, FLOW, OPEN_SOCKET, HOLDER, HELD_SOCKET, SHARER_KEY,
    SOCKET_NETNS, SOCKET_QUERY,
)  # fmt: skip
WALKS = ("walk", "walk_briefly")  # best first
QUEUES, WATCHED = "queues", "watched_listeners"
FAILED = re.compile(r"prog '(\w+)': failed to load")  # libbpf names the program
BRIEFLY = (
    "timers, and the times since the last packet, aren't known: this kernel's programs have no "
    "jiffies ({why})"
)
BY_PROC = (
    "/proc tells which processes have sockets open, one of each socket: this kernel refuses the "
    "iterator over files ({why})"
)
BY_LISTINGS = (
    "queues of listeners are seen when they are listed, and not in between: this kernel refuses the "
    "program that follows them ({why})"
)
IN_PID_NAMESPACE = (
    "cgnet runs in a PID namespace, and sees no process outside: what those hold has the owner that "
    "the kernel notes in a socket, or an unknown one; run it in the host's (docker run --pid=host)"
)
NO_PTRACE = "without CAP_SYS_PTRACE it isn't known what processes of other users hold"


class Loaded(NamedTuple):
    """The attached programs, and what is said about them."""

    obj: Object
    walk: Walk
    runs: dict[str, str]
    remarks: list[str]


def load(filters: Filters, config: SocketsConfig, btf: Path | None) -> Loaded:
    """Load and attach the programs. The caller closes the object.

    Raises NotPermittedError, UnsupportedError, LayoutError, or CgnetError.
    """
    variants.require_capabilities()
    variants.require_btf(btf)
    constants = constants_of(filters, config)
    refused: dict[str, str] = {}  # by program: why
    while True:
        walk = next((name for name in WALKS if name not in refused), None)
        programs = {walk, HOLDERS, *[QUEUES] * bool(config.watches)} - refused.keys()
        try:
            obj = _load({name for name in programs if name}, filters, constants, btf)
        except LibbpfError as error:
            why = refusal(error)
            failed = FAILED.search(why.log)
            if not failed or failed[1] in refused or failed[1] == WALKS[-1]:
                raise _refused(why) from error
            refused[failed[1]] = strerror(why.errno)
            continue
        remarks = [BRIEFLY.format(why=refused[WALKS[0]])] if WALKS[0] in refused else []
        by_files = HOLDERS not in refused
        remarks += [] if by_files else [BY_PROC.format(why=refused[HOLDERS])]
        runs = {"holders": variants.HOLDERS.variants[not by_files].name}
        remarks += [BY_LISTINGS.format(why=refused[QUEUES])] if QUEUES in refused else []
        remarks += _limits(by_files=by_files)
        return Loaded(obj, Walk(obj, filters, by_files=by_files), runs, remarks)


def _limits(*, by_files: bool) -> list[str]:
    """Return what can't be seen of processes from where cgnet runs."""
    told = [IN_PID_NAMESPACE] if processes.is_in_namespace() else []
    may_look = by_files or variants.CAP_SYS_PTRACE in variants.effective_capabilities()
    return told if may_look else [*told, NO_PTRACE]


def constants_of(filters: Filters, config: SocketsConfig) -> dict[str, bytes]:
    """Return the constants of the programs, by name."""
    made: list[Packable] = [cgroups.config(filters.hierarchies), filters.config(), config]
    return {each.layout.name: each.pack() for each in made}


def _load(
    programs: set[str], filters: Filters, constants: dict[str, bytes], btf: Path | None
) -> Object:
    try:
        obj = Object(PATH, btf, constants)
    except LibbpfError as error:
        if error.errno == errno.ENOENT:
            raise CgnetError(f"{PATH} is missing; build or reinstall cgnet") from error
        raise
    try:
        check_layouts(obj, LAYOUTS)
        obj.keep(programs, set())
        filters.resize(obj)
        held = room_for_held()
        obj.resize(HELD, held)
        obj.resize(PORT_OWNERS, min(held, MAX_PORTS))
        obj.resize(WATCHED, min(held, MAX_PORTS) if QUEUES in programs else 1)
        obj.set_constants(constants)
        obj.load()
        filters.fill(obj)
        for program in obj.programs:
            if program.name in programs & {*WALKS, QUEUES}:
                obj.attach(program)
    except BaseException:
        obj.close()
        raise
    return obj


def _refused(why: LibbpfError) -> CgnetError:
    said = f"\n{why.log}" if why.log else ""
    if why.errno == errno.EPERM:
        return NotPermittedError(f"the kernel forbids to load BPF programs ({why}){said}")
    return UnsupportedError(f"this kernel takes no program that lists sockets ({why}){said}")
