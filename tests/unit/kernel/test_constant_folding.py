# SPDX-License-Identifier: BSD-2-Clause
"""Constants in the place of loads: only where the address is known, and only the same number."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from bpf_code import Code, Sections

from cgnet.kernel.constant_folding import SECTION, fold

OBJECTS = Path(__file__).resolve().parents[3] / "src/cgnet/_bpf"
VALUES = struct.pack("<IIQIBBHQ", 7, 0, 5, 2**31, 3, 255, 65535, 2**40)
# The variables of the section: the second one is at an offset.
CONSTANTS = {"one_config": VALUES[:16], "other_config": VALUES[16:]}
TAKE = Code(0x18, 1, 0, 0, 0)  # r1 = the section ll; the operand is added to where the symbol is
REST = Code(0, 0, 0, 0, 0)  # its second half
LOAD = Code(0x61, 2, 1, 0, 0)  # r2 = *(u32 *)(r1 + 0)
EXIT = Code(0x95, 0, 0, 0, 0)
SEVEN = Code(0xB7, 2, 0, 0, 7)  # r2 = 7
NOTHING = Code(0xBF, 3, 4, 0, 0)  # r3 = r4
CALL = Code(0x85, 0, 0, 0, 5)


def pack(codes: list[Code]) -> bytes:
    return b"".join(
        struct.pack("<BBhi", each.opcode, each.src << 4 | each.dst, each.offset, each.value)
        for each in codes
    )


def elf(codes: list[Code], places: dict[int, int]) -> bytes:
    """Make an ELF file of a function; ``places``: instructions that take an address in the section."""
    names = b"\0raw_tp/x\0.rodata.config\0.symtab\0.rel\0.names\0one_config\0other_config\0"
    symbols = bytes(24) + b"".join(
        struct.pack("<IBBHQQ", 0, 1, 0, 2, offset, 4) for offset in places.values()
    )
    for name, start in (("one_config", 0), ("other_config", 16)):
        symbols += struct.pack(
            "<IBBHQQ", names.index(name.encode()), 1, 0, 2, start, len(CONSTANTS[name])
        )
    relocations = b"".join(
        struct.pack("<QQ", at * 8, number << 32 | 1) for number, at in enumerate(places, 1)
    )
    parts = [
        (b"", 0, 0, 0, 0), (b"raw_tp/x", 1, 6, 0, 0), (b".rodata.config", 1, 2, 0, 0),
        (b".symtab", 2, 0, 5, 0), (b".rel", 9, 0, 3, 1), (b".names", 3, 0, 0, 0),
    ]  # fmt: skip
    file, heads = bytearray(64), b""
    data = (b"", pack(codes), bytes(len(VALUES)), symbols, relocations, names)
    for (name, kind, flags, link, info), each in zip(parts, data, strict=True):
        place = names.index(name + b"\0")
        heads += struct.pack(
            "<IIQQQQIIQQ", place, kind, flags, 0, len(file), len(each), link, info, 8, 0
        )
        file += each
    struct.pack_into("<Q", file, 0x28, len(file))
    struct.pack_into("<HHH", file, 0x3A, 64, len(parts), 5)
    return bytes(file) + heads


def folded(tmp_path: Path, codes: list[Code], places: dict[int, int] | None = None) -> list[Code]:
    path = tmp_path / "x.o"
    path.write_bytes(fold(elf(codes, {0: 0} if places is None else places), CONSTANTS))
    return Sections(path).codes()["raw_tp/x"]


def test_a_load_becomes_its_number(tmp_path: Path) -> None:
    assert folded(tmp_path, [TAKE, REST, LOAD, EXIT]) == [TAKE, REST, SEVEN, EXIT]


@pytest.mark.parametrize(("opcode", "places", "number"), [
    (0x61, (4, 0, 0), 0), (0x79, (8, 0, 0), 5), (0x79, (0, 8, 0), 5), (0x79, (0, 0, 8), 5),
    (0x71, (20, 0, 0), 3), (0x71, (20, 0, 1), 255), (0x69, (20, 0, 2), 65535),
])  # fmt: skip
def test_every_size_and_place(
    tmp_path: Path, opcode: int, places: tuple[int, int, int], number: int
) -> None:
    """An address is the sum of the symbol's, the operand, and the load's offset."""
    symbol, operand, offset = places
    take = TAKE._replace(value=operand)
    load = Code(opcode, 2, 1, offset, 0)
    assert folded(tmp_path, [take, REST, load, EXIT], {0: symbol})[2] == SEVEN._replace(
        value=number
    )


@pytest.mark.parametrize("load", [
    LOAD._replace(offset=16), Code(0x79, 2, 1, 24, 0), LOAD._replace(offset=len(VALUES) - 2),
    LOAD._replace(offset=-4), LOAD._replace(src=3),
])  # fmt: skip
def test_a_load_stays_that_no_operand_can_replace(tmp_path: Path, load: Code) -> None:
    """Numbers that don't fit, places outside, another register."""
    codes = [TAKE, REST, load, EXIT]
    assert folded(tmp_path, codes) == codes


