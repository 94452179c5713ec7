# SPDX-License-Identifier: BSD-2-Clause
"""Load and attach a command's programs: the best variant that this kernel accepts."""

from __future__ import annotations

import errno
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from cgnet.loader import Object
from cgnet.owners import cgroups, open_sockets, socket_queries
from cgnet.records._layouts import (
    ADDRESS_KEY,
    CGROUP_EVENT,
    CGROUP_KEY,
    CGROUP_MARK,
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
    PeerConfig,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cgnet.counting.counts import Counting
    from cgnet.filters.selection import Filters
    from cgnet.kernel.variants import Chosen, Job, Variant
    from cgnet.loader import Program
    from cgnet.records._layouts import Packable
    from cgnet.run.command import Command

log = logging.getLogger(__name__)

OBJECTS = Path(__file__).parents[1] / "_bpf"
# Structures shared with the kernel side.
IN_EVERY_OBJECT = (
    HEAD, OWNER, CGROUP_KEY, CGROUP_MARK, PID_VALUE, NETNS_VALUE, ADDRESS_KEY, PORT_FLAGS, COUNT_KEY,
)  # fmt: skip
BUT_AT_FUNCTIONS = (CGROUP_EVENT, LISTENER_KEY, HOLDER, DESCRIPTOR, TCP_LISTENER, LISTENER_FD)
CGROUP_PROGRAMS = frozenset({"cgroup_created", "cgroup_removed", "cgroup_renamed"})
RING_TYPE = "bpf_ringbuf"  # transport.bpf.h looks it up in the kernel's BTF
ITERATOR = "iter"
SEED_PROGRAM, SEEDS_MAP = "ledger_seed", "seeds"  # find owners of sockets that were open before
PERF = "perf"  # the transport
BEING_MADE = "ends_being_made"  # the map of ends whose other end may come
FAILED = re.compile(r"prog '(\w+)': failed to ")  # libbpf names the program


def object_path(name: str, hook: Variant, folder: Path = OBJECTS) -> Path:
    """Return the path of an object file for a hook."""
    return folder / f"{name}.{hook.way}.bpf.o"


def functions_path(name: str, folder: Path = OBJECTS) -> Path:
    """Return the path of the object file with a command's programs at functions, for any hook."""
    return folder / f"{name}_functions.raw.bpf.o"


class Launch:
    """A command's programs, from the object file to the hooks. The caller closes the object."""

    def __init__(
        self,
        command: Command,
        filters: Filters,
        buffer: int,
        *,
        counting: Counting | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """``buffer`` is the ring's size in bytes.

        ``stopped`` returns whether to stop before tracing begins.
        """
        self.command = command
        self.folder = OBJECTS
        self.filters = filters
        self.buffer = buffer
        self.counting = counting
        self._stopped = stopped
        self._jobs: list[Job] = []
        self._refused: dict[Variant, str] = {}  # at a load, and why
        self._plan: dict[str, Chosen] = {}
        self._missing: dict[str, str] = {}  # tracepoints and stages that aren't there, and why

    def start(
        self, btf: Path | None, hook: str | None = None, transport: str | None = None
    ) -> Object:
        """Load and attach the first variants that the kernel accepts.

        ``hook`` and ``transport`` are codes of the only ones to try. Raises NotPermittedError,
        UnsupportedError, LayoutError, StoppedError, or CgnetError where this host lacks resources.
        """
        variants.require_capabilities()
        variants.require_btf(btf)
        if transport == PERF:
            hook = hook or variants.RAW  # typed programs write to the ring buffer alone
        forced = {variants.HOOK.name: hook, variants.TRANSPORT.name: transport}
        self._jobs = [_forced(job, forced.get(job.name)) for job in self.command.needed()]
        self._choose()
        if transport != PERF:
            return self._start(btf)
        with without_type(RING_TYPE, btf or KERNEL_BTF) as without_ring:
            return self._start(without_ring)

    def _start(self, btf: Path | None) -> Object:
        while True:
            try:
                if obj := self._load(btf):
                    return obj
            except LibbpfError as error:
                self._refuse(refusal(error), self._hook)

    def _choose(self, failure: LibbpfError | None = None) -> None:
        """Choose variants. Raises CgnetError if a job has none; ``failure`` is the last refusal."""
        self._plan = variants.choose(self._jobs, self._refused)
        for each in self._plan.values():
            if not each.variant and not each.job.optional:
                raise self._impossible(failure or f"{each.job.name}: {each.why}")

    def _refuse(self, failure: LibbpfError, suspect: Variant) -> None:
        """Choose again without the variant of the program that failed, or without ``suspect``.

        Raises CgnetError if there is no other one.
        """
        failed = FAILED.search(failure.log)
        names = {failed[1]} if failed else set()
        variant = next((each for each in self._chosen if each.programs & names), suspect)
        log.info("no %s: %s", variant.name, failure)
        if variant == self._hook:  # other programs of the next one may be accepted
            self._refused = {each: why for each, why in self._refused.items() if each.way}
            why = variants.all_work(variant.needs).why or str(failure)
        else:
            why = strerror(failure.errno)
        self._refused[variant] = why
        self._choose(failure)

    @property
    def _hook(self) -> Variant:
        return next(each for each in self._chosen if each.way)

    @property
    def _chosen(self) -> list[Variant]:
        return [each.variant for each in self._plan.values() if each.variant]

    @property
    def runs(self) -> dict[str, Any]:
        """The variants in use, and what they don't see, for the summary."""
        parts = (variants.HOOK.name, variants.TRANSPORT.name, "ledger")
        found: dict[str, Any] = {part: self._plan[part].code for part in parts}
        unseen = self._unseen
        if unseen or self._has_stages:
            found["not_seen"] = list(unseen)
        return found

    @property
    def _has_stages(self) -> bool:
        return any(each.job.optional for each in self._plan.values())

    @property
    def _unseen(self) -> dict[str, str]:
        """Fields and stages that no program reports here, with the reason."""
        chosen = self._plan.values()
        fields = {name: each.why for each in chosen if each.variant for name in each.variant.unseen}
        missing = self._missing if self._has_stages else {}
        return missing | fields | function_hooks.unseen(chosen)

    @property
    def follows_listeners(self) -> bool:
        """Whether the programs need the owners of listeners."""
        return variants.SEEDS.name in self._plan

    @property
    def remarks(self) -> list[str]:
        """Remarks on fallbacks and on missing parts, for the user."""
        told = [each.remark for each in self._plan.values() if each.remark]
        if self._has_stages:
            missing = []
        else:
            missing = [
                f"{name} isn't seen: this kernel has {why}" for name, why in self._missing.items()
            ]
        unseen = function_hooks.remarks(self._unseen)
        return [*told, *missing, *unseen, *self.command.remarks()]

    def _impossible(self, failure: LibbpfError | str) -> CgnetError:
        said, number = "", 0
        if isinstance(failure, LibbpfError):
            said, number = f"\n{failure.log}" if failure.log else "", failure.errno
        if number == errno.EPERM:
            return NotPermittedError(f"the kernel forbids to load BPF programs ({failure}){said}")
        return UnsupportedError(
            f"this kernel takes none of the variants of {self.command.object} ({failure}){said}; "
            "cgnet doctor tells more"
        )

    def _load(self, btf: Path | None) -> Object | None:
        """Return the attached object; None if it needs other constants after a refusal beside it."""
        self._require_going_on()
        config, hook = self._config(), self._hook
        constants = {each.layout.name: each.pack() for each in config}
        path = object_path(self.command.object, hook, self.folder)
        obj = self._open(path, btf, constants if hook.folds else None)
        try:
            programs = self._there(self._wanted(obj), btf)
            layouts = (*self.command.layouts, *(each.layout for each in config))
            check_layouts(obj, (*layouts, *IN_EVERY_OBJECT, *BUT_AT_FUNCTIONS))
            self._keep(obj, programs)
            self._resize(obj)
            obj.set_constants(constants)
            obj.load()
            self._require_going_on()
            obj.ring("ring")  # before any program writes
            self._attach(obj, programs)
            while self._functions and not self._run_beside(obj, constants, btf):
                if self._config() != config:
                    obj.close()
                    return None
        except BaseException:
            obj.close()
            raise
        return obj

    def _run_beside(self, main: Object, constants: Mapping[str, bytes], btf: Path | None) -> bool:
        """Run programs at functions beside the main ones; if refused, choose others for next time."""
        self._require_going_on()
        obj = self._open(
            functions_path(self.command.functions or self.command.object, self.folder),
            btf,
            constants,
        )
        try:
            check_layouts(obj, (*self.command.layouts_at_functions, *IN_EVERY_OBJECT))
            programs = [each for each in obj.programs if each.name in self._functions]
            self._keep(obj, programs)
            for each in programs:
                if self._functions[each.name].code == function_hooks.MULTI_WAY:
                    obj.use_multi(each)
            obj.share_maps(main)
            here = obj.constants
            obj.set_constants({name: value for name, value in constants.items() if name in here})
            obj.load()
            for each in programs:
                self._attach_function(obj, each)
        except LibbpfError as error:
            obj.close()
            self._refuse(refusal(error), next(iter(self._functions.values())))
            return False
        except BaseException:
            obj.close()
            raise
        main.run_beside(obj)
        return True

    def _require_going_on(self) -> None:
        if self._stopped():
            raise StoppedError("stopped before tracing began")

    def _config(self) -> list[Packable]:
        counting = [self.counting.config()] if self.counting else []
        owners = cgroups.config(self.filters.hierarchies)
        own = [*self.command.config(self._chosen), *self._peers()]
        return [owners, self.filters.config(), *counting, *own]

    def _peers(self) -> list[Packable]:
        if not self.command.follows_peers:
            return []
        return [PeerConfig(follow=1, ends=int(self.command.tells_ends))]

    def _open(self, path: Path, btf: Path | None, folded: Mapping[str, bytes] | None) -> Object:
        try:
            return Object(path, btf, folded)
        except LibbpfError as error:
            if error.errno == errno.ENOENT:
                raise CgnetError(f"{path} is missing; build or reinstall cgnet") from error
            raise damaged(path, self.command.layouts[0], error.log or str(error)) from error

    def _wanted(self, obj: Object) -> list[Program]:
        """Return the programs to load; those that follow cgroups come first."""
        chosen = frozenset[str]().union(*(each.programs for each in self._chosen))
        unwanted = (variants.PROGRAMS - chosen) | self.command.left_out()
        wanted = [
            program
            for program in obj.programs
            if program.name in CGROUP_PROGRAMS
            or (
                (program.name in chosen or program.hook == self._hook.code)
                and program.name not in unwanted
            )
        ]
        return sorted(wanted, key=lambda program: program.name not in CGROUP_PROGRAMS)

    def _there(self, programs: list[Program], btf: Path | None) -> list[Program]:
        """Remove programs whose tracepoint may be missing, and is."""
        names = {each.target for each in programs if each.may_lack_target}
        missing = missing_tracepoints(names, btf or KERNEL_BTF) if names else frozenset()
        self._missing = dict.fromkeys(sorted(missing), "no such tracepoint")
        return [each for each in programs if not each.may_lack_target or each.target not in missing]

    def _keep(self, obj: Object, programs: list[Program]) -> None:
        """Select programs, and the maps that their transport uses."""
        unused = frozenset[str]().union(*(each.unused_maps for each in self._chosen))
        obj.keep({program.name for program in programs}, set(unused))
        if any(each.logs_briefly for each in self._chosen):
            obj.log_briefly()

    def _resize(self, obj: Object) -> None:
        obj.resize("ring", self.buffer)
        self.command.prepare(obj)
        self.filters.resize(obj)
        if self.follows_listeners:
            for name in LISTENER_MAPS:
                obj.resize(name, LISTENERS)
        for name in self._small_maps:
            obj.resize(name, 1)
        if obj.has_map(BEING_MADE) and not self.command.follows_peers:
            obj.resize(BEING_MADE, 1)
        for tables in (COUNTS, HISTOGRAMS, SUMS):
            tables.prepare(obj, used=self.counting is not None and self.counting.uses(tables))

    @property
    def _small_maps(self) -> frozenset[str]:
        return frozenset[str]().union(*(each.small_maps for each in self._chosen))

    @property
    def _functions(self) -> dict[str, Variant]:
        """Variants of programs at functions, by the programs' names."""
        return {name: each for each in self._chosen if each.beside for name in each.programs}

    def _attach(self, obj: Object, programs: list[Program]) -> None:
        """Attach programs that follow cgroups, mark existing cgroups, attach the rest, iterate."""
        first = len(CGROUP_PROGRAMS)
        for program in programs[:first]:
            self._attach_one(obj, program)
        self.filters.fill(obj)
        for name, entries in self.command.maps().items():
            for key, value in entries.items():
                obj.map(name).update(key, value)
        for program in programs[first:]:
            self._attach_one(obj, program)
        if self.follows_listeners and obj.iterate_if_loaded(SEED_PROGRAM) is None:
            self._seed(obj)

    @staticmethod
    def _attach_one(obj: Object, program: Program) -> None:
        if program.hook == "tracepoint":  # the link closes the perf event
            obj.attach(program, tracefs.open_tracepoint(program.target))
        elif program.hook != ITERATOR:
            obj.attach(program)

    def _attach_function(self, obj: Object, program: Program) -> None:
        """Attach a program; a stage of packets is left out alone where the kernel refuses it."""
        way = self._functions[program.name].code
        try:
            if program.stage and way in function_hooks.OF_KPROBES:
                multi = way == function_hooks.MULTI_WAY
                obj.attach_kprobe(program, program.target, multi=multi)
            else:
                self._attach_one(obj, program)
        except LibbpfError as error:
            if not program.stage:
                raise
            self._missing[program.stage[0]] = f"{program.target}: {strerror(refusal(error).errno)}"

    def _seed(self, obj: Object) -> None:
        """Find the owners of open sockets in /proc."""
        sockets = open_sockets.find()
        maps = obj.map("listeners"), obj.map("listening")
        open_sockets.seed_listeners(*maps, sockets, self.filters)
        if obj.has_map(SEEDS_MAP) and SEEDS_MAP not in self._small_maps:
            open_sockets.seed_sockets(obj.map(SEEDS_MAP), sockets, self.filters)
        if socket_queries.can_ask(obj):
            socket_queries.learn_open(obj, sockets)


def _forced(job: Job, code: str | None) -> Job:
    """Return a job with the variant of a code alone, which the load tries, or the job itself."""
    if code is None:
        return job
    chosen = job.only(code).variants
    return job._replace(variants=tuple(each._replace(needs=(), shown_by=None) for each in chosen))
