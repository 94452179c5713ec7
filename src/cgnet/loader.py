# SPDX-License-Identifier: BSD-2-Clause
"""Handles of libbpf: a BPF object, its programs, maps and ring buffers.

A closed handle raises ValueError instead of passing a dangling pointer. An object keeps its links,
and destroys them before itself, last one first.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cgnet.errors import LibbpfError
from cgnet.kernel._libbpf import IterAttachOpts, MultiOpts, OpenOpts, lib
from cgnet.kernel.btf import variables
from cgnet.kernel.constant_folding import SECTION, fold
from cgnet.kernel.perf_buffer import PerfBuffers
from cgnet.kernel.program_stats import ProgramStats, stats_of
from cgnet.kernel.ring_buffer import Ring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cgnet.kernel.ring_buffer import Reader

log = logging.getLogger(__name__)

PERF = "perf"  # the map of perf buffers, in every object with a ring
BPF_EXIST = 2  # linux/bpf.h
ITERATOR_BYTES = 1 << 16  # more than the kernel keeps: each read returns whole items
LOG_STATS = 4  # linux/bpf_verifier.h: BPF_LOG_STATS
TRACE_KPROBE_MULTI = 42  # linux/bpf.h: BPF_TRACE_KPROBE_MULTI


def _parts(iterator: int) -> Iterator[bytes]:
    """Yield what an iterator writes. The kernel has it read again after a million silent steps."""
    while True:
        try:
            part = os.read(iterator, ITERATOR_BYTES)
        except BlockingIOError:
            continue
        if not part:
            return
        yield part


def libbpf() -> tuple[str, str | None]:
    """Return the version of libbpf, and its file if known. Raises UnsupportedError, UsageError."""
    version = lib.libbpf_version_string().decode().removeprefix("v")
    maps = ""
    with suppress(OSError):  # no /proc: others report it
        maps = Path("/proc/self/maps").read_text(errors="surrogateescape")
    mapped = (line.split(None, 5)[5:] for line in maps.split("\n"))
    return version, next((file[0] for file in mapped if file and "/libbpf" in file[0]), None)


class Map:
    """A map of a loaded object. Keys and values are bytes, of the map's own sizes."""

    def __init__(self, owner: Object, handle: Any) -> None:
        self._owner = owner
        self._handle = handle

    @property
    def handle(self) -> Any:
        """The C map. Raises ValueError once the object is closed."""
        self._owner.require_open()
        return self._handle

    @property
    def fd(self) -> int:
        """The map's file descriptor, owned by the object."""
        return int(lib.bpf_map__fd(self.handle))

    def update(self, key: bytes, value: bytes) -> None:
        """Set an entry. Raises LibbpfError (E2BIG: the map is full)."""
        lib.bpf_map_update_elem(self.fd, key, value, 0)

    def replace(self, key: bytes, value: bytes) -> bool:
        """Set an existing entry; return whether there was one. Raises LibbpfError."""
        try:
            lib.bpf_map_update_elem(self.fd, key, value, BPF_EXIST)
        except LibbpfError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    def lookup(self, key: bytes, size: int) -> bytes:
        """Return an entry's value, ``size`` bytes. Raises LibbpfError (ENOENT: no such entry)."""
        value = ctypes.create_string_buffer(size)
        lib.bpf_map_lookup_elem(self.fd, key, value)
        return value.raw

    def discard(self, key: bytes) -> bool:
        """Remove an entry; return whether there was one. Raises LibbpfError."""
        try:
            lib.bpf_map_delete_elem(self.fd, key)
        except LibbpfError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    def keys(self, size: int) -> Iterator[bytes]:
        """Yield the keys, of ``size`` bytes; some repeat or are missed if others change the map.

        Raises LibbpfError.
        """
        key: bytes | None = None
        while True:
            following = ctypes.create_string_buffer(size)
            try:
                lib.bpf_map_get_next_key(self.fd, key, following)
            except LibbpfError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            key = following.raw
            yield key


