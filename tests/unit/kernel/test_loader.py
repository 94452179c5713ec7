# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING, Any

import pytest

from cgnet import loader
from cgnet.errors import LibbpfError
from cgnet.kernel._libbpf import lib
from cgnet.loader import Map, Object, Program
from cgnet.records._layouts import COUNT_CONFIG, FILTER_CONFIG, TRACE_CONFIG
from cgnet.run.launch import OBJECTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class NoLibbpf:
    """Fails where a closed handle would be passed to C."""

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any) -> None:
            raise AssertionError(f"{name} was called with a handle that is closed")

        return call


def test_a_missing_file_raises_with_its_errno(tmp_path: Path) -> None:
    with pytest.raises(LibbpfError) as raised:
        Object(tmp_path / "none.bpf.o")
    assert raised.value.errno == errno.ENOENT


def test_an_open_object_has_programs_with_their_kind_of_hook(built_object: Path) -> None:
    with Object(built_object) as obj:
        kinds = {program.name: program.hook for program in obj.programs}
        assert kinds["cgroup_created"] == "raw_tp"
        assert {"tp_btf", "raw_tp"} <= set(kinds.values())
        assert obj.attached() == []


def test_a_map_that_is_not_there_raises_key_error(built_object: Path) -> None:
    with Object(built_object) as obj, pytest.raises(KeyError):
        obj.map("no_such_map")


@pytest.mark.parametrize("change", [-1, 1])
def test_constants_of_another_size_are_refused(built_object: Path, change: int) -> None:
    with Object(built_object) as obj:
        wrong = bytes(FILTER_CONFIG.size + change)
        message = f"filter_config has {FILTER_CONFIG.size} bytes in .*, not {len(wrong)}"
        with pytest.raises(ValueError, match=message):
            obj.set_constants({"filter_config": wrong})


def test_constants_that_an_object_does_not_have_are_refused(built_object: Path) -> None:
    with Object(built_object) as obj, pytest.raises(ValueError, match="trace_config has 0 bytes"):
        obj.set_constants({"trace_config": bytes(TRACE_CONFIG.size)})


def test_constants_of_the_right_size_are_stored(built_object: Path) -> None:
    with Object(built_object) as obj:
        size = ctypes.c_size_t()
        address = lib.bpf_map__initial_value(obj.map(".rodata.config").handle, size)
        values = {
            "count_config": b"\1" * COUNT_CONFIG.size,
            "filter_config": b"\2" * FILTER_CONFIG.size,
        }
        obj.set_constants(values)
        stored = ctypes.string_at(address, size.value)
    assert all(value in stored for value in values.values())
    assert len(stored.replace(b"\0", b"")) == sum(map(len, values.values()))