@pytest.mark.parametrize("between", [
    [NOTHING], [Code(0x63, 10, 1, -4, 0)], [Code(0x7A, 10, 0, -8, 1)], [Code(0x15, 4, 0, 1, 0)],
    [Code(0x18, 5, 0, 0, 0), REST],
])  # fmt: skip
def test_what_leaves_the_register_alone_is_passed_over(tmp_path: Path, between: list[Code]) -> None:
    codes = [TAKE, REST, *between, LOAD, EXIT, EXIT]
    assert folded(tmp_path, codes) == [TAKE, REST, *between, SEVEN, EXIT, EXIT]


@pytest.mark.parametrize("between", [
    [Code(0x07, 1, 0, 0, 4)], [Code(0xBF, 1, 4, 0, 0)], [Code(0x79, 1, 4, 0, 0)], [CALL], [EXIT],
    [Code(0x05, 0, 0, 1, 0), NOTHING],
])  # fmt: skip
def test_a_load_stays_behind_what_changes_the_register(tmp_path: Path, between: list[Code]) -> None:
    codes = [TAKE, REST, *between, LOAD, EXIT]
    assert folded(tmp_path, codes) == codes


def test_a_load_stays_that_others_jump_to(tmp_path: Path) -> None:
    jump = Code(0x15, 4, 0, 2, 0)
    codes = [jump, TAKE, REST, LOAD, EXIT]
    assert folded(tmp_path, codes, {1: 0}) == codes


def test_a_register_that_a_call_leaves_alone(tmp_path: Path) -> None:
    codes = [TAKE._replace(dst=6), REST, CALL, LOAD._replace(src=6), EXIT]
    assert folded(tmp_path, codes)[3] == SEVEN


def test_a_load_into_its_own_register_is_the_last(tmp_path: Path) -> None:
    codes = [TAKE, REST, LOAD._replace(dst=1), LOAD, EXIT]
    assert folded(tmp_path, codes) == [TAKE, REST, SEVEN._replace(dst=1), LOAD, EXIT]


def test_other_sections_are_left_alone() -> None:
    codes = [TAKE, REST, LOAD, EXIT]
    file = elf(codes, {0: 0}).replace(SECTION.encode(), b".rodata.others")
    assert fold(file, CONSTANTS) == file


def test_a_constant_that_is_not_given_is_zero(tmp_path: Path) -> None:
    path, codes = tmp_path / "x.o", [TAKE, REST, LOAD, EXIT]
    path.write_bytes(fold(elf(codes, {0: 0}), {"other_config": VALUES[16:], "absent": b"1"}))
    assert Sections(path).codes()["raw_tp/x"][2] == SEVEN._replace(value=0)


@pytest.mark.parametrize("file", [b"", b"no ELF" * 99])
def test_what_is_no_object_is_said_to_be_none(file: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        fold(file, CONSTANTS)


@pytest.mark.parametrize("name", ["connect", "drop", "life", "retrans", "rtt", "trace"])
def test_most_of_an_object_has_its_constants(name: str, tmp_path: Path) -> None:
    """The rest is loaded in loops, or where ways meet."""
    path = OBJECTS / f"{name}.raw.bpf.o"
    (tmp_path / "x.o").write_bytes(fold(path.read_bytes(), {}))
    before, after = Sections(path).codes(), Sections(tmp_path / "x.o").codes()
    changed = [
        (old, new)
        for section, codes in before.items()
        for old, new in zip(codes, after[section], strict=True)
        if old != new
    ]
    assert len(changed) > 100
    assert {old.kind for old, _ in changed} == {1}
    assert {(new.opcode, new.value) for _, new in changed} == {(0xB7, 0)}
    assert all(old.dst == new.dst for old, new in changed)
