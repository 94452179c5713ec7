# SPDX-License-Identifier: BSD-2-Clause
"""Folding of constants into an object's code: moves replace the loads that read them.

Before Linux kernel commit a23740ec43ba "bpf: Track contents of read-only maps as scalars" (in v5.5)
the verifier doesn't know the contents of .rodata. It walks the branches of every filter and option,
and gives up after 1,000,000 instructions. It does track the immediate operand of a move.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAD = struct.Struct("<IIQQQQIIQQ")  # Elf64_Shdr
_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym
_RELOCATION = struct.Struct("<QQ")  # Elf64_Rel
_CODE = struct.Struct("<BBhi")  # struct bpf_insn
SECTION = ".rodata.config"  # of all constants
_SHT_SYMTAB, _SHT_REL, _SHF_EXECINSTR = 2, 9, 4
# linux/bpf_common.h and linux/bpf.h
_ST, _STX, _JMP, _JMP32, _CLASS = 2, 3, 5, 6, 7
_CALL, _EXIT, _GOTO, _LD_IMM64, _MOV64_IMM = 0x85, 0x95, 0x05, 0x18, 0xB7
_LOADS = {0x71: 1, 0x69: 2, 0x61: 4, 0x79: 8}  # loads of unsigned numbers: size in bytes
_CALLEE_SAVED = range(6, 10)  # registers that a call preserves
_MOST = 2**31 - 1  # an operand is signed, with 32 bits


class _Section(NamedTuple):
    name: str
    kind: int
    flags: int
    start: int  # offset in the file
    size: int
    link: int
    info: int


def _string(file: bytes, at: int) -> str:
    return file[at : file.index(0, at)].decode()


def _sections(file: bytes) -> list[_Section]:
    start = int.from_bytes(file[0x28:0x30], "little")
    size, count, names = struct.unpack_from("<HHH", file, 0x3A)
    heads = [_HEAD.unpack_from(file, start + size * i) for i in range(count)]
    at = heads[names][4]
    return [
        _Section(
            _string(file, at + head[0]),
            head[1], head[2], head[4], head[5], head[6], head[7],
        )
        for head in heads
    ]  # fmt: skip


def _places(file: bytes, sections: list[_Section], name: str) -> dict[int, dict[int, int]]:
    """Return the references to a section: {code section: {instruction: offset}}."""
    wanted = next((at for at, each in enumerate(sections) if each.name == name), None)
    found: dict[int, dict[int, int]] = {}
    for relocations in sections:
        if relocations.kind != _SHT_REL or not sections[relocations.info].flags & _SHF_EXECINSTR:
            continue
        symbols = sections[relocations.link]
        data = file[relocations.start : relocations.start + relocations.size]
        for place, info in _RELOCATION.iter_unpack(data):
            at = symbols.start + (info >> 32) * _SYMBOL.size
            _, _, _, section, value, _ = _SYMBOL.unpack_from(file, at)
            if section == wanted:
                found.setdefault(relocations.info, {})[place // _CODE.size] = value
    return found


def _contents(file: bytes, sections: list[_Section], constants: Mapping[str, bytes]) -> bytes:
    """Return the section of constants with the values of these variables; others are zeros."""
    wanted = next((at for at, each in enumerate(sections) if each.name == SECTION), None)
    if wanted is None:
        return b""
    found = bytearray(sections[wanted].size)
    for table in sections:
        if table.kind != _SHT_SYMTAB:
            continue
        names = sections[table.link].start
        for symbol in _SYMBOL.iter_unpack(file[table.start : table.start + table.size]):
            name, _, _, section, start, size = symbol
            value = constants.get(_string(file, names + name)) if section == wanted else None
            if value is not None:
                found[start : start + size] = value
    return bytes(found)


def _targets(codes: list[tuple[int, int, int, int]]) -> set[int]:
    """Return the instructions that are targets of jumps."""
    return {
        at + 1 + offset
        for at, (opcode, _, offset, _) in enumerate(codes)
        if opcode & _CLASS in (_JMP, _JMP32) and opcode not in (_CALL, _EXIT)
    }


def _fold(
    codes: list[tuple[int, int, int, int]], places: dict[int, int], values: bytes
) -> dict[int, bytes]:
    """Return the replaced instructions, by index."""
    targets = _targets(codes)
    found: dict[int, bytes] = {}
    for first, value in places.items():
        pointer, base = codes[first][1] & 15, value + codes[first][3]
        at = first + 2
        while at < len(codes) and at not in targets:
            opcode, registers, offset, _ = codes[at]
            kind, size = opcode & _CLASS, _LOADS.get(opcode)
            if size and registers >> 4 == pointer:
                begin = base + offset
                number = int.from_bytes(values[begin : begin + size], "little")
                if begin >= 0 and begin + size <= len(values) and number <= _MOST:
                    found[at] = _CODE.pack(_MOV64_IMM, registers & 15, 0, number)
            if kind in (_JMP, _JMP32):
                if opcode in (_EXIT, _GOTO) or (opcode == _CALL and pointer not in _CALLEE_SAVED):
                    break
            elif kind not in (_ST, _STX) and registers & 15 == pointer:
                break
            at += 2 if opcode == _LD_IMM64 else 1
    return found


def fold(file: bytes, constants: Mapping[str, bytes]) -> bytes:
    """Return an object file with the constants folded into its code; those not given are zeros.

    Loads stay if the instructions right before them don't determine their address, or if the number
    doesn't fit an operand: they read the same value from the map. Raises ValueError if the file
    can't be parsed.
    """
    try:
        return _folded(file, constants)
    except (struct.error, IndexError) as error:
        raise ValueError(str(error)) from error


def _folded(file: bytes, constants: Mapping[str, bytes]) -> bytes:
    sections = _sections(file)
    values = _contents(file, sections, constants)
    result = bytearray(file)
    for section, places in _places(file, sections, SECTION).items():
        start, size = sections[section].start, sections[section].size
        codes = list(_CODE.iter_unpack(file[start : start + size]))
        for at, code in _fold(codes, places, values).items():
            result[start + at * _CODE.size : start + (at + 1) * _CODE.size] = code
    return bytes(result)
