# SPDX-License-Identifier: BSD-2-Clause
"""From a command and its filters to programs that run: the best variant that this kernel takes."""

from __future__ import annotations

import errno
import logging
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from cgnet import features, seeds, stages, tracefs
from cgnet._layouts import (
    ADDRESS_KEY,
    CGROUP_EVENT,
    CGROUP_KEY,
    CGROUP_MARK,
    CONFIG,
    COUNT_KEY,
    DESCRIPTOR,
    HEAD,
    HOLDER,
    LISTENER_FD,
    LISTENER_KEY,
    NETNS_VALUE,
    OWNER,
    PID_VALUE,
    PORT_FLAGS,
    TCP_LISTENER,
    Role,
)
from cgnet.btf import KERNEL_BTF, check_layouts, damaged, missing_tracepoints, without_type
from cgnet.errors import CgnetError, LibbpfError, NotPermittedError, UnsupportedError
from cgnet.filters import LISTENER_MAPS, LISTENERS
from cgnet.loader import Object
from cgnet.stages import MULTI_WAY
from cgnet.tables import COUNTS, HISTOGRAMS, SUMS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from cgnet._layouts import Layout, SyncErrors
    from cgnet.counts import Counting
    from cgnet.features import Hook, Transport
    from cgnet.filters import Filters
    from cgnet.loader import Program

log = logging.getLogger(__name__)

OBJECTS = Path(__file__).parent / "_bpf"
# In every object.
CROSSING = (
    HEAD, OWNER, CGROUP_EVENT, CGROUP_KEY, CGROUP_MARK, CONFIG, PID_VALUE, NETNS_VALUE, ADDRESS_KEY,
    PORT_FLAGS, LISTENER_KEY, HOLDER, DESCRIPTOR, TCP_LISTENER, LISTENER_FD, COUNT_KEY,
)  # fmt: skip
CGROUP_PROGRAMS = frozenset({"cgroup_born", "cgroup_gone"})
RING_TYPE = "bpf_ringbuf"  # transport.bpf.h asks a kernel's BTF for it
ITERATOR = "iter"
SEED_PROGRAM = "ledger_seed"
OPTIONAL = "trace_"  # so begin the names of programs that can be done without
# Of the ledger of all sockets, in objects that keep one; others have a ledger of listeners.
TRACKING_PROGRAM = "ledger_gone"
TRACKING_MAPS = ("ledger_hash", "ledger_slots", "seeds")
MAPS_OF_FUNCTIONS = frozenset({"hook_calls"})
# By how their names begin.
ROLE_OF_PROGRAMS = {
    "client": Role.ROLE_CLIENT,
    "server": Role.ROLE_SERVER,
    "ledger": Role.ROLE_SERVER,
}


class Extra(NamedTuple):
    """Programs beside the main ones, by kind of hook, and what the kernel side is told of them."""

    hooks: frozenset[str]
    sync_errors: SyncErrors
    remarks: tuple[str, ...] = ()  # for the user, when this is what the kernel takes
    left_out: tuple[str, ...] = ()  # how names begin of programs that aren't wanted
    functions: Mapping[str, str] = MappingProxyType({})  # programs at functions: the way to attach
    unseen: Mapping[str, str] | None = None  # stages, and why; None: it has none


SIDE_UNKNOWN = (
    "connections from before the start aren't shown with --role: which side they are isn't known"
)


def of_one_role(ways: list[Extra], roles: Collection[Role]) -> list[Extra]:
    """Return the ways, of a command that follows connections, with what a choice of roles hides."""
    if len(roles) > 1:
        return ways
    return [way._replace(remarks=(*way.remarks, SIDE_UNKNOWN)) for way in ways]


Extras: TypeAlias = "list[Extra] | Callable[[], list[Extra]]"


def object_path(name: str, hook: Hook, folder: Path = OBJECTS) -> Path:
    """Return the file of an object's programs for a hook."""
    return folder / f"{name}.{hook.way}.bpf.o"


