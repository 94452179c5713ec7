# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from pathlib import Path
from struct import error
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycparser.c_parser import CParser

from cgnet.kernel import probes
from cgnet.kernel._libbpf import lib
from cgnet.kernel.btf import read_layout
from cgnet.loader import Object
from cgnet.records import _layouts
from cgnet.records._layouts import OWNER_CONFIG, Hierarchy, Layout, Member, OwnerConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
LAYOUTS = [each for each in vars(_layouts).values() if isinstance(each, Layout)]
TUPLES = {name: value for name, value in vars(_layouts).items() if isinstance(value, type)}
WITH_TUPLE = [
    (each, TUPLES[each.name.title().replace("_", "")])
    for each in LAYOUTS
    if each.name.title().replace("_", "") in TUPLES
]
MAX_RANDOM = 64  # bytes of one member; the rest of a larger one is filled
CTYPES: dict[str, Any] = {
    "char": ctypes.c_char,
    **{f"__u{bits}": getattr(ctypes, f"c_uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"__s{bits}": getattr(ctypes, f"c_int{bits}") for bits in (8, 16, 32, 64)},
}


def _generator() -> Any:
    spec = importlib.util.spec_from_file_location("gen_layouts", ROOT / "tools/gen_layouts.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["gen_layouts"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()


def structs(text: str) -> dict[str, Any]:
    """Return what the generator makes of a header."""
    tree = CParser().parse(GENERATOR.FAKE_TYPES + text)
    return GENERATOR.Layouts(tree).structs


def values_of(code: str) -> st.SearchStrategy[tuple[Any, ...]]:
    """Return values for a format of module struct."""
    parts: list[st.SearchStrategy[Any]] = []
    for count, letter in re.findall(r"(\d*)([a-zA-Z])", code):
        if letter == "s":
            length = int(count)
            kept = min(length, MAX_RANDOM)
            random = st.binary(min_size=kept, max_size=kept)
            parts.append(random.map(lambda some, length=length: some.ljust(length, b"\xff")))
            continue
        bits = 8 * {"B": 1, "H": 2, "I": 4, "Q": 8}[letter.upper()]
        low, high = (
            (0, (1 << bits) - 1) if letter.isupper() else (-1 << bits - 1, (1 << bits - 1) - 1)
        )
        parts += [st.integers(low, high)] * int(count or 1)
    return st.tuples(*parts)


def drawn(member: Member, flat: Iterator[Any]) -> Any:
    """Take the values of a member: an array is shorter than in C by one."""
    if member.length is None:
        return next(flat)
    width = len(member.layout.members) if member.layout else 1
    items = [tuple(next(flat) for _ in range(width)) for _ in range(member.length)][:-1]
    return tuple(items if member.layout else (number for (number,) in items))


@pytest.mark.parametrize(("layout", "made"), WITH_TUPLE, ids=lambda each: each.__class__.__name__)
@given(data=st.data())
def test_every_generated_tuple_survives_pack_and_unpack(
    layout: Layout, made: Any, data: st.DataObject
) -> None:
    flat = iter(data.draw(values_of(layout.packed.format)))
    value = made(*(drawn(member, flat) for member in layout.members))
    assert value.pack() == layout.packed.pack(*layout.flat(value))
    assert list(layout.packed.unpack(value.pack())) == layout.flat(value)
    if hasattr(made, "unpack"):
        assert made.unpack(b"ab" + value.pack(), 2) == value


def test_the_structs_that_python_reads_member_by_member_have_tuples() -> None:
    assert {"head", "owner", "flow", "outcome"} <= {layout.name for layout, _ in WITH_TUPLE}


def test_members_that_are_not_given_are_zeros() -> None:
    assert OwnerConfig().pack() == bytes(OWNER_CONFIG.size)
    made = OwnerConfig(hierarchies=1, hierarchy=(Hierarchy(5, 6),))
    assert OWNER_CONFIG.packed.unpack(made.pack()) == (1, 0, 5, 6, *[0] * 6)


def test_an_array_that_is_too_long_is_refused() -> None:
    with pytest.raises(error):
        OwnerConfig(hierarchy=(Hierarchy(),) * 5).pack()


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda each: each.name)
def test_a_layouts_members_fill_it_without_a_gap(layout: Layout) -> None:
    end = 0
    for member in layout.members:
        assert member.offset == end, member.name
        end += member.size
    assert (end, layout.packed.size) == (layout.size, layout.size)


# No record comes from the probes.
OBJECTS = sorted(set((ROOT / "src/cgnet/_bpf").glob("*.bpf.o")) - {probes.OBJECT})


@pytest.fixture(params=OBJECTS, ids=lambda p: p.name)
def object_btf(request: pytest.FixtureRequest) -> Iterator[Any]:
    with Object(request.param) as obj:
        yield lib.bpf_object__btf(obj.handle)


def test_every_layout_in_an_objects_btf_is_the_generated_one(object_btf: Any) -> None:
    theirs = {each.name: read_layout(object_btf, each.name) for each in LAYOUTS}
    found = {name: layout for name, layout in theirs.items() if layout is not None}
    ours = {
        each.name: (
            each.size,
            {member.name: (member.offset, member.size) for member in each.members},
        )
        for each in LAYOUTS
        if each.name in found
    }
    assert found == ours
    assert "head" in found


@pytest.mark.parametrize("name", ["connect_event", "cgroup_event", "filter_config", "cgroup_key"])
def test_the_object_of_connect_has_btf_of_every_struct_that_crosses(
    name: str, built_object: Path
) -> None:
    with Object(built_object) as obj:
        assert read_layout(lib.bpf_object__btf(obj.handle), name) is not None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("__u32 a : 3; __u32 b : 29;", "bitfield"),
        ("char *name;", "may not use"),
        ("__u64 *values[2];", "may not use"),
        ("int (*function)(int);", "may not use"),
        ("long value;", "may not use"),
        ("unsigned long value;", "may not use"),
        ("int value;", "may not use"),
        ("union { __u32 a; __u32 b; } u;", "may not use"),
        ("union { __u32 a; __u32 b; };", "may not use"),
        ("__u32 a; __u64 b;", "padding before b"),
        ("char a[3]; __u16 b;", "padding before b"),
        ("__u64 a; __u32 b;", "padding at the end of broken"),
        ("__u8 values[];", "without its number"),
        ("__u32 values[];", "without its number"),
    ],
)
def test_the_generator_refuses_what_it_could_lay_out_wrongly(body: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        structs(f"struct broken {{ {body} }};")


def test_the_generator_refuses_an_enum_that_leaves_numbers_to_the_compiler() -> None:
    with pytest.raises(ValueError, match="number"):
        structs("enum places { FIRST, SECOND };")


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(CTYPES)), st.none() | st.integers(1, 5)),
        min_size=1,
        max_size=6,
    )
)
def test_the_generator_lays_out_as_c_does_or_asks_for_padding(
    members: list[tuple[str, int | None]],
) -> None:
    text = "".join(
        f"{ctype} m{i}{'' if count is None else f'[{count}]'};\n"
        for i, (ctype, count) in enumerate(members)
    )
    fields = [
        (f"m{i}", CTYPES[ctype] if count is None else CTYPES[ctype] * count)
        for i, (ctype, count) in enumerate(members)
    ]
    model = type("Model", (ctypes.Structure,), {"_fields_": fields})
    padded = ctypes.sizeof(model) != sum(ctypes.sizeof(ctype) for _, ctype in fields)
    if padded:
        with pytest.raises(ValueError, match="padding"):
            structs(f"struct random {{ {text} }};")
        return
    ctype, made = structs(f"struct random {{ {text} }};")["random"]
    expected = [
        Member(name, getattr(model, name).offset, getattr(model, name).size) for name, _ in fields
    ]
    assert ctype.size == ctypes.sizeof(model)
    assert [Member(name, offset, each.size) for name, offset, each in made] == expected
