# SPDX-License-Identifier: BSD-2-Clause
"""Columns by role, and what is said to those who filter by result."""

from __future__ import annotations

from typing import Any

import pytest

from cgnet.commands import connlat
from cgnet.commands.connect import attempts
from cgnet.commands.connect import command as connect
from cgnet.filters.selection import Selection
from cgnet.kernel.variants import SYNC_ERRORS
from cgnet.records._layouts import ConnectConfig, Role

CLIENT, SERVER = Role.ROLE_CLIENT, Role.ROLE_SERVER


def made(module: Any, *roles: Role) -> attempts.Attempts:
    """Return the command for these roles."""
    found: attempts.Attempts = type(module.COMMAND)(Selection(roles=frozenset(roles)))
    return found


@pytest.mark.parametrize("module", [connect, connlat])
def test_clients_columns_are_those_of_the_command(module: object) -> None:
    columns = made(module, CLIENT).columns
    assert columns == module.COMMAND.columns  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", [connect, connlat])
def test_port_that_is_listened_at_is_shown(module: object) -> None:
    columns = made(module, SERVER).columns
    table = columns["table"]
    assert table[table.index("saddr") : table.index("daddr") + 1] == ("saddr", "sport", "daddr")
    assert "dport" not in table
    assert {"role", "sport", "dport"} <= set(columns["wide"])


@pytest.mark.parametrize("module", [connect, connlat])
def test_rows_of_both_sides_are_told_apart(module: object) -> None:
    columns = made(module, CLIENT, SERVER).columns
    for fields in (columns["table"], columns["wide"]):
        assert {"role", "sport", "dport"} <= set(fields)
        assert len(set(fields)) == len(fields)


def test_the_programs_are_told_what_sees_early_errors() -> None:
    found = [connect.COMMAND.config([each]) for each in SYNC_ERRORS.variants]
    assert found == [[ConnectConfig(sync_errors=how)] for how in (1, 1, 2, 0)]
    assert connect.COMMAND.config([]) == [ConnectConfig()]


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
    command = connlat.Connlat(Selection(result=results))
    assert command.remarks() == ([attempts.OWN_TIMEOUTS] if said else [])
