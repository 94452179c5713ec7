# SPDX-License-Identifier: BSD-2-Clause
"""``--peer`` and ``--names``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cgnet.errors import UsageError
from cgnet.filters.peer_names import PeerFilter, read_names
from cgnet.owners.peers import ADDRESS, NOBODY, SOCKET, Peer

if TYPE_CHECKING:
    from pathlib import Path

WEB = Peer(SOCKET, "shop/web", "web", "0123456789abcdef", "shop", "/pods/web")
DB = Peer(ADDRESS, "db", "db", "fedcba9876543210", None, "/db")


def test_the_longest_prefix_names(tmp_path: Path) -> None:
    path = tmp_path / "names"
    path.write_text(
        "10.0.0.0/8 lan\n\n# all\n10.1.0.0/16 the office\nfd00::/8 six # here\n10.1.2.3 host\n"
    )
    names = read_names(path)
    found = [names.name(each) for each in ("10.1.2.3", "10.1.2.4", "10.2.0.0", "fd00::1", "::1")]
    assert found == ["host", "the office", "lan", "six", None]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.0.0.0/8\n", "line 1: 10.0.0.0/8 has no name"),
        ("\nweb 10.0.0.1\n", "line 2: no address"),
    ],
)
def test_a_malformed_line_is_told(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "names"
    path.write_text(text)
    with pytest.raises(UsageError, match=why):
        read_names(path)


@pytest.mark.parametrize(
    ("given", "passing"),
    [
        ((), (True, True, True)),
        (("web",), (True, False, False)),
        (("shop",), (True, False, False)),
        (("shop/web", "db"), (True, True, False)),
        (("0123",), (True, False, False)),
        (("012",), (False, False, False)),
        (("w*", "d?"), (True, True, False)),
        (("!web",), (False, True, True)),
        (("*", "!d*"), (True, False, False)),
    ],
)
def test_names_select(given: tuple[str, ...], passing: tuple[bool, ...]) -> None:
    chosen = PeerFilter(given)
    assert tuple(map(chosen.matches, (WEB, DB, NOBODY))) == passing


@pytest.mark.parametrize(
    ("given", "passes"),
    [(("web",), True), (("db",), True), (("!db",), False), (("cache",), False), ((), True)],
)
def test_either_end_is_enough_and_an_excluded_one_is_too(
    given: tuple[str, ...], passes: bool
) -> None:
    assert PeerFilter(given).matches(Peer(name="web"), Peer(name="db")) is passes


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(UsageError, match="--peer ''"):
        PeerFilter(("",))
