# SPDX-License-Identifier: BSD-2-Clause
"""Load and attach a command's programs: the best variant that this kernel accepts."""

from __future__ import annotations

import errno
import logging
import re
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cgnet.counting.tables import COUNTS, HISTOGRAMS, SUMS
from cgnet.errors import (
    CgnetError,
    LibbpfError,
    NotPermittedError,
    StoppedError,
    UnsupportedError,
    refusal,
    strerror,
)
from cgnet.filters.selection import LISTENER_MAPS, LISTENERS
from cgnet.kernel import function_hooks, tracefs, variants
from cgnet.kernel.btf import (
    KERNEL_BTF,
    check_layouts,
    damaged,
    missing_tracepoints,
    without_type,
)
from cgnet.kernel.function_hooks import MULTI_WAY
from cgnet.loader import Object
from cgnet.owners import open_sockets, socket_queries
from cgnet.records._layouts import (
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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cgnet.counting.counts import Counting
    from cgnet.filters.selection import Filters
    from cgnet.kernel.variants import Hook, Transport
    from cgnet.loader import Program
    from cgnet.records._layouts import Layout
    from cgnet.run.program_sets import Look, ProgramSet

log = logging.getLogger(__name__)

OBJECTS = Path(__file__).parents[1] / "_bpf"
# Structures shared with the kernel side.
IN_EVERY_OBJECT = (
    HEAD, OWNER, CGROUP_KEY, CGROUP_MARK, CONFIG, PID_VALUE, NETNS_VALUE, ADDRESS_KEY, PORT_FLAGS,
    COUNT_KEY,
)  # fmt: skip
BUT_AT_FUNCTIONS = (CGROUP_EVENT, LISTENER_KEY, HOLDER, DESCRIPTOR, TCP_LISTENER, LISTENER_FD)
CONFIG_SECTION = ".rodata.config"
CGROUP_PROGRAMS = frozenset({"cgroup_created", "cgroup_removed", "cgroup_renamed"})
RING_TYPE = "bpf_ringbuf"  # transport.bpf.h looks it up in the kernel's BTF
ITERATOR = "iter"
SEED_PROGRAMS = ("ledger_seed", "syn_seed")  # iterators that find owners of existing sockets
FAILED = re.compile(r"prog '(\w+)': failed to (?:load|attach)")  # libbpf names the program
NO_SEEDS = (
    "owners of connections from before the start are known once they are used, and not before: this "
    "kernel refuses the iterator over files ({why})"
)
OPTIONAL = "trace_"  # prefix of the names of optional programs
# Of the ledger of all sockets, in objects that keep one; other objects have a ledger of listeners.
TRACKING_PROGRAM = "ledger_gone"
TRACKING_MAPS = ("ledger_hash", "ledger_slots", "seeds")
# By prefix of program names.
ROLE_OF_PROGRAMS = {
    "client": Role.ROLE_CLIENT,
    "server": Role.ROLE_SERVER,
    "ledger": Role.ROLE_SERVER,
}


ProgramSets: TypeAlias = "list[ProgramSet] | Callable[[], list[ProgramSet]]"


def object_path(name: str, hook: Hook, folder: Path = OBJECTS) -> Path:
    """Return the path of an object file for a hook."""
    return folder / f"{name}.{hook.way}.bpf.o"


def functions_path(name: str, folder: Path = OBJECTS) -> Path:
    """Return the path of the object file with a command's programs at functions, for any hook."""
    return folder / f"{name}_functions.raw.bpf.o"


class Launch:
    """A command's programs, from the object file to the hooks. The caller closes the object."""

    def __init__(
        self,
        name: str,
        layouts: tuple[Layout, ...],
        filters: Filters,
        buffer: int,
        *,
        counting: Counting | None = None,
        config: dict[str, Any] | None = None,
        maps: dict[str, dict[bytes, bytes]] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """``name`` is that of the objects; ``buffer`` is the ring's size in bytes.

        ``config`` has members of struct config, ``maps`` entries of a command's own maps.
        ``stopped`` returns whether to stop before tracing begins.
        """
        self.name = name
        self.folder = OBJECTS
        self.layouts = layouts
        self.filters = filters
        self.buffer = buffer
        self.counting = counting
        self.config = config or {}
        self.maps = maps or {}
        self.missing: frozenset[str] = frozenset()  # missing tracepoints of optional programs
        self.runs: dict[str, str] = {}  # hook, transport and ledger, for the summary
        self._stopped = stopped
        self._told: list[str] = []  # fallbacks in use, with reasons
        self._why_not = ""  # reason the best optional programs were refused
        self._refused_iterators: dict[str, str] = {}  # and why
        self._iterators: frozenset[str] = frozenset()  # those that the kernel accepted
        self.unseen: dict[str, str] | None = None  # stages that no program reports, and why

    def start(
        self,
        program_sets: ProgramSets,
        btf: Path | None,
        hook: str | None,
        transport: str | None = None,
    ) -> tuple[Object, ProgramSet]:
        """Load and attach the first variant that the kernel accepts, in order.

        ``program_sets`` may be a function that probes the kernel for them. Raises
        NotPermittedError, UnsupportedError, LayoutError, StoppedError, or CgnetError where this
        host lacks resources.
        """
        variants.require_capabilities()
        variants.require_btf(btf)
        program_sets = program_sets() if callable(program_sets) else program_sets
        way = variants.transport(transport)
        if transport == "perf":
            with without_type(RING_TYPE, btf or KERNEL_BTF) as forced:
                return self._start(program_sets, forced, hook, way)
        if transport is None:
            self._tell_transport(way)
        return self._start(program_sets, btf, hook, way)

    def _start(
        self, program_sets: list[ProgramSet], btf: Path | None, hook: str | None, way: Transport
    ) -> tuple[Object, ProgramSet]:
        failure: LibbpfError | None = None
        whys: dict[str, str] = {}  # by hook or program set: the reason
        for each, chosen in product(variants.hooks(hook), program_sets):
            if hook is None and each.asked and variants.works(each.asked).ok is False:
                whys[each.name] = f"{each.asked.name}: {variants.works(each.asked).why}"
                continue
            if not way.takes(each) or not self._is_possible(chosen):
                continue
            try:
                obj = self._try(way, each, chosen, btf)
            except LibbpfError as error:
                log.info("no %s, %s with %s: %s", way.name, each.name, sorted(chosen.hooks), error)
                failure = refusal(error)
                whys[each.name] = _why(each, error)
                continue
            self.runs = {"hook": each.name, "transport": way.name, "ledger": _ledger(obj)}
            self._tell_hook(each, hook, whys)
            return obj, chosen
        raise self._refused(failure)

    def _tell_transport(self, way: Transport) -> None:
        better = variants.TRANSPORTS[0]
        if way != better:
            why = variants.all_work(better.needs).why
            self._told.append(f"{way.shown} take the place of the {better.shown} ({why})")

    def _tell_hook(self, hook: Hook, forced: str | None, whys: Mapping[str, str]) -> None:
        """Report a fallback to a hook other than the best one that this command has."""
        better = next((each for each in variants.HOOKS if each.name in whys), None)
        if forced is None and better and better != hook:
            why = whys[better.name]
            self._told.append(
                f"{hook.name} runs in the place of {better.name}, {hook.slower} ({why})"
            )

    def follows_listeners(self, obj: Object) -> bool:
        """Return whether the programs need the owners of listeners."""
        return _tracks(obj) or Role.ROLE_SERVER in self.filters.roles

    def remarks(self, chosen: ProgramSet) -> list[str]:
        """Return remarks on fallbacks and on missing parts, for the user."""
        if self.unseen is None:
            missing = sorted(self.missing)
            told = [f"{name} isn't seen: this kernel has no such tracepoint" for name in missing]
        else:
            told = function_hooks.remarks(self.unseen)
        chosen_told = [each.replace("{why}", self._why_not) for each in chosen.remarks]
        return [*self._told, *told, *chosen_told]

    def _is_possible(self, chosen: ProgramSet) -> bool:
        """Probe first: it takes a tenth of the time that the refusal of all programs does."""
        answer = variants.hooks_work(chosen.hooks)
        if answer.ok is False:
            log.info("no %s: %s", ", ".join(sorted(chosen.hooks)), answer.why)
            self._why_not = self._why_not or answer.why
        return answer.ok is not False

    def _refused(self, failure: LibbpfError | None) -> CgnetError:
        said = f"\n{failure.log}" if failure and failure.log else ""
        if failure and failure.errno == errno.EPERM:
            return NotPermittedError(f"the kernel forbids to load BPF programs ({failure}){said}")
        why = f"({failure}){said}" if failure else "of the hooks that were asked for"
        return UnsupportedError(
            f"this kernel takes none of the variants of {self.name} {why}; cgnet doctor tells more"
        )

    def _try(self, way: Transport, hook: Hook, chosen: ProgramSet, btf: Path | None) -> Object:
        """Load and attach a variant, without the iterators that the kernel refuses."""
        self._refused_iterators = {}
        while True:
            try:
                obj, told = self._load(way, hook, chosen, btf)
            except LibbpfError as error:
                failed = FAILED.search(refusal(error).log)
                if not failed or failed[1] not in self._iterators:
                    raise
                log.info("no %s: %s", failed[1], error)
                self._refused_iterators[failed[1]] = strerror(error.errno)
                continue
            self._told += told
            return obj

    def _load(
        self, way: Transport, hook: Hook, chosen: ProgramSet, btf: Path | None
    ) -> tuple[Object, list[str]]:
        """Return the attached object, and remarks on its iterators."""
        self._require_going_on()
        config = self._config(chosen)
        obj = self._open(
            object_path(self.name, hook, self.folder), btf, config if hook.folds else None
        )
        try:
            self._iterators, told = self._choose_iterators(obj, hook, chosen)
            programs = self._there(self._wanted(obj, hook, chosen), btf)
            self._prepare(obj, way.unused_maps, programs)
            if way.logs_briefly:
                obj.log_briefly()
            obj.set_constants(CONFIG_SECTION, config)
            obj.load()
            self._require_going_on()
            obj.ring("ring")  # before any program writes
            self._attach(obj, programs)
            unseen = self._add_functions(obj, way, chosen, btf)
        except BaseException:
            obj.close()
            raise
        if chosen.unseen is not None:
            missing = dict.fromkeys(sorted(self.missing), "no such tracepoint")
            self.unseen = missing | {**chosen.unseen} | unseen
        return obj, told

    def _require_going_on(self) -> None:
        if self._stopped():
            raise StoppedError("stopped before tracing began")

    def _config(self, chosen: ProgramSet) -> bytes:
        constants = self.config | (self.counting.constants() if self.counting else {})
        return self.filters.config(chosen.sync_errors, constants)

    def _open(self, path: Path, btf: Path | None, folded: bytes | None) -> Object:
        try:
            return Object(path, btf, (CONFIG_SECTION, folded) if folded else None)
        except LibbpfError as error:
            if error.errno == errno.ENOENT:
                raise CgnetError(f"{path} is missing; build or reinstall cgnet") from error
            raise damaged(path, self.layouts[0], error.log or str(error)) from error

    def _choose_iterators(
        self, obj: Object, hook: Hook, chosen: ProgramSet
    ) -> tuple[frozenset[str], list[str]]:
        """Return the iterators to load, and remarks on those that this kernel refuses."""
        shown = frozenset[str]().union(*(look.programs for look in chosen.looks))
        there = {
            program.name
            for program in obj.programs
            if (program.hook == ITERATOR or program.name in shown) and self._has_role(obj, program)
        }
        taken, told = set(), []
        for name in SEED_PROGRAMS:
            if name in self._refused_iterators:
                told.append(NO_SEEDS.format(why=self._refused_iterators[name]))
            elif name in there and not name.startswith(chosen.left_out):
                taken.add(name)
        whys: list[str] = []
        for look in chosen.looks:
            programs = look.programs & there
            if look.programs and not programs:
                continue
            why = self._why_no(look, hook)
            if not why:
                told += [f"{look.remark} ({'; '.join(whys)})"] if whys and look.remark else []
                return frozenset(taken | programs), list(dict.fromkeys(told))
            whys.append(why)
        return frozenset(taken), list(dict.fromkeys(told))

    def _why_no(self, look: Look, hook: Hook) -> str:
        """Return why a look isn't possible; "" if it is."""
        needs = tuple(each for each in look.way.needs if each not in hook.needs)
        whys = (why for name, why in self._refused_iterators.items() if name in look.programs)
        return variants.all_work(needs).why or next(whys, "")

    def _wanted(self, obj: Object, hook: Hook, chosen: ProgramSet) -> list[Program]:
        """Return the programs to load; those that follow cgroups come first."""
        wanted = [
            program
            for program in obj.programs
            if program.name in CGROUP_PROGRAMS
            or program.name in self._iterators
            or (
                program.hook == hook.name
                and not program.name.startswith(chosen.left_out)
                and self._has_role(obj, program)
            )
        ]
        return sorted(wanted, key=lambda program: program.name not in CGROUP_PROGRAMS)

    def _there(self, programs: list[Program], btf: Path | None) -> list[Program]:
        """Remove optional programs whose tracepoint doesn't exist."""
        names = {_target(each) for each in programs if each.name.startswith(OPTIONAL)}
        self.missing = missing_tracepoints(names, btf or KERNEL_BTF) if names else frozenset()
        return [
            each
            for each in programs
            if not each.name.startswith(OPTIONAL) or _target(each) not in self.missing
        ]

    def _has_role(self, obj: Object, program: Program) -> bool:
        """Return whether the connections that a program sees are wanted."""
        if _tracks(obj):
            return True
        role = ROLE_OF_PROGRAMS.get(program.name.partition("_")[0])
        return role is None or role in self.filters.roles

    def _prepare(self, obj: Object, unused: frozenset[str], programs: list[Program]) -> None:
        check_layouts(obj, (*self.layouts, *IN_EVERY_OBJECT, *BUT_AT_FUNCTIONS))
        obj.keep({program.name for program in programs}, set(unused))
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

    def _attach(self, obj: Object, programs: list[Program]) -> None:
        """Attach programs that follow cgroups, mark existing cgroups, attach the rest, iterate."""
        first = len(CGROUP_PROGRAMS)
        for program in programs[:first]:
            self._attach_one(obj, program)
        self.filters.fill(obj)
        for name, entries in self.maps.items():
            for key, value in entries.items():
                obj.map(name).update(key, value)
        rest = programs[first:]
        for program in rest:
            if program.hook != ITERATOR:
                self._attach_one(obj, program)
        if "ledger_seed" in self._iterators:
            obj.iterate(next(each for each in rest if each.name == "ledger_seed"))
        else:
            self._seed(obj)

    def _add_functions(
        self, main: Object, way: Transport, chosen: ProgramSet, btf: Path | None
    ) -> dict[str, str]:
        """Run programs at functions beside the main ones; return the stages left out, and why.

        A stage whose programs the kernel refuses is left out alone. Raises LibbpfError for programs
        that aren't of a stage.
        """
        refused: dict[str, str] = {}
        while True:
            functions = {
                name: how
                for name, how in chosen.functions.items()
                if function_hooks.stage_of(name) not in refused
            }
            if not functions and not chosen.hooks:
                return refused
            try:
                return refused | self._load_functions(
                    main, way, chosen._replace(functions=functions), btf
                )
            except LibbpfError as error:
                failed = FAILED.search(refusal(error).log)
                if chosen.hooks:
                    raise
                log.info("no programs at functions: %s", error)
                names = [failed[1]] if failed else functions
                refused |= {function_hooks.stage_of(name): strerror(error.errno) for name in names}

    def _load_functions(
        self, main: Object, way: Transport, chosen: ProgramSet, btf: Path | None
    ) -> dict[str, str]:
        """Load and attach programs at functions; return the stages that fail to attach, and why."""
        self._require_going_on()
        obj = self._open(functions_path(self.name, self.folder), btf, self._config(chosen))
        try:
            check_layouts(obj, (*self.layouts, *IN_EVERY_OBJECT))
            programs = [
                each
                for each in obj.programs
                if each.hook in chosen.hooks or each.name in chosen.functions
            ]
            obj.keep({each.name for each in programs}, set(way.unused_maps))
            for each in programs:
                if chosen.functions.get(each.name) == MULTI_WAY:
                    obj.use_multi(each)
            obj.share_maps(main)
            if way.logs_briefly:
                obj.log_briefly()
            obj.load()
        except BaseException:
            obj.close()
            raise
        main.run_beside(obj)
        unattached: dict[str, str] = {}
        for each in programs:
            if each.name in chosen.functions:
                unattached |= function_hooks.attach(obj, each, chosen.functions[each.name])
            else:
                self._attach_one(obj, each)
        return unattached

    def _seed(self, obj: Object) -> None:
        """Find the owners of open sockets in /proc."""
        if self.follows_listeners(obj):
            sockets = open_sockets.find()
            maps = obj.map("listeners"), obj.map("listening")
            open_sockets.seed_listeners(*maps, sockets, self.filters)
            if obj.has_map("seeds") and _tracks(obj):
                open_sockets.seed_sockets(obj.map("seeds"), sockets, self.filters)
            if socket_queries.can_ask(obj):
                socket_queries.learn_open(obj, sockets)

    def _attach_one(self, obj: Object, program: Program) -> None:
        if program.hook == "tracepoint":  # the link closes the perf event
            obj.attach(program, tracefs.open_tracepoint(program.section.partition("/")[2]))
        else:
            obj.attach(program)


def _why(hook: Hook, error: LibbpfError) -> str:
    """Return why a hook's programs were refused: a missing requirement, else the error."""
    answer = variants.all_work(hook.needs)
    return answer.why or str(error)


def _ledger(obj: Object) -> str:
    """Return the ledger's name in the summary. A ledger of all sockets is "storage" or "hash"."""
    if obj.has_map("ledger_hash"):
        return "hash"
    return "storage" if _tracks(obj) else "slots"


def _target(program: Program) -> str:
    """Return the tracepoint that a program's section names."""
    return program.section.partition("/")[2]


def _tracks(obj: Object) -> bool:
    """Return whether an object keeps a ledger of all sockets."""
    return any(program.name == TRACKING_PROGRAM for program in obj.programs)
