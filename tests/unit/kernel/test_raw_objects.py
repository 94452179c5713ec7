# SPDX-License-Identifier: BSD-2-Clause
"""The objects of raw programs before TencentOS' 5.4, the oldest kernel.

It can't be had as a package. Its verifier refuses a helper or an instruction that it doesn't know,
wherever it gets. Where a kernel has no ring buffers, it doesn't get to those: see bpf_code.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from bpf_code import (
    ALU,
    ALU64,
    CALL,
    CTX,
    JMP32,
    LDX,
    STX,
    Code,
    Known,
    Sections,
    falling_back,
    reached,
)

from cgnet.kernel._libbpf import lib
from cgnet.loader import Object

OBJECTS = Path(__file__).resolve().parents[3] / "src/cgnet/_bpf"
COMMANDS = ("connect", "drop", "life", "retrans", "rtt", "trace")
ALL = (*COMMANDS, "connect_functions", "trace_functions")
UNTYPED = ("raw_tp", "kprobe", "kretprobe", "tracepoint", ".text")
LAST_HELPER_OF_54 = 111
# libbpf puts probe_read and probe_read_str in the place of the newer ones: bpf_object__sanitize_prog().
REPLACED = {112, 113, 114, 115}
LAST_KIND_OF_54 = 15  # of BTF: datasec
# hash, array, perf buffers, arrays by CPU, stacks, LRU hash, trie, map of maps, queue
MAPS_OF_54 = {1, 2, 4, 6, 7, 9, 11, 12, 22}
RING = "ring"
# Arguments that these tracepoints have in 5.4.
ARGUMENTS = {
    "inet_sock_set_state": 3, "tcp_probe": 2, "kfree_skb": 2, "consume_skb": 1,
    "tcp_retransmit_skb": 2, "tcp_retransmit_synack": 2, "tcp_send_reset": 2,
    "tcp_receive_reset": 1, "tcp_destroy_sock": 1, "tcp_rcv_space_adjust": 1, "net_dev_queue": 1,
    "netif_receive_skb": 1, "netif_rx_entry": 1, "napi_gro_receive_entry": 1, "net_dev_start_xmit": 2,
    "qdisc_dequeue": 4, "cgroup_mkdir": 2, "cgroup_rmdir": 2, "cgroup_rename": 2, "task_rename": 2,
}  # fmt: skip
# Not there at all, and its program is left out.
NEWER = {"qdisc_enqueue", "inet_sk_error_report", "sock_send_length"}
BYTE_ORDER, ATOMIC, ADD, EXTENDING_LOAD = 0xD0, 0xC0, 0, 0x80


@pytest.fixture(params=ALL)
def sections(request: pytest.FixtureRequest) -> Sections:
    return Sections(OBJECTS / f"{request.param}.raw.bpf.o")


def programs(sections: Sections) -> dict[str, tuple[list[Code], dict[int, Known]]]:
    """Return the code of each section, and what of it a kernel without ring buffers gets to."""
    asked, starts = sections.questions(), sections.starts()
    assert asked
    return {
        name: (codes, reached(codes, starts[name], {at for where, at in asked if where == name}))
        for name, codes in sections.codes().items()
        if name.partition("/")[0] in UNTYPED
    }


def test_no_helper_is_reached_that_54_lacks(sections: Sections) -> None:
    """Of ring buffers least of all."""
    known = set(range(LAST_HELPER_OF_54 + 1)) | REPLACED
    found = {
        (name, codes[at].value)
        for name, (codes, places) in programs(sections).items()
        for at in places
        if codes[at].opcode == CALL and codes[at].src == 0
    }
    assert found
    assert {each for each in found if each[1] not in known} == set()


def test_every_program_is_looked_at_to_its_end(sections: Sections) -> None:
    """The rest is what writes to a ring buffer."""
    for name, (codes, places) in programs(sections).items():
        assert len(places) > len(codes) * 0.8, name


def is_new(code: Code) -> bool:
    """Tell of an instruction that came with -mcpu=v3 or later, or with Linux 5.12's atomics."""
    if code.kind == JMP32:
        return True
    if code.kind == ALU:
        return code.opcode & 0xF0 != BYTE_ORDER
    if code.kind == ALU64:
        return code.opcode & 0xF0 == BYTE_ORDER or code.offset != 0
    if code.kind == STX and code.opcode & 0xE0 == ATOMIC:
        return code.value != ADD
    return code.kind == LDX and code.opcode & 0xE0 == EXTENDING_LOAD


