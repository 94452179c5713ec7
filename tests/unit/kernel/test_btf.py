# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cgnet.cli import _run
from cgnet.errors import LayoutError
from cgnet.kernel import btf, variants
from cgnet.kernel._libbpf import lib
from cgnet.kernel.btf import KERNEL_BTF, check_layouts, read_layout
from cgnet.loader import Object
from cgnet.records._layouts import CONNECT_EVENT, FLOW, OUTCOME, Layout, Member
from cgnet.run import launch

if TYPE_CHECKING:
    from collections.abc import Iterator

CLANG = "clang -g -O2 -target bpf -mcpu=v3 -c connect.bpf.c -o connect.typed.bpf.o"
INCLUDE = Path(__file__).resolve().parents[3] / "bpf/abi"
HEADERS = (
    "flow.h",
    "owner.h",
    "record.h",
    "peer.h",
    "filter.h",
    "connect.h",
)  # after those that it includes
SOURCE = """
typedef unsigned char __u8; typedef unsigned short __u16;
typedef unsigned int __u32; typedef short __s16; typedef int __s32; typedef unsigned long long __u64;
#include "events.h"
#define CONFIG(name) const volatile struct name name __attribute__((section(".rodata.config")))
CONFIG(filter_config); CONFIG(connect_config);
#define ANCHOR(name) const struct name *btf_of_##name __attribute__((unused))
ANCHOR(connect_event); ANCHOR(cgroup_event); ANCHOR(cgroup_key);
"""


@pytest.fixture
def obj(built_object: Path) -> Iterator[Object]:
    with Object(built_object) as opened:
        yield opened


