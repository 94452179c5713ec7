# SPDX-License-Identifier: BSD-2-Clause
"""The functions of libbpf 1.x that cgnet calls, as one typed table.

libbpf's messages go to the logger ``cgnet.libbpf``. The error of a failed call includes the last
ones, such as the verifier's log.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

from cgnet.errors import LibbpfError, UnsupportedError, UsageError, strerror

log = logging.getLogger("cgnet.libbpf")

LIBRARY = "libbpf.so.1"
BUNDLED = Path(__file__).parents[1] / "_bpf" / LIBRARY  # in wheels, and in packages for old systems
LOG_LINES = 30  # of the verifier's log, in an error
# The buffer for one libbpf message: the verifier's log may have 16 MiB, with the verdict at its
# end. Pages of the mapping take memory only once they are written to.
PRINTED_BYTES = 1 << 24
# libbpf.h, enum libbpf_print_level
LOG_LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}

PRINT_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
# enum bpf_perf_event_ret (context, cpu, struct perf_event_header *)
EVENT_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class OpenOpts(ctypes.Structure):
    """struct bpf_object_open_opts (libbpf.h, 1.0) up to the last field used, ``sz`` bytes."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
        ("reserved", ctypes.c_uint32),
        ("kconfig", ctypes.c_char_p),
        ("btf_custom_path", ctypes.c_char_p),
    )


class IterAttachOpts(ctypes.Structure):
    """struct bpf_iter_attach_opts (libbpf.h)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("link_info", ctypes.c_void_p),
        ("link_info_len", ctypes.c_uint32),
    )


class MultiOpts(ctypes.Structure):
    """struct bpf_kprobe_multi_opts (libbpf.h, 1.0)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("syms", ctypes.POINTER(ctypes.c_char_p)),
        ("addrs", ctypes.c_void_p),
        ("cookies", ctypes.c_void_p),
        ("cnt", ctypes.c_size_t),
        ("retprobe", ctypes.c_bool),
    )


class _Opaque(ctypes.Structure):
    pass


def _pointer(name: str) -> Any:
    """Return a distinct pointer type, so that ctypes refuses a map where a program is expected."""
    return ctypes.POINTER(type(name, (_Opaque,), {}))


_Object, _Program, _Map, _Link, _Perf, _Btf = map(
    _pointer, ("bpf_object", "bpf_program", "bpf_map", "bpf_link", "perf_buffer", "btf")
)


class _Fn(NamedTuple):
    """A function's return type, argument types, and how its result reports failure."""

    restype: Any
    argtypes: tuple[Any, ...] = ()
    fails: str = "never"  # "negative": returns -errno; "null": NULL and errno


_C_CHAR_P, _VOID_P, _INT, _SIZE = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64

