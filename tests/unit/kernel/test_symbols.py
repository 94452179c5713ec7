# SPDX-License-Identifier: BSD-2-Clause
"""Names that a kernel gives to numbers: made-up kernels, and the running one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeMap
from hypothesis import given
from hypothesis import strategies as st

from cgnet.kernel import symbols
from cgnet.kernel.btf import KERNEL_BTF, enum_of_kernel, tracepoint_arguments
from cgnet.kernel.symbols import STACK, UNRESOLVED, Function, Kallsyms, Symbols
from cgnet.records._layouts import CodeRange

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

running_kernel = pytest.mark.skipif(not KERNEL_BTF.exists(), reason="this kernel has no BTF")
CLANG = "clang -g -O2 -target bpf -c kernel.c -o kernel.o"
SOURCE = """
enum sk_rst_reason { SK_RST_REASON_NOT_SPECIFIED, SK_RST_REASON_NO_SOCKET = 3 } rst;
enum skb_drop_reason {
	SKB_NOT_DROPPED_YET, SKB_CONSUMED, SKB_DROP_REASON_NOT_SPECIFIED, SKB_DROP_REASON_NO_SOCKET = 9,
	SKB_DROP_REASON_MAX, SKB_DROP_REASON_SUBSYS_MASK = 0xffff0000,
} drop;
enum skb_drop_reason_subsys {
	SKB_DROP_REASON_SUBSYS_CORE, SKB_DROP_REASON_SUBSYS_OPENVSWITCH = 3,
} subsystem;
typedef void (*btf_trace_kfree_skb)(void *, void *skb, void *location, int reason);
btf_trace_kfree_skb hook;
typedef void (*btf_trace_plain)(void *);
btf_trace_plain plain;
"""
CODE = """\
ffffffff81000000 T _stext
ffffffff81000000 T do_one
ffffffff81000100 t do_two
ffffffff81000180 d some_data
ffffffff81000200 W do_three
ffffffffc0000000 t helper	[nf_tables]
ffffffffc0000040 r table	[nf_tables]
ffffffffc0000080 T do_one	[other]
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The BTF of a kernel that has little."""
    folder: Path = tmp_path_factory.mktemp("kernel")
    (folder / "kernel.c").write_text(SOURCE, encoding="utf-8")
    subprocess.run(CLANG.split(), check=True, cwd=folder)
    return folder / "kernel.o"


@pytest.fixture
def code(tmp_path: Path) -> Callable[[str], Kallsyms]:
    def make(text: str) -> Kallsyms:
        (tmp_path / "kallsyms").write_text(text, encoding="utf-8")
        return Kallsyms(tmp_path / "kallsyms")

    return make


def test_an_enum_is_read_by_number(kernel: Path) -> None:
    assert enum_of_kernel("sk_rst_reason", kernel) == {
        0: "SK_RST_REASON_NOT_SPECIFIED",
        3: "SK_RST_REASON_NO_SOCKET",
    }


def test_a_number_is_read_without_its_sign(kernel: Path) -> None:
    assert enum_of_kernel("skb_drop_reason", kernel)[0xFFFF0000] == "SKB_DROP_REASON_SUBSYS_MASK"


@pytest.mark.parametrize("name", ["no_such_enum", "", "rst"])
def test_an_enum_that_is_not_there_has_no_names(kernel: Path, name: str) -> None:
    assert enum_of_kernel(name, kernel) == {}


def test_what_is_no_btf_has_no_enums(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"nothing")
    for path in (tmp_path / "file", tmp_path / "none", tmp_path):
        assert enum_of_kernel("sk_rst_reason", path) == {}
        assert tracepoint_arguments("kfree_skb", path) == 0


def test_a_tracepoints_arguments_are_counted(kernel: Path) -> None:
    names = ("kfree_skb", "plain", "none")
    assert [tracepoint_arguments(name, kernel) for name in names] == [3, 0, 0]


@running_kernel
def test_enums_of_the_running_kernel_are_read() -> None:
    assert enum_of_kernel("sock_type").items() >= {(1, "SOCK_STREAM"), (2, "SOCK_DGRAM")}
    assert enum_of_kernel("no_such_enum") == {}


@running_kernel
def test_tracepoints_of_the_running_kernel_are_read() -> None:
    assert tracepoint_arguments("inet_sock_set_state") == 3
    assert 2 <= tracepoint_arguments("kfree_skb") <= 4


@running_kernel
def test_a_reset_has_the_running_kernels_reason_or_its_number() -> None:
    reasons = enum_of_kernel("sk_rst_reason")
    for number in (0, 1, 2, 10**6):
        expected = reasons.get(number, str(number)).removeprefix("SK_RST_REASON_")
        assert Symbols().rst_reason(number) == expected


def test_a_resets_reason_is_named_without_its_prefix(kernel: Path) -> None:
    made = Symbols(kernel)
    assert [made.rst_reason(number) for number in (0, 3, 1)] == ["NOT_SPECIFIED", "NO_SOCKET", "1"]


def test_a_drops_reason_is_named_without_its_prefix(kernel: Path) -> None:
    made = Symbols(kernel)
    assert made.drop_reasons == {1: "CONSUMED", 2: "NOT_SPECIFIED", 9: "NO_SOCKET"}
    assert [made.drop_reason(number) for number in (9, 7)] == ["NO_SOCKET", "7"]


def test_a_subsystems_reason_is_named_by_its_module_or_number(
    kernel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ovs = {0x30001: "OVS_DROP_LAST_ACTION"}
    enums = {"ovs_drop_reason": ovs}
    monkeypatch.setattr(symbols, "enum_of_module", lambda name, _modules: enums.get(name, {}))
    made = Symbols(kernel)
    assert made.drop_reason(0x30001) == "OPENVSWITCH_LAST_ACTION"
    assert made.drop_reason(0x30002) == "OPENVSWITCH_2"
    assert made.drop_reason(0x50002) == "5_2"


def test_a_kernel_that_tells_no_reasons_has_none(tmp_path: Path) -> None:
    made = Symbols(tmp_path / "none")
    assert (made.drop_reasons, made.drop_reason(2), made.rst_reason(2)) == ({}, None, "2")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (0xFFFFFFFF81000000, "do_one+0x0"),
        (0xFFFFFFFF810000FF, "do_one+0xff"),
        (0xFFFFFFFF81000100, "do_two+0x0"),
        (0xFFFFFFFF8100017F, "do_two+0x7f"),
        (0xFFFFFFFF81000180, UNRESOLVED),  # data
        (0xFFFFFFFF81000200, "do_three+0x0"),
        (0xFFFFFFFFC0000001, "helper+0x1 [nf_tables]"),
        (0xFFFFFFFFC0000040, UNRESOLVED),
        (0xFFFFFFFF80FFFFFF, UNRESOLVED),
        (0, UNRESOLVED),
        (2**64 - 1, UNRESOLVED),
    ],
)
def test_an_address_is_told_as_function_and_distance(
    code: Callable[[str], Kallsyms], address: int, text: str
) -> None:
    assert code(CODE).text(address) == text


def test_the_first_function_of_a_name_is_found(code: Callable[[str], Kallsyms]) -> None:
    made = code(CODE)
    one, two, data = 0xFFFFFFFF81000000, 0xFFFFFFFF81000100, 0xFFFFFFFF81000180
    assert made.ranges(("do_one", "do_two", "some_data")) == (
        CodeRange(one, two),
        CodeRange(two, data),
    )
    assert made.parts(("do_two", "do_one", "some_data")) == [
        Function(one, two, "do_one", ""),
        Function(two, data, "do_two", ""),
        Function(0xFFFFFFFFC0000080, 0xFFFFFFFFC0000081, "do_one", "other"),
    ]


def test_the_order_of_lines_does_not_matter(code: Callable[[str], Kallsyms]) -> None:
    backwards = code("".join(reversed(CODE.splitlines(keepends=True))))
    for address in (0xFFFFFFFF81000080, 0xFFFFFFFF81000180, 0xFFFFFFFFC0000001):
        assert backwards.text(address) == code(CODE).text(address)
    names = ("do_one", "do_two", "helper")
    assert backwards.parts(names) == code(CODE).parts(names)


@given(st.integers(0, 2**64 - 1))
def test_no_address_is_told_as_a_number(tmp_path_factory: Any, address: int) -> None:
    path = tmp_path_factory.getbasetemp() / "kallsyms"
    path.write_text(CODE, encoding="utf-8")
    text = Kallsyms(path).text(address)
    assert text == UNRESOLVED or int(text.partition("+")[2].split()[0], 16) < 1 << 31


@pytest.mark.parametrize(
    "text", ["", "0000000000000000 T do_one\n0000000000000000 t helper\t[nf_tables]\n"]
)
def test_without_the_right_to_see_them_there_are_no_functions(
    code: Callable[[str], Kallsyms], text: str
) -> None:
    made = code(text)
    assert (made.text(0), made.text(5)) == (UNRESOLVED, UNRESOLVED)
    assert made.ranges(("do_one",)) == ()


def test_ranges_of_functions_that_may_be_missing(code: Callable[[str], Kallsyms]) -> None:
    two = CodeRange(0xFFFFFFFF81000100, 0xFFFFFFFF81000180)
    assert code(CODE).ranges(("do_two", "do_nothing")) == (two,)


@pytest.mark.parametrize(("arguments", "read"), [(2, True), (3, True), (4, False)])
def test_code_that_frees_packets_is_looked_for_where_it_may_be_split(
    code: Callable[[str], Kallsyms], arguments: int, read: bool
) -> None:
    """Linux kernel commit c205cc7534a9, in v6.1, came before the tracepoint's fourth argument."""
    made = Symbols()
    made.functions = code("ffffffff81000000 T kfree_skb\nffffffff8100002c t kfree_skb.part.0\n")
    start = 0xFFFFFFFF81000000
    assert made.freeing_code(arguments) == ((start, start + 0x2C),) * read


def test_a_kernel_without_kallsyms_has_no_functions(tmp_path: Path) -> None:
    assert Kallsyms(tmp_path / "none").ranges(("kfree_skb",)) == ()


def test_a_stack_that_ends_on_the_way_to_the_program_tells_nothing(
    code: Callable[[str], Kallsyms],
) -> None:
    """bpf_get_stack() of a kernel 5.4 at a raw tracepoint."""
    made = Symbols()
    made.functions = code("ffffffff81000000 T bpf_get_stack_raw_tp\nffffffff81000100 T other\n")
    assert made.frames((0xFFFFFFFF81000079, 0)) == ()


def test_a_kept_stack_is_told_innermost_first(code: Callable[[str], Kallsyms]) -> None:
    made = Symbols()
    made.functions = code(CODE)
    stacks: Any = FakeMap()
    addresses = [0xFFFFFFFF81000101, 0xFFFFFFFF81000001]
    packed = STACK.pack(*addresses, *[0] * (STACK.size // 8 - 2))
    stacks.update((7).to_bytes(4, sys.byteorder), packed)
    assert made.stack(stacks, 7) == ("do_two+0x1", "do_one+0x1")
    assert made.stack(stacks, 8) == ()  # another one took its place
