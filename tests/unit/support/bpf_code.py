# SPDX-License-Identifier: BSD-2-Clause
"""The instructions of BPF objects, and those reachable on a kernel without ring buffers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECTION = struct.Struct("<IIQQQQIIQQ")  # Elf64_Shdr
CODE = struct.Struct("<BBhi")  # struct bpf_insn
SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym
SHT_PROGBITS, SHT_SYMTAB, SHF_EXECINSTR, STT_FUNC = 1, 2, 4, 2
# linux/bpf.h and linux/bpf_common.h
LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)
CALL, EXIT, JA, JEQ, JNE = 0x85, 0x95, 0x05, 0x10, 0x50
LD_IMM64, MOV64_IMM, MOV64_REG, LOAD, STORE = 0x18, 0xB7, 0xBF, 0x79, 0x7B  # 64-bit ones
BYTES_OF_CODE = 8
TYPE_EXISTS = 8  # BPF_CORE_TYPE_EXISTS: transport.bpf.h uses it for the ring buffer only
VALUE_EXISTS = 10  # BPF_CORE_ENUMVAL_EXISTS
HELPERS = "bpf_func_id"  # the enum that compat.bpf.h looks for later helpers in


class Code(NamedTuple):
    """An instruction."""

    opcode: int
    dst: int
    src: int
    offset: int
    value: int

    @property
    def kind(self) -> int:
        """The instruction's class."""
        return self.opcode & 7


