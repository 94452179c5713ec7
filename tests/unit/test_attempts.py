# SPDX-License-Identifier: BSD-2-Clause
"""Columns by role, and what is said to those who filter by result."""

from __future__ import annotations

import pytest

from cgnet import attempts
from cgnet._layouts import Role
from cgnet.commands import connect, connlat

CLIENT, SERVER = Role.ROLE_CLIENT, Role.ROLE_SERVER


@pytest.mark.parametrize("module", [connect, connlat])
def test_clients_columns_are_those_of_the_command(module: object) -> None:
    command = module.COMMAND  # type: ignore[attr-defined]
    assert attempts.for_roles(command, {CLIENT}) == command


@pytest.mark.parametrize("module", [connect, connlat])
def test_port_that_is_listened_at_is_shown(module: object) -> None:
    command = module.COMMAND  # type: ignore[attr-defined]
    columns = attempts.for_roles(command, {SERVER}).columns
    table = columns["table"]
    assert table[table.index("saddr") : table.index("daddr") + 1] == ("saddr", "sport", "daddr")
    assert "dport" not in table
    assert {"role", "sport", "dport"} <= set(columns["wide"])


@pytest.mark.parametrize("module", [connect, connlat])
def test_rows_of_both_sides_are_told_apart(module: object) -> None:
    command = module.COMMAND  # type: ignore[attr-defined]
    columns = attempts.for_roles(command, {CLIENT, SERVER}).columns
    for fields in columns.values():
        assert {"role", "sport", "dport"} <= set(fields)
        assert len(set(fields)) == len(fields)


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ((), False),
        (("ETIMEDOUT",), True),
        (("ECONNREFUSED,ETIMEDOUT",), True),
        (("ECONNREFUSED,110",), True),
        (("ETIMEDOUT", "aborted"), False),
        (("!ok",), False),
        (("!ETIMEDOUT",), False),
        (("ECONNREFUSED",), False),
    ],
)
def test_who_asks_for_time_outs_hears_of_those_of_applications(
    results: tuple[str, ...], said: bool
) -> None:
    (way,) = attempts.explained([attempts.NOT_AT_ALL], results)
    assert way.remarks == ((attempts.OWN_TIMEOUTS,) if said else ())