API: dict[str, _Fn] = {
    "libbpf_version_string": _Fn(_C_CHAR_P),
    "libbpf_set_print": _Fn(_VOID_P, (PRINT_CALLBACK,)),
    "bpf_object__open_file": _Fn(_Object, (_C_CHAR_P, ctypes.POINTER(OpenOpts)), "null"),
    "bpf_object__open_mem": _Fn(_Object, (_C_CHAR_P, _SIZE, ctypes.POINTER(OpenOpts)), "null"),
    "bpf_object__load": _Fn(_INT, (_Object,), "negative"),
    "bpf_object__close": _Fn(None, (_Object,)),
    "bpf_object__btf": _Fn(_Btf, (_Object,), "null"),
    "bpf_object__next_program": _Fn(_Program, (_Object, _Program)),
    "bpf_object__next_map": _Fn(_Map, (_Object, _Map)),
    "bpf_program__name": _Fn(_C_CHAR_P, (_Program,)),
    "bpf_program__section_name": _Fn(_C_CHAR_P, (_Program,)),
    "bpf_program__set_autoload": _Fn(_INT, (_Program, ctypes.c_bool), "negative"),
    "bpf_program__set_log_level": _Fn(_INT, (_Program, _U32), "negative"),
    "bpf_program__attach_iter": _Fn(_Link, (_Program, ctypes.POINTER(IterAttachOpts)), "null"),
    "bpf_program__attach": _Fn(_Link, (_Program,), "null"),
    "bpf_program__set_attach_target": _Fn(_INT, (_Program, _INT, _C_CHAR_P), "negative"),
    "bpf_program__set_expected_attach_type": _Fn(_INT, (_Program, _INT), "negative"),
    "bpf_program__attach_kprobe": _Fn(_Link, (_Program, ctypes.c_bool, _C_CHAR_P), "null"),
    "bpf_program__attach_kprobe_multi_opts": _Fn(
        _Link, (_Program, _C_CHAR_P, ctypes.POINTER(MultiOpts)), "null"
    ),
    "bpf_program__attach_perf_event": _Fn(_Link, (_Program, _INT), "null"),
    "bpf_program__fd": _Fn(_INT, (_Program,), "negative"),
    "bpf_link__fd": _Fn(_INT, (_Link,), "negative"),
    "bpf_iter_create": _Fn(_INT, (_INT,), "negative"),
    "bpf_link__destroy": _Fn(_INT, (_Link,)),
    "bpf_map__name": _Fn(_C_CHAR_P, (_Map,)),
    "bpf_map__type": _Fn(_INT, (_Map,)),
    "bpf_map__fd": _Fn(_INT, (_Map,), "negative"),
    "bpf_map__reuse_fd": _Fn(_INT, (_Map, _INT), "negative"),
    "bpf_map__set_autocreate": _Fn(_INT, (_Map, ctypes.c_bool), "negative"),
    "bpf_map__max_entries": _Fn(_U32, (_Map,)),
    "bpf_map__set_map_flags": _Fn(_INT, (_Map, _U32), "negative"),
    "bpf_map__inner_map": _Fn(_Map, (_Map,), "null"),
    "bpf_map__set_max_entries": _Fn(_INT, (_Map, _U32), "negative"),
    "bpf_map__set_inner_map_fd": _Fn(_INT, (_Map, _INT), "negative"),
    "bpf_map_create": _Fn(_INT, (_INT, _C_CHAR_P, _U32, _U32, _U32, _VOID_P), "negative"),
    "bpf_map__initial_value": _Fn(_VOID_P, (_Map, ctypes.POINTER(_SIZE)), "null"),
    "bpf_map_update_elem": _Fn(_INT, (_INT, _VOID_P, _VOID_P, _U64), "negative"),
    "bpf_map_lookup_elem": _Fn(_INT, (_INT, _VOID_P, _VOID_P), "negative"),
    "bpf_map_delete_elem": _Fn(_INT, (_INT, _VOID_P), "negative"),
    "bpf_map_get_next_key": _Fn(_INT, (_INT, _VOID_P, _VOID_P), "negative"),
    "bpf_prog_query": _Fn(
        _INT,
        (_INT, _INT, _U32, ctypes.POINTER(_U32), ctypes.POINTER(_U32), ctypes.POINTER(_U32)),
        "negative",
    ),
    "bpf_prog_get_fd_by_id": _Fn(_INT, (_U32,), "negative"),
    "bpf_obj_get_info_by_fd": _Fn(_INT, (_INT, _VOID_P, ctypes.POINTER(_U32)), "negative"),
    "perf_buffer__new_raw": _Fn(
        _Perf, (_INT, _SIZE, _VOID_P, EVENT_CALLBACK, _VOID_P, _VOID_P), "null"
    ),
    "perf_buffer__consume": _Fn(_INT, (_Perf,)),
    "perf_buffer__free": _Fn(None, (_Perf,)),
    "btf__parse": _Fn(_Btf, (_C_CHAR_P, _VOID_P), "null"),
    "btf__parse_split": _Fn(_Btf, (_C_CHAR_P, _Btf), "null"),
    "btf__free": _Fn(None, (_Btf,)),
    "btf__find_by_name_kind": _Fn(ctypes.c_int32, (_Btf, _C_CHAR_P, _U32)),
    "btf__type_by_id": _Fn(_VOID_P, (_Btf, _U32), "null"),
    "btf__name_by_offset": _Fn(_C_CHAR_P, (_Btf, _U32)),
    "btf__resolve_size": _Fn(ctypes.c_int64, (_Btf, _U32), "negative"),
}