def test_keep_leaves_out_the_maps_that_are_there_and_passes_over_others(
    built_object: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out: list[tuple[str, bool]] = []

    def set_autocreate(handle: Any, create: bool) -> None:
        left_out.append((lib.bpf_map__name(handle).decode(), create))

    monkeypatch.setattr(lib, "bpf_map__set_autocreate", set_autocreate)
    with Object(built_object) as obj:
        obj.keep(set(), {"no_such_map", "ring"})
    assert left_out == [("ring", False)]


def test_maps_of_the_same_names_are_shared_but_those_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared: dict[str, str] = {}

    def reuse_fd(handle: Any, fd: bytes) -> None:
        shared[lib.bpf_map__name(handle).decode()] = fd.decode()

    monkeypatch.setattr(lib, "bpf_map__reuse_fd", reuse_fd)
    monkeypatch.setattr(Map, "fd", property(lambda each: lib.bpf_map__name(each.handle)))
    with (
        Object(OBJECTS / "trace.typed.bpf.o") as main,
        Object(OBJECTS / "trace_functions.raw.bpf.o") as obj,
    ):
        obj.keep(set(), {"perf", "pending_records"})
        obj.share_maps(main)
        own = set(obj.maps) - shared.keys()
    assert shared == {name: name for name in shared}
    assert {"ring", "lost", "packets_in_flight"} <= shared.keys()
    assert own == {
        "perf", "pending_records", "hook_calls", "trace_fu.rodata", "trace_fu.bss", ".rodata.config",
    }  # fmt: skip


def test_an_object_beside_another_is_detached_and_closed_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    destroyed: list[str] = []
    monkeypatch.setattr(lib, "bpf_link__destroy", destroyed.append)
    with Object(OBJECTS / "trace.raw.bpf.o") as main:
        beside = Object(OBJECTS / "trace_functions.raw.bpf.o")
        main.run_beside(beside)
        programs = [main.programs[0], beside.programs[0]]
        monkeypatch.setattr(lib, "bpf_program__attach", lambda _: "main's")
        main.attach(programs[0])
        monkeypatch.setattr(lib, "bpf_program__attach", lambda _: "beside")
        beside.attach(programs[1])
        assert main.attached() == programs
    assert destroyed == ["beside", "main's"]
    with pytest.raises(ValueError, match="closed"):
        beside.require_open()


@pytest.mark.parametrize(
    ("kind", "multi"), [("kprobe", True), ("kprobe", False), ("kretprobe", True)]
)
def test_a_function_is_named_to_libbpf(
    kind: str, monkeypatch: pytest.MonkeyPatch, *, multi: bool
) -> None:
    called: list[tuple[Any, ...]] = []

    def attach(_program: Any, returns: bool, function: bytes) -> str:
        called.append((returns, function))
        return "link"

    def attach_multi(_program: Any, pattern: bytes | None, options: Any) -> str:
        assert (pattern, options.cnt, options.sz) == (None, 1, ctypes.sizeof(options))
        called.append((options.retprobe, options.syms[0]))
        return "link"

    destroyed: list[str] = []
    monkeypatch.setattr(lib, "bpf_program__attach_kprobe", attach)
    monkeypatch.setattr(lib, "bpf_program__attach_kprobe_multi_opts", attach_multi)
    monkeypatch.setattr(lib, "bpf_link__destroy", destroyed.append)
    with Object(OBJECTS / "trace_functions.raw.bpf.o") as obj:
        program = next(each for each in obj.programs if each.hook == kind)
        obj.use_multi(program)
        obj.attach_kprobe(program, "nf_hook_slow", multi=multi)
        assert obj.attached() == [program]
    assert called == [(kind == "kretprobe", b"nf_hook_slow")]
    assert destroyed == ["link"]


CLOSED: dict[str, Callable[[Object], Any]] = {
    "handle": lambda obj: obj.handle,
    "map": lambda obj: obj.map("ring"),
    "keep": lambda obj: obj.keep({"cgroup_created"}, set()),
    "resize": lambda obj: obj.resize("ring", 4096),
    "set_constants": lambda obj: obj.set_constants({}),
    "load": lambda obj: obj.load(),
    "attach": lambda obj: obj.attach(obj.programs[0]),
    "ring": lambda obj: obj.ring("ring"),
    "stats": lambda obj: obj.programs[0].stats(),
}


@pytest.mark.parametrize("use", CLOSED)
def test_a_closed_object_raises_instead_of_passing_its_handle_on(
    built_object: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    obj = Object(built_object)
    obj.close()
    monkeypatch.setattr(loader, "lib", NoLibbpf())
    with pytest.raises(ValueError, match=r"connect\.typed\.bpf\.o is closed"):
        CLOSED[use](obj)


KEPT: dict[str, Callable[[Map, Program], Any]] = {
    "map.handle": lambda kept, _: kept.handle,
    "map.fd": lambda kept, _: kept.fd,
    "update": lambda kept, _: kept.update(b"key", b"value"),
    "lookup": lambda kept, _: kept.lookup(b"key", 8),
    "discard": lambda kept, _: kept.discard(b"key"),
    "keys": lambda kept, _: next(kept.keys(4)),
    "program.handle": lambda _, program: program.handle,
    "stats": lambda _, program: program.stats(),
}


@pytest.mark.parametrize("use", KEPT)
def test_what_is_kept_of_a_closed_object_raises_instead_of_passing_its_handle_on(
    built_object: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    with Object(built_object) as obj:
        kept, program = obj.map("ring"), obj.programs[0]
    monkeypatch.setattr(loader, "lib", NoLibbpf())
    with pytest.raises(ValueError, match=r"connect\.typed\.bpf\.o is closed"):
        KEPT[use](kept, program)
    assert program.name  # what was read before stays


def test_an_object_closes_twice(built_object: Path) -> None:
    obj = Object(built_object)
    obj.close()
    obj.close()
    with pytest.raises(ValueError, match="closed"):
        _ = obj.handle


def test_links_are_destroyed_before_the_object_the_last_one_first(
    built_object: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    close = lib.bpf_object__close
    names: dict[int, str] = {}

    def attach(handle: Any) -> str:
        return names[ctypes.addressof(handle.contents)]

    def close_object(handle: Any) -> None:
        done.append("object")
        close(handle)

    monkeypatch.setattr(lib, "bpf_program__attach", attach)
    monkeypatch.setattr(lib, "bpf_link__destroy", done.append)
    monkeypatch.setattr(lib, "bpf_object__close", close_object)
    with Object(built_object) as obj:
        first, second, third = obj.programs[:3]
        names.update({ctypes.addressof(each.handle.contents): each.name for each in obj.programs})
        for program in (first, second, third):
            obj.attach(program)
        assert obj.attached() == [first, second, third]
    assert done == [third.name, second.name, first.name, "object"]