class Program:
    """A program of an object. bpf/README.md has the grammar of its section and its name."""

    def __init__(self, owner: Object, handle: Any) -> None:
        self._owner = owner
        self._handle = handle
        self.name: str = lib.bpf_program__name(handle).decode()
        self.section: str = lib.bpf_program__section_name(handle).decode()

    @property
    def handle(self) -> Any:
        """The C program. Raises ValueError once the object is closed."""
        self._owner.require_open()
        return self._handle

    @property
    def hook(self) -> str:
        """The kind of hook, as in the section name: ``tp_btf``, for example."""
        return self.section.partition("/")[0]

    @property
    def target(self) -> str:
        """The tracepoint, function or iterator that the section names."""
        return self.section.partition("/")[2]

    @property
    def may_lack_target(self) -> bool:
        """Whether it is left out on a kernel without its tracepoint."""
        return self.name.startswith("trace_")

    @property
    def stage(self) -> tuple[str, str] | None:
        """The stage of packets that it reports from a function, and the part: v4, v6 or both."""
        stage, *rest = self.name.split("__")
        return (stage, rest[0]) if len(rest) > 1 else None

    def stats(self) -> ProgramStats:
        """Return the run count and time; zeros unless the kernel's statistics are on."""
        return stats_of(lib.bpf_program__fd(self.handle))


