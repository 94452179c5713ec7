# SPDX-License-Identifier: BSD-2-Clause
"""From a command and its filters to programs that run: the best variant that this kernel takes."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cgnet import features, tracefs
from cgnet._layouts import CGROUP_EVENT, CGROUP_KEY, CONFIG, HEAD, OWNER
from cgnet.btf import check_layouts, damaged
from cgnet.errors import CgnetError, LibbpfError, NotPermittedError, UnsupportedError
from cgnet.loader import Object

if TYPE_CHECKING:
    from cgnet._layouts import Layout, SyncErrors
    from cgnet.features import Hook
    from cgnet.filters import Filters
    from cgnet.loader import Program

log = logging.getLogger(__name__)

OBJECTS = Path(__file__).parent / "_bpf"
CROSSING = (HEAD, OWNER, CGROUP_EVENT, CGROUP_KEY, CONFIG)  # in every object
CGROUP_PROGRAMS = frozenset({"cgroup_born", "cgroup_gone"})


class Extra(NamedTuple):
    """Programs beside the main ones, by kind of hook, and what the kernel side is told of them."""

    hooks: frozenset[str]
    sync_errors: SyncErrors
    remarks: tuple[str, ...] = ()  # for the user, when this is what the kernel takes


class Launch:
    """The programs of a command, from the file to the hooks. Close ``obj`` in the end."""

    def __init__(
        self, name: str, layouts: tuple[Layout, ...], filters: Filters, buffer: int
    ) -> None:
        """``name`` is the object's, of _bpf/; ``buffer`` is the ring's size in bytes."""
        self.path = OBJECTS / f"{name}.bpf.o"
        self.layouts = layouts
        self.filters = filters
        self.buffer = buffer

    def start(
        self, extras: list[Extra], btf: Path | None, hook: str | None
    ) -> tuple[Object, Extra]:
        """Load and attach; each variant is tried in order, none is guessed.

        Raises NotPermittedError, UnsupportedError or LayoutError.
        """
        features.require_capabilities()
        features.require_btf(btf)
        failure: LibbpfError | None = None
        for each in features.hooks(hook):
            for extra in extras:
                try:
                    return self._try(each, extra, btf), extra
                except LibbpfError as error:
                    log.info("no %s with %s: %s", each.name, sorted(extra.hooks), error)
                    failure = error
        raise self._refused(failure)

    def _refused(self, failure: LibbpfError | None) -> CgnetError:
        said = f"\n{failure.log}" if failure and failure.log else ""
        if failure and failure.errno == errno.EPERM:
            return NotPermittedError(f"the kernel forbids to load BPF programs ({failure}){said}")
        return UnsupportedError(
            f"this kernel takes none of the variants of {self.path.name} ({failure}){said}"
        )

    def _try(self, hook: Hook, extra: Extra, btf: Path | None) -> Object:
        obj = self._open(btf)
        try:
            programs = self._wanted(obj, hook, extra)
            self._prepare(obj, hook, extra, programs)
            obj.load()
            self._attach(obj, programs)
        except BaseException:
            obj.close()
            raise
        return obj

    def _open(self, btf: Path | None) -> Object:
        try:
            return Object(self.path, btf)
        except LibbpfError as error:
            if error.errno == errno.ENOENT:
                raise CgnetError(f"{self.path} is missing; build or reinstall cgnet") from error
            raise damaged(self.path, self.layouts[0], error.log or str(error)) from error

    def _wanted(self, obj: Object, hook: Hook, extra: Extra) -> list[Program]:
        """Return the programs to run; those that follow cgroups come first."""
        wanted = [
            program
            for program in obj.programs
            if program.name in CGROUP_PROGRAMS
            or program.hook == hook.name
            or program.hook in extra.hooks
        ]
        return sorted(wanted, key=lambda program: program.name not in CGROUP_PROGRAMS)

    def _prepare(self, obj: Object, hook: Hook, extra: Extra, programs: list[Program]) -> None:
        check_layouts(obj, (*self.layouts, *CROSSING))
        obj.keep({program.name for program in programs}, set(hook.unused_maps))
        obj.resize("ring", self.buffer)
        self.filters.resize(obj)
        obj.set_constants(".rodata.config", self.filters.config(extra.sync_errors))

    def _attach(self, obj: Object, programs: list[Program]) -> None:
        """Attach what follows new cgroups, then mark the old ones, then attach the rest."""
        first = len(CGROUP_PROGRAMS)
        for program in programs[:first]:
            self._attach_one(obj, program)
        self.filters.fill(obj)
        for program in programs[first:]:
            self._attach_one(obj, program)

    def _attach_one(self, obj: Object, program: Program) -> None:
        if program.hook == "tracepoint":  # the link closes the event
            obj.attach(program, tracefs.open_tracepoint(program.section.partition("/")[2]))
        else:
            obj.attach(program)