class _Library:
    """libbpf, loaded on the first call. ``lib.NAME(…)`` calls a function of the table."""

    def __init__(self) -> None:
        self._said: list[str] = []
        pages = mmap.mmap(-1, PRINTED_BYTES)
        self._printed = (ctypes.c_char * PRINTED_BYTES).from_buffer(pages)
        self._print = PRINT_CALLBACK(self._on_print)  # libbpf keeps the pointer: keep it alive

    def __getattr__(self, name: str) -> Any:
        """Load the library on the first access; later accesses find plain attributes."""
        if name not in API:
            raise AttributeError(name)
        cdll = _open_library()
        for each, fn in API.items():
            setattr(self, each, self._bind(cdll, each, fn))
        self.libbpf_set_print(self._print)
        return getattr(self, name)

    def _bind(self, cdll: ctypes.CDLL, name: str, fn: _Fn) -> Any:
        function = getattr(cdll, name, None)
        if function is None:
            raise UnsupportedError(f"libbpf lacks {name}: cgnet needs libbpf 1.0 or newer")
        function.restype, function.argtypes = fn.restype, fn.argtypes
        if fn.fails != "never":
            function.errcheck = self._errcheck(name, fn.fails)
        return function

    def _errcheck(self, name: str, fails: str) -> Any:
        def check(result: Any, _function: Any, _arguments: Any) -> Any:
            if fails == "negative" and result < 0:
                number = -result
            elif fails == "null" and not result:
                number = ctypes.get_errno()
            else:
                return result
            raise LibbpfError(f"{name}: {strerror(number)}", number, self.said())

        return check

    def _on_print(self, level: int, template: bytes, arguments: int) -> int:
        # Thousands of debugging messages: formatting them takes a fifth of the time of a start.
        if LOG_LEVELS.get(level) == logging.DEBUG and not log.isEnabledFor(logging.DEBUG):
            return 0
        # An exception must not leave a C callback: at worst, a line of the log is lost.
        try:
            buffer = self._printed
            ctypes.CDLL(None).vsnprintf(buffer, len(buffer), template, _VOID_P(arguments))
            text = buffer.value.decode(errors="backslashreplace").rstrip()
            self._said.append(text)
            log.log(LOG_LEVELS.get(level, logging.DEBUG), "%s", text.removeprefix("libbpf: "))
        except Exception:  # noqa: BLE001
            return 0
        return 0

    def said(self) -> str:
        """Return the last LOG_LINES lines printed since the previous call, and clear them."""
        lines = "\n".join(self._said).splitlines()[-LOG_LINES:]
        self._said.clear()
        return "\n".join(lines)


def _libraries() -> list[str]:
    """Return the libraries to try: CGNET_LIBBPF alone if set, else cgnet's own, then the system's.

    cgnet's own comes first: its package was tested with it, and the system's may be older than 1.0.
    It is trusted as much as the Python code beside it.
    """
    if asked := os.environ.get("CGNET_LIBBPF"):
        if asked != LIBRARY:
            _trust(Path(asked))
        return [asked]
    return [*([str(BUNDLED)] if BUNDLED.exists() else []), LIBRARY]


def _open_library() -> ctypes.CDLL:
    refused: list[str] = []
    for path in _libraries():
        try:
            found = ctypes.CDLL(path, use_errno=True)
        except OSError as error:
            refused.append(_why(path, error))
            continue
        for each in refused:  # logged without -v, too: the package wasn't tested with this one
            log.error("%s; the system's %s is used instead", each, LIBRARY)
        return found
    raise UnsupportedError(f"cannot load {'; nor '.join(refused)}. {_advice()}")


def _why(path: str, error: OSError) -> str:
    """Return the library's path and the reason; dlopen's messages mostly begin with the path."""
    return f"{path} ({str(error).removeprefix(f'{path}: ')})"


def _advice() -> str:
    install = "install libbpf 1.0 or newer (Debian: libbpf1; OpenCloudOS, RHEL: libbpf)"
    if os.environ.get("CGNET_LIBBPF"):
        return f"Unset CGNET_LIBBPF, or {install}"
    if BUNDLED.exists():
        return f"The one that cgnet's package brought doesn't fit this host: reinstall it, or {install}"
    return install.capitalize()


def _trust(path: Path) -> None:
    """Raise UsageError if others than root can write or replace the library: cgnet runs as root."""
    rule = "must be an absolute path without links, of a file and folders that only root can write"
    if not path.is_absolute() or path != path.resolve():
        raise UsageError(f"CGNET_LIBBPF={path}: {rule}")
    for each in (path, *path.parents):
        try:
            found = each.stat()
        except OSError as error:
            raise UsageError(f"CGNET_LIBBPF={path}: {error.strerror}") from error
        if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsageError(f"CGNET_LIBBPF={path}: {rule}")


lib = _Library()