class Object:
    """A BPF object file: open, select programs and maps, load, attach. Use it with ``with``."""

    def __init__(
        self, path: Path, btf: Path | None = None, folded: Mapping[str, bytes] | None = None
    ) -> None:
        """Open ``path``; ``btf`` replaces the kernel's own BTF for CO-RE. Raises LibbpfError.

        ``folded`` has constants to be folded into the code, by variable.
        """
        self.path = path
        self._cleanup = ExitStack()
        self._links: dict[str, Any] = {}
        self._beside: list[Object] = []
        self._kept: frozenset[str] = frozenset()
        self._left_out: frozenset[str] = frozenset()  # maps
        self._readers: dict[str, Reader] = {}
        options = OpenOpts(sz=ctypes.sizeof(OpenOpts))
        if btf is not None:
            options.btf_custom_path = str(btf).encode()
        self._handle = self._open(options, folded)
        self._cleanup.callback(self._close_object)
        self.programs = tuple(
            Program(self, handle) for handle in self._each(lib.bpf_object__next_program)
        )
        self._maps = {
            lib.bpf_map__name(handle).decode(): Map(self, handle)
            for handle in self._each(lib.bpf_object__next_map)
        }

    def _open(self, options: OpenOpts, folded: Mapping[str, bytes] | None) -> Any:
        path = str(self.path).encode()
        if folded is None:
            return lib.bpf_object__open_file(path, options)
        try:
            file = fold(self.path.read_bytes(), folded)
        except (OSError, ValueError):  # libbpf reports the reason
            return lib.bpf_object__open_file(path, options)
        options.object_name = self.path.name.partition(".")[0].encode()
        return lib.bpf_object__open_mem(file, len(file), options)

    def _each(self, following: Callable[[Any, Any], Any]) -> Iterator[Any]:
        handle = following(self.handle, None)
        while handle:
            yield handle
            handle = following(self.handle, handle)

    def require_open(self) -> None:
        """Raise ValueError once closed."""
        if self._handle is None:
            raise ValueError(f"{self.path.name} is closed")

    @property
    def handle(self) -> Any:
        """The C object. Raises ValueError once closed."""
        self.require_open()
        return self._handle

    def _close_object(self) -> None:
        lib.bpf_object__close(self._handle)
        self._handle = None

    def map(self, name: str) -> Map:
        """Return the map called ``name``. Raises KeyError."""
        self.require_open()
        return self._maps[name]

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of its maps."""
        return tuple(self._maps)

    def has_map(self, name: str) -> bool:
        """Return whether the object has a map called ``name``."""
        return name in self._maps

    def keep(self, programs: set[str], without_maps: set[str]) -> None:
        """Before loading: select these programs, and leave out these maps if present."""
        self._kept, self._left_out = frozenset(programs), frozenset(without_maps)
        for program in self.programs:
            lib.bpf_program__set_autoload(program.handle, program.name in programs)
        for name in without_maps & self._maps.keys():
            lib.bpf_map__set_autocreate(self.map(name).handle, False)  # noqa: FBT003 - C has no names

    def share_maps(self, other: Object) -> None:
        """Before loading: use a loaded object's maps, where both have one of a name.

        Maps left out of this object must be those left out of the other one. Raises LibbpfError.
        """
        for name in self._maps.keys() & other._maps.keys() - self._left_out - {SECTION}:
            lib.bpf_map__reuse_fd(self.map(name).handle, other.map(name).fd)

    def run_beside(self, other: Object) -> None:
        """From now on, ``other`` is detached and closed with this object, each time before it."""
        self._beside.append(other)
        self._cleanup.callback(other.close)

    def resize(self, name: str, max_entries: int) -> None:
        """Before loading: set a map's number of entries; a ring buffer's size is in bytes."""
        lib.bpf_map__set_max_entries(self.map(name).handle, max_entries)

    def resize_inner(self, name: str, like: tuple[int, int, int, int]) -> None:
        """Before loading: set the type and sizes of the inner maps of a map of maps.

        ``like``: type, key and value size in bytes, number of entries. Raises LibbpfError.

        Kernels before Linux commit 134fede4eecf "bpf: Relax max_entries check for most of the inner
        map types" (in v5.10) accept only inner maps with exactly this number of entries.
        """
        kind, key_size, value_size, max_entries = like
        fd = lib.bpf_map_create(kind, None, key_size, value_size, max_entries, None)
        self._cleanup.callback(os.close, fd)
        lib.bpf_map__set_inner_map_fd(self.map(name).handle, fd)

    def preallocate(self, outer: str, inner: tuple[str, ...]) -> None:
        """Before loading: have all entries of the tables of a map of maps allocated at once."""
        for handle in (
            lib.bpf_map__inner_map(self.map(outer).handle),
            *(self.map(name).handle for name in inner),
        ):
            lib.bpf_map__set_map_flags(handle, 0)

    @cached_property
    def constants(self) -> Mapping[str, tuple[int, int]]:
        """The offset and size of each constant."""
        return variables(lib.bpf_object__btf(self.handle), SECTION)

    def set_constants(self, values: Mapping[str, bytes]) -> None:
        """Before loading: set constants. Raises ValueError for one that isn't there, or its size."""
        address = lib.bpf_map__initial_value(self.map(SECTION).handle, ctypes.c_size_t())
        for name, value in values.items():
            offset, size = self.constants.get(name, (0, 0))
            if size != len(value):
                raise ValueError(f"{name} has {size} bytes in {self.path.name}, not {len(value)}")
            ctypes.memmove(address + offset, value, size)

    def log_briefly(self) -> None:
        """Before loading: limit the verifier's log to the reason for refusing a program.

        If a program's walk fills a log of 16 MB, libbpf retries with a larger buffer. A kernel 5.4
        refuses that with EINVAL, which hides the verifier's error.
        """
        for program in self.programs:
            lib.bpf_program__set_log_level(program.handle, LOG_STATS)

    def load(self) -> None:
        """Create the maps and have the kernel verify the programs. Raises LibbpfError."""
        lib.bpf_object__load(self.handle)

    def attach(self, program: Program, perf_event: int | None = None) -> None:
        """Attach to the hook in the section name, or to an open perf event. Raises LibbpfError."""
        if perf_event is None:
            link = lib.bpf_program__attach(program.handle)
        else:
            link = lib.bpf_program__attach_perf_event(program.handle, perf_event)
        self._links[program.name] = link
        log.debug("attached %s to %s", program.name, program.section)

    def aim(self, program: Program, function: str) -> None:
        """Before loading: set the target function of an fentry program. Raises LibbpfError."""
        lib.bpf_program__set_attach_target(program.handle, 0, function.encode())

    def use_multi(self, program: Program) -> None:
        """Before loading: turn a kprobe program into a kprobe.multi program. Raises LibbpfError."""
        lib.bpf_program__set_expected_attach_type(program.handle, TRACE_KPROBE_MULTI)

    def attach_kprobe(self, program: Program, function: str, *, multi: bool) -> None:
        """Attach a kprobe or kretprobe program to a function. Raises LibbpfError."""
        returns = program.hook == "kretprobe"
        if multi:
            symbols = (ctypes.c_char_p * 1)(function.encode())
            options = MultiOpts(
                sz=ctypes.sizeof(MultiOpts), syms=symbols, cnt=len(symbols), retprobe=returns
            )
            link = lib.bpf_program__attach_kprobe_multi_opts(program.handle, None, options)
        else:
            link = lib.bpf_program__attach_kprobe(program.handle, returns, function.encode())
        self._links[program.name] = link
        log.debug("attached %s to %s", program.name, function)

    def iterate(self, program: Program, elements_of: Map | None = None) -> Iterator[bytes]:
        """Run an iterator program, and yield its output: whole items that it wrote, as they come.

        ``elements_of`` is the map of an iterator over map elements. Raises LibbpfError, OSError.
        """
        options = None
        if elements_of is not None:
            info = ctypes.c_uint32(elements_of.fd)  # union bpf_iter_link_info: map_fd
            options = IterAttachOpts(
                ctypes.sizeof(IterAttachOpts), ctypes.addressof(info), ctypes.sizeof(info)
            )
        link = lib.bpf_program__attach_iter(program.handle, options)
        try:
            results = lib.bpf_iter_create(lib.bpf_link__fd(link))
            try:
                yield from _parts(results)
            finally:
                os.close(results)
        finally:
            lib.bpf_link__destroy(link)

    def iterate_if_loaded(self, name: str, elements_of: str | None = None) -> bytes | None:
        """Run the iterator ``name``, over a map's elements if given, and return its whole output.

        None if the program isn't selected, or the map isn't there. Raises LibbpfError, OSError.
        """
        parts = self.iterator(name, elements_of)
        return None if parts is None else b"".join(parts)

    def iterator(self, name: str, elements_of: str | None = None) -> Iterator[bytes] | None:
        """Return what ``iterate`` yields for the iterator ``name``, which begins when it is used.

        None if the program isn't selected, or the map isn't there.
        """
        if elements_of and not self.has_map(elements_of):
            return None
        for program in self.programs:
            if program.name == name and name in self._kept:
                return self.iterate(program, self.map(elements_of) if elements_of else None)
        return None

    def attached(self) -> list[Program]:
        """Return the attached programs, and those of the objects beside this one."""
        found = [program for program in self.programs if program.name in self._links]
        return [*found, *(program for other in self._beside for program in other.attached())]

    def detach(self) -> None:
        """Detach all programs, last one first."""
        for other in self._beside:
            other.detach()
        while self._links:
            _, link = self._links.popitem()
            lib.bpf_link__destroy(link)

    def ring(self, name: str) -> Reader:
        """Return the reader of a ring buffer, the same one on each call; the object closes it.

        If the ring is left out, it reads perf buffers with the ring's size in total. The first call
        creates them: make it before attaching programs, or their first records are lost.
        """
        if name in self._readers:
            return self._readers[name]
        ring = self.map(name)
        size = lib.bpf_map__max_entries(ring.handle)
        reader: Reader = (
            PerfBuffers(self.map(PERF).fd, size) if name in self._left_out else Ring(ring.fd, size)
        )
        self._cleanup.callback(reader.close)
        self._readers[name] = reader
        return reader

    def close(self) -> None:
        """Detach, close readers, unload. Closing twice does nothing."""
        self.detach()
        self._cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