def build(folder: Path, *changes: tuple[str, str]) -> Path:
    """Compile the records' headers as they were, or with changes (pattern, replacement)."""
    header = "".join((INCLUDE / name).read_text(encoding="utf-8") for name in HEADERS)
    header = re.sub(r'_Static_assert\(.*?\);\n|#include "[\w/]+\.h"\n', "", header)
    for pattern, replacement in changes:
        header, count = re.subn(pattern, replacement, header, count=1)
        assert count == 1, pattern
    (folder / "events.h").write_text(header, encoding="utf-8")
    (folder / "connect.bpf.c").write_text(SOURCE, encoding="utf-8")
    subprocess.run(CLANG.split(), check=True, cwd=folder)
    return folder / "connect.typed.bpf.o"


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that the command takes its objects from, on a host that lets it load them."""
    monkeypatch.setattr(variants, "require_capabilities", lambda: None)
    monkeypatch.setattr(variants, "require_btf", lambda _given: None)
    monkeypatch.setattr(launch, "OBJECTS", tmp_path)
    return tmp_path


def test_the_btf_of_a_kernel_without_its_own_is_found_in_the_usual_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    monkeypatch.setattr(btf, "KERNEL_BTF", own)
    assert btf.find_kernel_btf(tmp_path) is None
    first, *_, last = (tmp_path / each.format(platform.release()) for each in btf.PLACES)
    for path in (first, last):
        path.parent.mkdir(parents=True)
    first.write_bytes(b"no BTF at all")
    last.write_bytes(KERNEL_BTF.read_bytes())
    assert btf.find_kernel_btf(tmp_path) == last
    first.write_bytes(KERNEL_BTF.read_bytes())
    assert btf.find_kernel_btf(tmp_path) == first
    own.touch()
    assert btf.find_kernel_btf(tmp_path) is None


def test_a_type_is_hidden_by_another_name(tmp_path: Path) -> None:
    path = tmp_path / "btf"
    path.write_bytes(KERNEL_BTF.read_bytes())
    with btf.without_type("super_block", path) as hidden:
        assert not btf.is_kernel_btf(hidden)
        assert hidden.stat().st_size == path.stat().st_size
    assert not hidden.exists()
    assert btf.is_kernel_btf(path)


def test_the_built_object_passes(obj: Object) -> None:
    check_layouts(obj, [CONNECT_EVENT, FLOW, OUTCOME])


def test_a_struct_that_is_not_there_reads_as_none(obj: Object) -> None:
    assert read_layout(lib.bpf_object__btf(obj.handle), "no_such_struct") is None


def moved(layout: Layout, name: str, offset: int, size: int) -> Layout:
    members = tuple(
        Member(name, offset, size) if each.name == name else each for each in layout.members
    )
    assert members != layout.members
    return layout._replace(members=members)


@pytest.mark.parametrize(
    ("layout", "parts"),
    [
        (
            moved(FLOW, "sport", 44, 2),
            [
                "struct flow",
                "field sport",
                "object has offset 40 size 2",
                "cgnet has offset 44 size 2",
            ],
        ),
        (
            moved(FLOW, "netns", 32, 8),
            ["struct flow", "field netns", "offset 32 size 4", "offset 32 size 8"],
        ),
        (
            FLOW._replace(members=(*FLOW.members, Member("zone", 48, 4))),
            ["struct flow", "field zone", "no such field", "offset 48 size 4"],
        ),
        (FLOW._replace(name="stream"), ["struct stream", "field saddr", "no such field"]),
        (FLOW._replace(size=64), ["struct flow", "after field pad", "size 48", "64"]),
    ],
)
def test_the_error_names_struct_field_and_both_places(
    obj: Object, layout: Layout, parts: list[str]
) -> None:
    with pytest.raises(LayoutError) as raised:
        check_layouts(obj, [CONNECT_EVENT, layout])
    missing = [part for part in (obj.path.name, *parts) if part not in str(raised.value)]
    assert not missing, str(raised.value)


def test_an_object_from_the_same_header_passes(tmp_path: Path) -> None:
    with Object(build(tmp_path)) as same:
        check_layouts(same, [CONNECT_EVENT, FLOW, OUTCOME])


@pytest.mark.parametrize(
    ("change", "struct", "field"),
    [
        ((r"struct outcome \{\n", "struct outcome {\n__u64 older;\n"), "connect_event", "outcome"),
        ((r"__u16 sport;", "__u16 port;"), "flow", "sport"),
        (
            (r"(__u32 netns;[^\n]*)\n(\s*__u16 dport;)", r"\2 __u16 gap; \1"),
            "connect_event",
            "flow",
        ),
        ((r"__u64 latency_ns;", "__u32 latency_us; __u32 gap;"), "outcome", "latency_ns"),
        ((r"__u32 syn_retrans;", "__u16 syn_retrans; __u16 gap;"), "outcome", "syn_retrans"),
        (
            (
                r"(__u32 syn_retrans;\n)(\s*__s16 result;[^\n]*\n)(\s*__u8[^\n]*\n\s*__u8[^\n]*\n)",
                r"\2\3\1",
            ),
            "outcome",
            "syn_retrans",
        ),
    ],
)
def test_an_object_from_an_older_header_is_caught(
    tmp_path: Path, change: tuple[str, str], struct: str, field: str
) -> None:
    with (
        Object(build(tmp_path, change)) as old,
        pytest.raises(LayoutError, match=f"struct {struct}: field {field}: the object has"),
    ):
        check_layouts(old, [CONNECT_EVENT, FLOW, OUTCOME])


def test_the_command_stops_at_an_older_object_with_one_line(
    allowed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = build(allowed, (r"__u16 sport;", "__u16 port;"))
    assert _run(["connect"]) == 1
    assert capsys.readouterr().err == (
        f"cgnet: {path}: struct flow: field sport: the object has no such field, "
        "cgnet has offset 40 size 2; reinstall cgnet\n"
    )


@pytest.mark.parametrize("part", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_object_is_told_as_damaged(
    allowed: Path, built_object: Path, part: float, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = built_object.read_bytes()
    path = allowed / "connect.typed.bpf.o"
    path.write_bytes(whole[: int(len(whole) * part)])
    assert _run(["connect"]) == 1
    said = capsys.readouterr().err
    start, end = f"cgnet: {path}: struct connect_event: field head: ", "; reinstall cgnet\n"
    assert (said[: len(start)], said[-len(end) :]) == (start, end)


def test_a_file_that_is_no_object_is_told_as_damaged(
    allowed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (allowed / "connect.typed.bpf.o").write_bytes(b"#!/bin/sh\n" * 100)
    assert _run(["connect"]) == 1
    assert "the object can't be read" in capsys.readouterr().err


def test_a_missing_object_is_told_as_missing(
    allowed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(["connect"]) == 1
    expected = f"cgnet: {allowed / 'connect.typed.bpf.o'} is missing; build or reinstall cgnet\n"
    assert capsys.readouterr().err == expected