class Launch:
    """The programs of a command, from the file to the hooks. Close ``obj`` in the end."""

    def __init__(
        self,
        name: str,
        layouts: tuple[Layout, ...],
        filters: Filters,
        buffer: int,
        *,
        counting: Counting | None = None,
        measures: dict[str, Any] | None = None,
        contents: dict[str, dict[bytes, bytes]] | None = None,
    ) -> None:
        """``name`` is the objects'; ``buffer`` is the ring's size in bytes.

        ``measures`` has members of struct config, ``contents`` entries of a command's own maps.
        """
        self.name = name
        self.folder = OBJECTS
        self.layouts = layouts
        self.filters = filters
        self.buffer = buffer
        self.counting = counting
        self.measures = measures or {}
        self.contents = contents or {}
        self.missing: frozenset[str] = frozenset()  # tracepoints that aren't there, nor needed
        self.unseen: dict[str, str] | None = None  # stages that nothing tells of, and why
        self._unattached: dict[str, str] = {}  # stages that were refused all the same

    def start(
        self, extras: Extras, btf: Path | None, hook: str | None, transport: str | None = None
    ) -> tuple[Object, Extra]:
        """Load and attach; each variant is tried in order, none is guessed.

        ``extras`` may be a function that asks the kernel which there are. Raises NotPermittedError,
        UnsupportedError or LayoutError.
        """
        features.require_capabilities()
        features.require_btf(btf)
        extras = extras() if callable(extras) else extras
        if transport == "perf":
            with without_type(RING_TYPE, btf or KERNEL_BTF) as forced:
                return self._start(extras, forced, hook, features.transport("perf"))
        return self._start(extras, btf, hook, features.transport(transport))

    def _start(
        self, extras: list[Extra], btf: Path | None, hook: str | None, way: Transport
    ) -> tuple[Object, Extra]:
        failure: LibbpfError | None = None
        for each, extra in product(features.hooks(hook), extras):
            refused = hook is None and each.asked and features.works(each.asked).ok is False
            if refused or not way.takes(each) or not self._is_possible(extra):
                continue
            try:
                return self._try(way, each, extra, btf), extra
            except LibbpfError as error:
                log.info("no %s, %s with %s: %s", way.name, each.name, sorted(extra.hooks), error)
                failure = error
        raise self._refused(failure)

    def follows_listeners(self, obj: Object) -> bool:
        """Tell whether the programs ask whose the listeners are."""
        return _tracks(obj) or Role.ROLE_SERVER in self.filters.roles

    def remarks(self, extra: Extra) -> list[str]:
        """Return what there is to say of what runs, and doesn't."""
        if self.unseen is None:
            missing = sorted(self.missing)
            told = [f"{name} isn't seen: this kernel has no such tracepoint" for name in missing]
        else:
            told = stages.remarks(self.unseen)
        return [*told, *extra.remarks]

    def _is_possible(self, extra: Extra) -> bool:
        """Ask a probe first: it takes a tenth of the time that the refusal of all programs does."""
        answer = features.hooks_work(extra.hooks)
        if answer.ok is False:
            log.info("no %s: %s", ", ".join(sorted(extra.hooks)), answer.why)
        return answer.ok is not False

    def _refused(self, failure: LibbpfError | None) -> CgnetError:
        said = f"\n{failure.log}" if failure and failure.log else ""
        if failure and failure.errno == errno.EPERM:
            return NotPermittedError(f"the kernel forbids to load BPF programs ({failure}){said}")
        why = f"({failure}){said}" if failure else "of the hooks that were asked for"
        return UnsupportedError(
            f"this kernel takes none of the variants of {self.name} {why}; cgnet doctor tells more"
        )

    def _try(self, way: Transport, hook: Hook, extra: Extra, btf: Path | None) -> Object:
        obj = self._open(object_path(self.name, hook, self.folder), btf)
        try:
            programs = self._there(self._wanted(obj, hook, extra), btf)
            self._prepare(obj, way.unused_maps, extra, programs)
            obj.load()
            self._attach(obj, hook, extra, programs)
        except BaseException:
            obj.close()
            raise
        if extra.unseen is not None:
            missing = dict.fromkeys(sorted(self.missing), "no such tracepoint")
            self.unseen = missing | {**extra.unseen} | self._unattached
        return obj

    def _open(self, path: Path, btf: Path | None) -> Object:
        try:
            return Object(path, btf)
        except LibbpfError as error:
            if error.errno == errno.ENOENT:
                raise CgnetError(f"{path} is missing; build or reinstall cgnet") from error
            raise damaged(path, self.layouts[0], error.log or str(error)) from error

    def _wanted(self, obj: Object, hook: Hook, extra: Extra) -> list[Program]:
        """Return the programs to run; those that follow cgroups come first."""
        wanted = [
            program
            for program in obj.programs
            if program.name in CGROUP_PROGRAMS
            or program.name in extra.functions
            or (
                program.hook in hook.kinds | extra.hooks
                and not program.name.startswith(extra.left_out)
                and self._has_role(obj, program)
            )
        ]
        return sorted(wanted, key=lambda program: program.name not in CGROUP_PROGRAMS)

    def _there(self, programs: list[Program], btf: Path | None) -> list[Program]:
        """Leave out what can be done without where its tracepoint isn't there."""
        names = {_target(each) for each in programs if each.name.startswith(OPTIONAL)}
        self.missing = missing_tracepoints(names, btf or KERNEL_BTF) if names else frozenset()
        return [
            each
            for each in programs
            if not each.name.startswith(OPTIONAL) or _target(each) not in self.missing
        ]

    def _has_role(self, obj: Object, program: Program) -> bool:
        """Tell whether the connections that a program sees are wanted."""
        if _tracks(obj):
            return True
        role = ROLE_OF_PROGRAMS.get(program.name.partition("_")[0])
        return role is None or role in self.filters.roles

    def _prepare(
        self, obj: Object, unused: frozenset[str], extra: Extra, programs: list[Program]
    ) -> None:
        check_layouts(obj, (*self.layouts, *CROSSING))
        if not extra.functions:
            unused |= MAPS_OF_FUNCTIONS
        obj.keep({program.name for program in programs}, set(unused))
        for program in programs:
            if extra.functions.get(program.name) == MULTI_WAY:
                obj.use_multi(program)
        obj.resize("ring", self.buffer)
        self.filters.resize(obj)
        if _tracks(obj):
            for name in LISTENER_MAPS:
                obj.resize(name, LISTENERS)
        else:
            for name in filter(obj.has_map, TRACKING_MAPS):
                obj.resize(name, 1)
        for tables in (COUNTS, HISTOGRAMS, SUMS):
            tables.prepare(obj, used=self.counting is not None and self.counting.uses(tables))
        constants = self.measures | (self.counting.constants() if self.counting else {})
        config = self.filters.config(extra.sync_errors, constants)
        obj.set_constants(".rodata.config", config)

    def _attach(self, obj: Object, hook: Hook, extra: Extra, programs: list[Program]) -> None:
        """Attach what follows cgroups, mark the old ones, attach the rest; iterators come last."""
        first = len(CGROUP_PROGRAMS)
        for program in programs[:first]:
            self._attach_one(obj, program)
        self.filters.fill(obj)
        for name, entries in self.contents.items():
            for key, value in entries.items():
                obj.map(name).update(key, value)
        rest = programs[first:]
        for program in rest:
            if program.name in extra.functions:
                self._unattached |= stages.attach(obj, program, extra.functions[program.name])
            elif program.hook != ITERATOR:
                self._attach_one(obj, program)
        for program in (each for each in rest if each.name == SEED_PROGRAM):
            obj.iterate(program)
        if ITERATOR not in hook.kinds:
            self._seed(obj)

    def _seed(self, obj: Object) -> None:
        """Find in /proc who has which sockets."""
        if self.follows_listeners(obj):
            sockets = seeds.find()
            maps = obj.map("listeners"), obj.map("listening")
            seeds.seed_listeners(*maps, sockets, self.filters)
            if _tracks(obj):
                seeds.seed_sockets(obj.map("seeds"), sockets, self.filters)

    def _attach_one(self, obj: Object, program: Program) -> None:
        if program.hook == "tracepoint":  # the link closes the event
            obj.attach(program, tracefs.open_tracepoint(program.section.partition("/")[2]))
        else:
            obj.attach(program)


def _target(program: Program) -> str:
    """Return the tracepoint that a program's section names."""
    return program.section.partition("/")[2]


def _tracks(obj: Object) -> bool:
    """Tell whether an object keeps a ledger of all sockets."""
    return any(program.name == TRACKING_PROGRAM for program in obj.programs)
