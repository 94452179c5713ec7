# SPDX-License-Identifier: BSD-2-Clause
"""Addresses and ports, as the bytes of their maps."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from cgnet.filters.selection import address_key, port_flags
from cgnet.filters.values import Choice, choose, ports
from cgnet.records._layouts import ADDRESS_KEY, PORT_FLAGS, FlowSide


@pytest.mark.parametrize(
    ("group", "text", "expected"),
    [
        (0, "0.0.0.0/0", (16, 0, 4, bytes(16))),
        (3, "192.0.2.1", (48, 3, 4, bytes([192, 0, 2, 1]) + bytes(12))),
        (4, "fd00::/8", (24, 4, 6, b"\xfd" + bytes(15))),
        (5, "::1", (144, 5, 6, bytes(15) + b"\1")),
    ],
)
def test_an_address_key_is_list_family_and_prefix(
    group: int, text: str, expected: tuple[Any, ...]
) -> None:
    raw = address_key(group, ip_network(text))
    assert ADDRESS_KEY.packed.unpack(raw) == (*expected, bytes(2))


def test_ports_have_two_bits_for_each_side() -> None:
    choices = [choose("--port", values, ports) for values in (["1", "!1-2"], ["2-3"], ["!65535,0"])]
    flags = port_flags(choices)
    assert len(flags) == PORT_FLAGS.size
    found = {port: value for port, value in enumerate(flags) if value}
    source, destination, either = (2 * side for side in tuple(FlowSide)[:3])
    assert found == {
        0: 2 << either,
        1: 3 << source,
        2: 2 << source | 1 << destination,
        3: 1 << destination,
        65535: 2 << either,
    }


def test_all_ports_of_all_sides_are_flagged() -> None:
    both = Choice((range(65536),), (range(65536),))
    assert set(port_flags([Choice((range(65536),))] * 3)) == {0b010101}
    assert set(port_flags([both] * 3)) == {0b101010}