def test_every_instruction_is_one_of_54(sections: Sections) -> None:
    """No 32-bit arithmetic, behind which that verifier forgets what a register is, no newer atomic."""
    assert {
        (name, at)
        for name, (codes, places) in programs(sections).items()
        for at in places
        if is_new(codes[at])
    } == set()


@pytest.mark.parametrize("code", [
    Code(0xBC, 1, 2, 0, 0), Code(0x16, 1, 0, 3, 0), Code(0xDB, 1, 2, 0, 0xF1), Code(0xDB, 1, 2, 0, 1),
])  # fmt: skip
def test_what_is_new_is_told(code: Code) -> None:
    """w1 = w2; if w1 == 0; compare-and-swap; an addition that returns what was there."""
    assert is_new(code)


def read_of_context(codes: list[Code], places: dict[int, Known]) -> set[int]:
    """Return the offsets at which a program reads what it is given."""
    found = ((codes[at], known) for at, known in places.items())
    return {code.offset for code, known in found if code.kind == LDX and known.get(code.src) == CTX}


def test_what_these_tests_look_for_is_found_in_a_typed_object() -> None:
    typed = Sections(OBJECTS / "trace.typed.bpf.o")
    codes = typed.codes()["tp_btf/kfree_skb"]
    places = reached(codes, typed.starts()["tp_btf/kfree_skb"], set())
    assert max(read_of_context(codes, places)) == 8 * 3
    assert any(is_new(codes[at]) for at in places)


@pytest.mark.parametrize("sections", COMMANDS, indirect=True)
def test_a_program_reads_no_more_arguments_than_its_tracepoint_has(sections: Sections) -> None:
    """Else it can't be attached. What other kernels' tracepoints have beside is read by a helper."""
    seen = set()
    for name, (codes, places) in programs(sections).items():
        kind, _, tracepoint = name.partition("/")
        if kind == "raw_tp" and tracepoint not in NEWER:
            offsets = read_of_context(codes, places)
            assert max(offsets, default=0) < 8 * ARGUMENTS[tracepoint], name
            seen |= {tracepoint} if offsets else set()
    assert {"inet_sock_set_state", "cgroup_mkdir"} <= seen


def test_the_kinds_of_types_are_those_of_54(sections: Sections) -> None:
    assert max(sections.kinds_of_btf()) <= LAST_KIND_OF_54


@pytest.mark.parametrize("name", ALL)
def test_the_types_of_maps_are_those_of_54(name: str) -> None:
    with Object(OBJECTS / f"{name}.raw.bpf.o") as obj:
        kinds = {each: lib.bpf_map__type(obj.map(each).handle) for each in obj.maps}
    assert {each: kind for each, kind in kinds.items() if kind not in MAPS_OF_54} == {RING: 27}


@pytest.mark.parametrize("name", ALL)
def test_no_loop_begins_again_by_falling_through(name: str) -> None:
    """Verifiers follow jumps back since Linux 5.3, and nothing else that leads back."""
    sections = Sections(OBJECTS / f"{name}.raw.bpf.o")
    starts = sections.starts()
    assert {
        (section, at)
        for section, codes in sections.codes().items()
        for start in starts[section]
        for at in falling_back(codes, start)
    } == set()


def test_what_falls_through_to_its_loop_is_told() -> None:
    """if r1 == 0 goto the end; r1 -= 1; goto the loop. And with its head behind its body."""
    leave, less, back, end = (
        Code(0x15, 1, 0, 2, 0),
        Code(0x17, 1, 0, 0, 1),
        Code(0x05, 0, 0, -3, 0),
        Code(0x95, 0, 0, 0, 0),
    )
    assert falling_back([leave, less, back, end], 0) == set()
    enter, again = back._replace(offset=1), Code(0x55, 1, 0, -2, 0)
    assert falling_back([enter, less, again, end], 0) == {1}
