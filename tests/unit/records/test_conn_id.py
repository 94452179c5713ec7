# SPDX-License-Identifier: BSD-2-Clause
"""``conn_id``: SipHash-2-4 as its authors publish it, and the vectors of the docs."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cgnet.records._layouts import Identity
from cgnet.records.conn_id import PUBLIC_KEY, conn_ids, siphash_2_4

PAGE = Path(__file__).resolve().parents[3] / "docs/peers.md"
VECTOR = re.compile(r"\| `([0-9a-f]{32})` \| `(\d+)` \| `(\d+)` \| `([0-9a-f]{16})` \|")


def test_the_published_vector() -> None:
    """Message 00 to 07 under the key 00 to 0f, of https://github.com/veorq/SipHash."""
    word = int.from_bytes(bytes(range(8)), "little")
    assert siphash_2_4(PUBLIC_KEY, [word]) == (0x93F5F5799A932462,)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=300))
def test_a_batch_has_the_hashes_of_its_messages(words: list[int]) -> None:
    key = bytes(range(16, 32))
    alone = [siphash_2_4(key, [word])[0] for word in words]
    assert list(siphash_2_4(key, words)) == alone


def test_the_docs_vectors() -> None:
    vectors = VECTOR.findall(PAGE.read_text(encoding="utf-8"))
    assert len(vectors) >= 4
    for key, one, other, found in vectors:
        ends = [Identity(int(one), int(other)).pack(), Identity(int(other), int(one)).pack()]
        assert conn_ids(bytes.fromhex(key), ends) == [found, found]


def test_without_an_identity_there_is_none() -> None:
    identity = Identity(7, 9).pack()
    first, none, again = conn_ids(PUBLIC_KEY, [identity, bytes(8), identity])
    assert none is None
    assert first == again
