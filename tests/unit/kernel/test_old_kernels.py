# SPDX-License-Identifier: BSD-2-Clause
"""The stack that programs use, as old verifiers count it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

OBJECTS = Path(__file__).resolve().parents[3] / "src/cgnet/_bpf"
COMMANDS = ("connect", "drop", "life", "rtt", "trace")
OBJECTS_OF = {name: (f"{name}.typed.bpf.o", f"{name}.raw.bpf.o") for name in COMMANDS} | {
    "sockets": ("sockets.raw.bpf.o",)
}


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
