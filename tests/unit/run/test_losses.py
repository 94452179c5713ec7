# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import sys

import pytest
from fakes import FakeObject, u32

from cgnet.records._layouts import LostWhere
from cgnet.run.losses import ADVICE, Loss, Losses

WHERE = [each for each in LostWhere if each is not LostWhere.LOST_WHERE_COUNT]


@pytest.fixture
def obj() -> FakeObject:
    found = FakeObject()
    for where in WHERE:
        lost(found, where, 0)
    return found


def lost(obj: FakeObject, where: LostWhere, total: int) -> None:
    """Set the kernel side's count."""
    obj.map("lost").update(u32(where), total.to_bytes(8, sys.byteorder))


def test_nothing_lost_is_nothing_to_tell(obj: FakeObject) -> None:
    losses = Losses()
    losses.add("rate", 0)
    assert (losses.look(obj), losses.total) == ([], 0)


@pytest.mark.parametrize("where", WHERE)
def test_each_look_tells_what_came_since_the_last(obj: FakeObject, where: LostWhere) -> None:
    losses, name = Losses(), where.name.removeprefix("LOST_").lower()
    lost(obj, where, 3)
    assert losses.look(obj) == [Loss(name, 3)]
    assert losses.look(obj) == []
    lost(obj, where, (1 << 63) + 3)
    assert losses.look(obj) == [Loss(name, 1 << 63)]
    assert losses.total == (1 << 63) + 3


def test_what_user_space_leaves_out_is_lost_like_the_rest(obj: FakeObject) -> None:
    losses = Losses()
    losses.add("rate", 2)
    losses.add("rate", 3)
    lost(obj, LostWhere.LOST_RING, 4)
    assert losses.look(obj) == [Loss("ring", 4), Loss("rate", 5)]
    losses.add("rate", 1)
    assert (losses.look(obj), losses.total) == ([Loss("rate", 1)], 10)


def test_there_is_advice_for_every_place_and_no_other() -> None:
    names = {where.name.removeprefix("LOST_").lower() for where in WHERE}
    assert set(ADVICE) == {*names, "names", "pairs", "rate", "output"}
    assert {str(Loss(where, 7)) for where in ADVICE} == {
        f"lost 7 ({where}): {advice}" for where, advice in ADVICE.items()
    }
