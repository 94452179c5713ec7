# SPDX-License-Identifier: BSD-2-Clause
"""What `cgnet why` sums up of records: connections whose clients wait for their server."""

from __future__ import annotations

import pytest
from records import ENDED, IDENTITY, Names, fixed_clock, no_runtimes, record_of

from cgnet.commands.life import Life
from cgnet.commands.why.tallies import tally_of
from cgnet.records._layouts import LIFE, LIFE_EVENT, ClosedBy, RecordKind, Role
from cgnet.records.schema import Schema

NS = 1_000_000_000


@pytest.mark.parametrize(
    ("turns", "mean_us", "seconds", "closed", "thinks"),
    [
        (3, 500_000, 2, False, True),  # again and again
        (3, 100_000, 2, False, False),  # 15 % of the time
        (1, 1_000_000, 1, True, True),  # a connection a request
        (1, 1_000_000, 1, False, False),  # a long poll, for all that is known
        (1, 20_000_000, 20, True, False),  # a long poll
        (0, 0, 1, True, False),
        (3, 500_000, 0, False, True),  # from before the start
        (1, 20_000_000, 0, True, False),  # a long poll from before
    ],
)
def test_connections_whose_clients_wait(
    turns: int, mean_us: int, seconds: int, *, closed: bool, thinks: bool
) -> None:
    fields = Life(ttfb=True).fields(Names({}), no_runtimes())
    tally = tally_of("life", Schema("life", fixed_clock(), fields, LIFE_EVENT.size))
    life = ENDED._replace(
        turns=turns, mean_turn_us=mean_us, greatest_turn_us=mean_us, duration_ns=seconds * NS,
        closed_by=ClosedBy.CLOSED_BY_PEER if closed else 0, role=Role.ROLE_SERVER,
    )  # fmt: skip
    tally.add([record_of(RecordKind.RECORD_LIFE, LIFE.packed.pack(*life) + IDENTITY)] * 2)
    (group,) = tally.groups()
    names = ("thinking", "thinking_turns", "thinking_ns", "think_us")
    told = {name: group.sums[name] for name in names}
    assert told == {
        "thinking": 2 * thinks, "thinking_turns": 2 * turns * thinks,
        "thinking_ns": 2 * seconds * NS * thinks, "think_us": 2 * turns * mean_us * thinks,
    }  # fmt: skip
