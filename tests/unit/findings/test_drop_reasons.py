# SPDX-License-Identifier: BSD-2-Clause
"""Reasons for drops: names are the running kernel's, whatever numbers it gives them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgnet.commands.drop.config import DropOptions, settings
from cgnet.errors import UsageError
from cgnet.findings.class_rule import function_classes
from cgnet.findings.drop_reasons import BY_REASON, CLASSES, class_name, numbers_of
from cgnet.kernel.symbols import OVERFLOW, OVERFLOW_NUMBER, SYN_QUEUE, Kallsyms, Symbols
from cgnet.records._layouts import FUNCTION_CLASSES, DropClass

if TYPE_CHECKING:
    from pathlib import Path

SYMBOLS = Symbols()  # of the running kernel
VENDOR = """
enum skb_drop_reason {
    SKB_NOT_DROPPED_YET,
    SKB_DROP_REASON_OUR_OWN,
    SKB_DROP_REASON_NOT_SPECIFIED,
    SKB_DROP_REASON_TCP_CSUM,
    SKB_DROP_REASON_NO_SOCKET = 70,
    SKB_DROP_REASON_MAX,
} reason;
enum skb_drop_reason_subsys {
    SKB_DROP_REASON_SUBSYS_CORE,
    SKB_DROP_REASON_SUBSYS_OPENVSWITCH = 5,
} subsys;
enum sk_rst_reason { SK_RST_REASON_NOT_SPECIFIED = 3, SK_RST_REASON_NO_SOCKET } rst;
"""


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Symbols:
    """A kernel that has its own reasons among the usual ones."""
    return symbols_of(tmp_path_factory.mktemp("btf"), VENDOR)


def symbols_of(folder: Path, source: str) -> Symbols:
    clang = shutil.which("clang")
    assert clang
    target = folder / "kernel.o"
    command = [clang, "-g", "-target", "bpf", "-x", "c", "-c", "-", "-o", target]
    subprocess.run(command, input=source.encode(), check=True)
    return Symbols(target)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1, "OUR_OWN"),
        (2, "NOT_SPECIFIED"),
        (3, "TCP_CSUM"),
        (70, "NO_SOCKET"),
        (9, "9"),
        (5 << 16 | 7, "OPENVSWITCH_7"),
        (6 << 16 | 7, "6_7"),
        (OVERFLOW_NUMBER, OVERFLOW),
    ],
)
def test_names_of_a_vendors_numbers(vendor: Symbols, number: int, name: str) -> None:
    assert vendor.drop_reason(number) == name


def test_what_is_no_reason_has_no_name(vendor: Symbols) -> None:
    assert set(vendor.drop_reasons.values()) == {
        "OUR_OWN",
        "NOT_SPECIFIED",
        "TCP_CSUM",
        "NO_SOCKET",
    }


def test_resets_likewise(vendor: Symbols) -> None:
    assert [vendor.rst_reason(number) for number in (3, 4, 5)] == [
        "NOT_SPECIFIED",
        "NO_SOCKET",
        "5",
    ]


def test_a_kernel_without_reasons(tmp_path: Path) -> None:
    symbols = symbols_of(tmp_path, "struct nothing { int x; } nothing;")
    assert symbols.drop_reasons == {}
    assert symbols.drop_reason(7) is None
    assert symbols.drop_reason(symbols.overflow) == OVERFLOW


def test_the_kernels_own_number_of_an_overflow(tmp_path: Path) -> None:
    source = "enum skb_drop_reason { SKB_DROP_REASON_TCP_LISTEN_OVERFLOW = 12 } reason;"
    assert symbols_of(tmp_path, source).overflow == 12


@pytest.mark.parametrize("name", ["NO_SOCKET", "no_socket", "SKB_DROP_REASON_NO_SOCKET"])
def test_a_reason_is_found_by_name(name: str) -> None:
    assert numbers_of((name,), {70: "NO_SOCKET", 3: "TCP_CSUM"}) == {70: "NO_SOCKET"}


@pytest.mark.parametrize(
    ("known", "said"), [({3: "TCP_CSUM"}, "no such reason"), ({}, "tells no reasons")]
)
def test_a_reason_that_is_not_there(known: dict[int, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        numbers_of(("NO_SOCKET",), known)


def test_a_reason_is_named_once_and_the_nearest_told() -> None:
    with pytest.raises(UsageError) as raised:
        numbers_of(("NO_SOCKT",), {3: "NO_SOCKET"})
    assert str(raised.value).count("--reason") == 1
    assert "(did you mean NO_SOCKET?)" in str(raised.value)


def test_the_kernels_part_of_a_name_is_taken_off_once(tmp_path: Path) -> None:
    source = "enum skb_drop_reason { SKB_CONSUMED, SKB_DROP_REASON_SKB_CSUM } reason;"
    known = symbols_of(tmp_path, source).drop_reasons
    assert known == {0: "CONSUMED", 1: "SKB_CSUM"}
    assert set(known.values()) <= set(BY_REASON)


FUNCTIONS = """\
ffffffff81000000 T ip_forward
ffffffff81000100 t ip_fragment.constprop.0
ffffffff81000200 T something_else
ffffffff81000300 T tcp_conn_request
ffffffff81000400 T end
"""


@pytest.fixture
def kernel(vendor: Symbols, tmp_path: Path) -> Symbols:
    (tmp_path / "kallsyms").write_text(FUNCTIONS)
    vars(vendor)["functions"] = Kallsyms(tmp_path / "kallsyms")
    return vendor


def test_classes_of_functions(kernel: Symbols) -> None:
    names = FUNCTION_CLASSES.packed.unpack(function_classes(kernel))
    starts, ends, classes = names[:64:2], names[1:64:2], names[64:]
    code = [
        (start - 0xFFFFFFFF81000000, end - start) for start, end in zip(starts, ends, strict=True)
    ]
    assert code[:4] == [(0, 256), (256, 256), (0x300, 256), (-0xFFFFFFFF81000000, 0)]
    assert [CLASSES[DropClass(each)] for each in classes[:4]] == [
        "configuration", "configuration", "application", "unknown",
    ]  # fmt: skip


@given(
    chosen=st.sets(st.sampled_from(sorted(CLASSES.values())[:-1]), min_size=1),
    excluded=st.booleans(),
    kind=st.sampled_from(list(DropClass)),
)
def test_filter_and_column_agree(chosen: set[str], excluded: bool, kind: DropClass) -> None:
    """Both go by the one number that the kernel side made of reason, state and function."""
    names = [CLASSES[each] for each in CLASSES if CLASSES[each] in chosen and each]
    if not names:
        return
    given_names = tuple(f"!{name}" if excluded else name for name in names)
    measures, _ = settings(SYMBOLS, DropOptions(reason_class=given_names))
    passes = bool(measures.by_class >> kind & 1)
    assert passes is ((class_name(kind) in names) is not excluded)


def test_the_kernel_side_knows_the_class_of_each_reason() -> None:
    _, contents = settings(SYMBOLS, DropOptions())
    told = {
        SYMBOLS.drop_reason(int.from_bytes(number, sys.byteorder)): int.from_bytes(
            kind, sys.byteorder
        )
        for number, kind in contents["drop_classes"].items()
    }
    known = {*SYMBOLS.drop_reasons.values(), OVERFLOW, SYN_QUEUE} & set(BY_REASON)
    assert told == {name: BY_REASON[name] for name in known}


def test_class_names() -> None:
    assert class_name(DropClass.DROP_PEER) == "peer"
    assert class_name(DropClass.DROP_UNKNOWN) is None


def test_each_reason_has_one_class() -> None:
    assert BY_REASON["NO_SOCKET"] is DropClass.DROP_APPLICATION
    assert DropClass.DROP_UNKNOWN not in BY_REASON.values()
