# SPDX-License-Identifier: BSD-2-Clause
"""What programs for old kernels may use: those that take neither typed hooks nor a ring buffer.

A kernel 5.4 can't be had as a package. Its verifier refuses a helper or an instruction that it doesn't
know, wherever it gets.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

OBJECTS = Path(__file__).resolve().parents[2] / "src/cgnet/_bpf"
COMMANDS = ("connect", "drop", "life", "rtt", "trace")
OBJECTS_OF = {name: (f"{name}.typed.bpf.o", f"{name}.raw.bpf.o") for name in COMMANDS}
# Functions at fentry and fexit are for kernels that are newer.
UNTYPED = ("raw_tp", "kprobe", "kretprobe", "tracepoint", ".text")
LAST_OF_54 = 111  # include/uapi/linux/bpf.h of 5.4: sk_storage_get … send_signal, tcp_gen_syncookie
# libbpf puts probe_read and probe_read_str in their place: bpf_object__sanitize_prog().
REPLACED = {112, 113, 114, 115}
# Behind by_perf() of transport.bpf.h: the code of the other transport is dead there.
OF_THE_RING = {"ringbuf_output": 130, "ringbuf_reserve": 131, "ringbuf_submit": 132}


class Function(NamedTuple):
    name: str
    helpers: set[int]
    atomics: list[str]


def untyped(name: str) -> list[Function]:
    """Disassemble an object; return the functions of it that a kernel without tp_btf is given."""
    tool = shutil.which("llvm-objdump")
    assert tool, "llvm-objdump is missing: run 'sudo make deps'"
    text = subprocess.run(
        [tool, "-d", OBJECTS / f"{name}.raw.bpf.o"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = []
    for part in text.split("Disassembly of section ")[1:]:
        if part.partition(":")[0].partition("/")[0] not in UNTYPED:
            continue
        _, *pieces = re.split(r"^[0-9a-f]+ <((?!LBB)\w+)>:$", part, flags=re.MULTILINE)
        for function, code in zip(pieces[::2], pieces[1::2], strict=True):
            # In the second byte of the code, 1 stands for a call of one of our own functions.
            helpers = set(map(int, re.findall(r"\t85 00 .*\tcall (\d+)$", code, re.MULTILINE)))
            atomics = re.findall(r"\t([^\t]*(?:lock|atomic|xchg).*)", code)
            found.append(Function(function, helpers, atomics))
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_no_helper_is_newer_than_54(name: str) -> None:
    known = set(range(LAST_OF_54 + 1)) | REPLACED | set(OF_THE_RING.values())
    assert {
        (each.name, helper) for each in untyped(name) for helper in each.helpers - known
    } == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_no_atomic_but_an_addition_whose_result_is_not_wanted(name: str) -> None:
    """Linux kernel commit 5ca419f2864a "bpf: Add BPF_FETCH field", in v5.12."""
    addition = re.compile(r"lock \*\(u(32|64) \*\)\(r\d [+-] \d+\) \+= [rw]\d")
    found = [each for function in untyped(name) for each in function.atomics]
    assert found
    assert [each for each in found if not addition.fullmatch(each)] == []


OURS = r"85 10 00 00 ((?:[0-9a-f]{2} ?){4})"  # a call of one of our own functions, and where it is
BY_RELOCATION = re.compile(OURS + r"\s*call.*\n\s+[0-9a-f]+:\s+R_BPF_64_32\s+(\S+)")
WITHIN = re.compile(r"(\d+):\s+" + OURS + r"\s*call.*\n(?!\s+[0-9a-f]+:\s+R_BPF)")


def number(octets: str) -> int:
    return int.from_bytes(bytes.fromhex(octets.replace(" ", "")), "little", signed=True)


def frames(name: str) -> dict[str, tuple[int, set[str]]]:
    """Return the stack of each function of an object, in bytes, and the functions that it calls."""
    text = subprocess.run(
        ["llvm-objdump", "-dr", OBJECTS / name],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    bodies, at = {}, {}
    for part in text.split("Disassembly of section ")[1:]:
        _, *pieces = re.split(r"^([0-9a-f]+) <((?!LBB)\w+)>:$", part, flags=re.MULTILINE)
        for place, function, code in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
            bodies[function] = code
            if part.startswith(".text:"):
                at[int(place, 16)] = function
    found = {}
    for function, code in bodies.items():
        places = re.findall(r"r10 - (\d+)\)|r\d \+= -(\d+)$", code, re.MULTILINE)
        calls = {
            at[8 * (number(octets) + 1)] if where == ".text" else where
            for octets, where in BY_RELOCATION.findall(code)
        } | {at[8 * (int(line) + 1 + number(octets))] for line, octets in WITHIN.findall(code)}
        found[function] = max((int(one or other) for one, other in places), default=0), calls
    return found


@pytest.mark.parametrize("name", [each for both in OBJECTS_OF.values() for each in both])
def test_the_stack_is_enough_for_verifiers_that_give_each_frame_32_bytes_at_a_time(
    name: str,
) -> None:
    """Newer kernels count by 16, and take what 6.1 refuses."""
    functions = frames(name)

    def deepest(function: str) -> int:
        used, calls = functions[function]
        return max(-(-used // 32), 1) * 32 + max(map(deepest, calls), default=0)

    assert any(calls for _, calls in functions.values())
    assert {each: deepest(each) for each in functions if deepest(each) > 512} == {}
