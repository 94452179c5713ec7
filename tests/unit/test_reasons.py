# SPDX-License-Identifier: BSD-2-Clause
"""Reasons for drops: names are the running kernel's, whatever numbers it gives them."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from cgnet._layouts import DropClass
from cgnet.errors import UsageError
from cgnet.reasons import BY_REASON, class_name, numbers_of
from cgnet.symbols import OVERFLOW, OVERFLOW_NUMBER, UNRESOLVED, Symbols

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.mark.parametrize(
    ("kind", "location", "name"),
    [
        (DropClass.DROP_PEER, "ip_forward+0x1", "peer"),
        (DropClass.DROP_UNKNOWN, "nf_hook_slow+0xb2", "firewall"),
        (DropClass.DROP_UNKNOWN, "tcp_conn_request+0x1", "application"),
        (DropClass.DROP_UNKNOWN, "something_else+0x1", None),
        (DropClass.DROP_UNKNOWN, UNRESOLVED, None),
    ],
)
def test_classes(kind: DropClass, location: str, name: str | None) -> None:
    assert class_name(kind, location) == name


def test_each_reason_has_one_class() -> None:
    assert BY_REASON["NO_SOCKET"] is DropClass.DROP_APPLICATION
    assert DropClass.DROP_UNKNOWN not in BY_REASON.values()