class Sections:
    """The sections of an ELF file."""

    def __init__(self, path: Path) -> None:
        self._file = path.read_bytes()
        start = int.from_bytes(self._file[0x28:0x30], "little")
        size, count, names = struct.unpack_from("<HHH", self._file, 0x3A)
        self._heads = [SECTION.unpack_from(self._file, start + size * i) for i in range(count)]
        self._names = self._data(self._heads[names])

    def _data(self, head: tuple[int, ...]) -> bytes:
        return self._file[head[4] : head[4] + head[5]]

    def _name(self, head: tuple[int, ...]) -> str:
        return self._names[head[0] : self._names.index(0, head[0])].decode()

    def __getitem__(self, name: str) -> bytes:
        return next(self._data(head) for head in self._heads if self._name(head) == name)

    def codes(self) -> dict[str, list[Code]]:
        """Return the instructions of each executable section."""
        return {
            self._name(head): [
                Code(opcode, both & 15, both >> 4, offset, value)
                for opcode, both, offset, value in CODE.iter_unpack(self._data(head))
            ]
            for head in self._heads
            if head[1] == SHT_PROGBITS and head[2] & SHF_EXECINSTR and head[5]
        }

    def starts(self) -> dict[str, set[int]]:
        """Return the first instructions of functions, by section."""
        found: dict[str, set[int]] = {}
        for head in self._heads:
            for _, info, _, section, value, _ in (
                SYMBOL.iter_unpack(self._data(head)) if head[1] == SHT_SYMTAB else ()
            ):
                if info & 15 == STT_FUNC:
                    name = self._name(self._heads[section])
                    found.setdefault(name, set()).add(value // BYTES_OF_CODE)
        return found

    def _string(self, offset: int) -> str:
        """Return a string of the BTF."""
        btf = self[".BTF"]
        head_size, _, _, strings, _ = struct.unpack_from("<IIIII", btf, 4)
        start = head_size + strings + offset
        return btf[start : btf.index(0, start)].decode()

    def questions(self) -> set[tuple[str, int]]:
        """Return the checks for types and helpers of the kernel, as (section, instruction)."""
        ext = self[".BTF.ext"]
        head_size, *_, begin, size = struct.unpack_from("<IIIIIII", ext, 4)
        at, end = head_size + begin, head_size + begin + size
        (record,) = struct.unpack_from("<I", ext, at)
        at, found = at + 4, set()
        while at < end:
            name, count = struct.unpack_from("<II", ext, at)
            for i in range(count):
                offset, type_, _, kind = struct.unpack_from("<IIII", ext, at + 8 + i * record)
                helper = kind == VALUE_EXISTS and self._type_names()[type_].startswith(HELPERS)
                if kind == TYPE_EXISTS or helper:
                    found.add((self._string(name), offset // BYTES_OF_CODE))
            at += 8 + count * record
        return found

    def _types(self) -> Iterator[tuple[int, int]]:
        """Yield (name, kind) of each type in the BTF; a name is an offset of strings."""
        btf = self[".BTF"]
        head_size, start, size = struct.unpack_from("<III", btf, 4)
        at, end = head_size + start, head_size + start + size
        more = {1: 4, 3: 12, 14: 4, 17: 4}  # int, array, var, decl_tag
        each = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}  # struct, union, enum, func_proto, …
        while at < end:
            name, info, _ = struct.unpack_from("<III", btf, at)
            kind, count = info >> 24 & 31, info & 0xFFFF
            yield name, kind
            at += 12 + more.get(kind, 0) + each.get(kind, 0) * count

    def _type_names(self) -> list[str]:
        """Return the types' names, by number: that of 0, void, is empty."""
        return ["", *(self._string(name) for name, _ in self._types())]

    def kinds_of_btf(self) -> set[int]:
        """Return the kinds of types in the BTF."""
        return {kind for _, kind in self._types()}


CTX = "ctx"  # the value of a register that holds the program's context
FRAME = 10  # the register that points to the stack
Known = dict[int, "int | str"]  # values by register, or by stack offset, which is negative


def _next(codes: list[Code], at: int, known: Known) -> Iterator[int]:
    """Yield the possible next instructions."""
    code = codes[at]
    if code.opcode == EXIT:
        return
    if code.opcode == JA:
        yield at + 1 + code.offset
        return
    if code.kind == JMP and code.opcode != CALL:
        operation, value = code.opcode & 0xF0, known.get(code.dst)
        if isinstance(value, int) and operation in (JEQ, JNE) and not code.opcode & 8:
            taken = (value == code.value) == (operation == JEQ)
            yield at + 1 + (code.offset if taken else 0)
            return
        yield at + 1 + code.offset
    yield at + (2 if code.opcode == LD_IMM64 else 1)


def _after(code: Code, known: Known) -> Known:
    """Return the known values after an instruction."""
    if code.opcode == CALL:
        # A helper may write to the stack, but stores no pointer to the context.
        return {
            place: value
            for place, value in known.items()
            if place > 5 or (place < 0 and value == CTX)
        }
    value: int | str | None = None
    place = code.dst
    if code.opcode == MOV64_IMM:
        value = code.value
    elif code.opcode == MOV64_REG:
        value = known.get(code.src)
    elif code.opcode == LOAD and code.src == FRAME:
        value = known.get(code.offset)
    elif code.opcode == STORE and code.dst == FRAME:
        place, value = code.offset, known.get(code.src)
    elif code.kind in (STX, ST, JMP, JMP32):
        return known
    others = {each: value for each, value in known.items() if each != place}
    return others if value is None else others | {place: value}


def reached(codes: list[Code], starts: set[int], without: set[int]) -> dict[int, Known]:
    """Return the reachable instructions of these functions, with the values known there.

    ``without``: checks for types and helpers that fail.
    """
    codes = [
        each._replace(opcode=MOV64_IMM, value=0) if at in without else each
        for at, each in enumerate(codes)
    ]
    todo: list[tuple[int, Known]] = [(at, {1: CTX}) for at in starts]
    seen: dict[int, Known] = {}
    while todo:
        at, known = todo.pop()
        if at in seen:
            known = dict(known.items() & seen[at].items())
            if known == seen[at]:
                continue
        seen[at] = known
        behind = _after(codes[at], known)
        todo += [(following, behind) for following in _next(codes, at, known)]
    return seen


def falling_back(codes: list[Code], start: int) -> set[int]:
    """Return a function's instructions that fall through to the head of an enclosing loop.

    The walk is that of the kernel's check_cfg(), which refuses such code on 5.10 and before.
    """
    found: set[int] = set()
    on_way: set[int] = {start}
    seen = {start}
    way = [(start, _next(codes, start, {}))]
    while way:
        at, following = way[-1]
        to = next(following, None)
        if to is None:
            on_way.discard(at)
            way.pop()
        elif to in on_way and codes[at].kind not in (JMP, JMP32):
            found.add(at)
        elif to not in seen:
            seen.add(to)
            on_way.add(to)
            way.append((to, _next(codes, to, {})))
    return found
