# SPDX-License-Identifier: BSD-2-Clause
"""Filters on flows and outcomes, in a namespace where all addresses and ports are free."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from compare import only
from harness import Row, ip, new_netns, run, tracing
from raw_peer import PEER, peer
from servers import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLOWS = (
    "127.0.0.1||127.0.0.1|80", "127.0.0.1||127.0.0.2|443", "127.0.0.2||10.1.2.3|7999",
    "10.1.2.3||127.9.0.1|8000", "10.1.2.3||10.1.2.3|8500", "127.9.0.1|80|127.0.0.1|8999",
    "127.0.0.1|8999|127.0.0.1|9000", "::ffff:127.0.0.1||::ffff:127.0.0.2|443",
    "::ffff:10.1.2.3|7999|::ffff:127.0.0.1|8001", "::1||::1|80", "fd00::1||::1|443",
    "fd00::1|444|fd00:0:0:1::1|8500", "fd00:0:0:1::1||fd00::1|1", "127.0.0.1|1|10.1.2.3|65535",
)  # fmt: skip


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """A namespace with these addresses, where something listens on port 443 only."""
    with new_netns() as netns:
        ip("-n", netns, "addr", "add", "10.1.2.3/32", "dev", "lo")
        for address in ("fd00::1", "fd00:0:0:1::1"):
            ip("-n", netns, "addr", "add", f"{address}/128", "dev", "lo", "nodad")
        with serving("::", "dual", port=443, netns=netns):
            yield netns


def within(row: Row, sides: tuple[str, ...], *networks: str) -> bool:
    """As a filter on addresses must see it: a mapped connection is IPv4."""
    return any(
        ip_address(row[side]) in ip_network(network) for side in sides for network in networks
    )


EITHER = ("saddr", "daddr")
ADDRESS_CASES: dict[str, Callable[[Row], object]] = {
    "--daddr 127.0.0.2": lambda row: row["daddr"] == "127.0.0.2",
    "--daddr 127.0.0.0/8": lambda row: within(row, ("daddr",), "127.0.0.0/8"),
    "--daddr 127.0.0.0/30 --daddr 10.0.0.0/8": lambda row: within(
        row, ("daddr",), "127.0.0.0/30", "10.0.0.0/8"
    ),
    "--daddr 0.0.0.0/0": lambda row: row["family"] == 4,
    "--daddr ::/0": lambda row: row["family"] == 6,
    "--daddr ::ffff:127.0.0.2": lambda row: row["daddr"] == "127.0.0.2",
    "--daddr ::ffff:127.0.0.0/104": lambda row: within(row, ("daddr",), "127.0.0.0/8"),
    "--daddr fd00::/64": lambda row: row["daddr"] == "fd00::1",
    "--daddr !fd00::/16": lambda row: not within(row, ("daddr",), "fd00::/16"),
    "--daddr !::/0": lambda row: row["family"] == 4,
    "--daddr 127.0.0.0/8 --daddr !127.0.0.0/31": lambda row: (
        row["daddr"] in {"127.0.0.2", "127.9.0.1"}
    ),
    "--saddr 10.0.0.0/8": lambda row: within(row, ("saddr",), "10.0.0.0/8"),
    "--saddr fd00:0:0:1::/64": lambda row: row["saddr"] == "fd00:0:0:1::1",
    "--saddr !127.0.0.0/8 --saddr !::1": lambda row: (
        not within(row, ("saddr",), "127.0.0.0/8", "::1/128")
    ),
    "--addr 10.1.2.3": lambda row: within(row, EITHER, "10.1.2.3"),
    "--addr !10.0.0.0/8": lambda row: not within(row, EITHER, "10.0.0.0/8"),
    "--addr fd00::1 --addr !::1": lambda row: (
        within(row, EITHER, "fd00::1") and not within(row, EITHER, "::1")
    ),
    "--saddr 127.0.0.0/8 --daddr 10.0.0.0/8": lambda row: (
        within(row, ("saddr",), "127.0.0.0/8") and within(row, ("daddr",), "10.0.0.0/8")
    ),
    "-4": lambda row: row["family"] == 4,
    "-6": lambda row: row["family"] == 6,
    "-6 --daddr fd00::/8": lambda row: within(row, ("daddr",), "fd00::/8"),
}
PORT_CASES: dict[str, Callable[[Row], object]] = {
    "--dport 443": lambda row: row["dport"] == 443,
    "--dport 80,443,8000-8999": lambda row: row["dport"] in {80, 443, *range(8000, 9000)},
    "--dport 80 --dport 8999-9000": lambda row: row["dport"] in {80, 8999, 9000},
    "--dport !8000-65535": lambda row: row["dport"] < 8000,
    "--dport 8000-9000,65535 --dport !8500,8999": lambda row: (
        row["dport"] in {8000, 8001, 9000, 65535}
    ),
    "--sport 80,8000-8999": lambda row: row["sport"] in {80, 8999},
    "--sport !0-10000": lambda row: row["sport"] > 10000,
    "--port 80,8999": lambda row: {row["sport"], row["dport"]} & {80, 8999},
    "--port !443 --port !8999": lambda row: not {row["sport"], row["dport"]} & {443, 8999},
    "--sport 8999 --dport 9000": lambda row: row["sport"] == 8999,
    "--port 444 --dport 8500": lambda row: row["sport"] == 444,
}
OTHER_CASES: dict[str, Callable[[Row], object]] = {
    "--result ok": lambda row: row["result"] == "ok",
    "--result !ok": lambda row: row["result"] != "ok",
    "--result econnrefused": lambda row: row["result"] == "ECONNREFUSED",
    "--result 111,aborted,ok --result !ok": lambda row: row["result"] == "ECONNREFUSED",
    "--result !ok -4 --dport 1-8999 --addr !127.9.0.1 --saddr !10.0.0.0/8": lambda row: (
        row["result"] != "ok"
        and row["family"] == 4
        and row["dport"] <= 8999
        and not within(row, EITHER, "127.9.0.1")
        and not within(row, ("saddr",), "10.0.0.0/8")
    ),
}
CASES = ADDRESS_CASES | PORT_CASES | OTHER_CASES
WITH_RAW = (
    "--daddr ::ffff:127.0.0.0/104", "--daddr !::/0", "--saddr 10.0.0.0/8",
    "--addr fd00::1 --addr !::1", "-4", "-6", "--dport 8000-9000,65535 --dport !8500,8999",
    "--sport !0-10000", "--port 80,8999", "--result !ok", [*OTHER_CASES][-1],
)  # fmt: skip


def compare_case(place: str, hook: str, options: str) -> None:
    with tracing("--hook", hook, *options.split()) as tracer:
        made = run("flows", *FLOWS, netns=place)
        wanted = [row for row in made if CASES[options](row)]
        assert 0 < len(wanted) < len(made)
        shown = only(tracer, wanted, made)
    mapped = [(row["sport"], row["mapped"]) for row in wanted]
    assert mapped == [(row["sport"], row["mapped"]) for row in shown]


@pytest.mark.parametrize("options", CASES)
def test_flows(place: str, options: str) -> None:
    compare_case(place, "tp_btf", options)


@pytest.mark.parametrize("options", WITH_RAW)
def test_flows_with_the_other_hook(place: str, options: str) -> None:
    compare_case(place, "raw_tp", options)


@pytest.mark.parametrize("options", ["--role client", "--role !server", "--all --role client"])
def test_role_of_those_that_connect(place: str, options: str) -> None:
    with tracing(*options.split()) as tracer:
        made = run("flows", *FLOWS, netns=place)
        shown = only(tracer, made, [])
        assert {row["role"] for row in tracer.rows()} == {"client"}
    assert len(shown) == len(FLOWS)


def test_aborted_is_a_result(hook: str) -> None:
    with peer("silence") as (netns, _), tracing("--hook", hook, "--result", "aborted") as tracer:
        others = run("flows", FLOWS[0], netns=netns)
        only(tracer, run("closed", PEER, 80, netns=netns), others)


# -- large sets


def test_thousand_networks(hook: str, place: str) -> None:
    """Each second /24 of 10.0.0.0/13 or so: a neighbour isn't matched."""
    networks = [f"10.{number >> 7}.{2 * number % 256}.0/24" for number in range(1000)]
    arguments = [word for network in networks for word in ("--daddr", network)]
    tried = [0, 1, 127, 128, 500, 998, 999]
    ip("-n", place, "route", "replace", "local", "10.0.0.0/8", "dev", "lo")
    flows = [f"10.1.2.3||{networks[number].replace('.0/24', '.77')}|443" for number in tried]
    near = [f"10.1.2.3||10.{number >> 7}.{2 * number % 256 + 1}.77|443" for number in tried]
    with tracing("--hook", hook, *arguments) as tracer:
        made = run("flows", *flows, netns=place)
        assert {row["result"] for row in made} == {"ok"}
        only(tracer, made, run("flows", *near, "10.1.2.3||127.0.0.1|443", netns=place))


def test_thousand_ports(hook: str, place: str) -> None:
    ports = ",".join(str(port) for port in range(1001, 3001, 2))
    with tracing("--hook", hook, "--dport", ports) as tracer:
        made = run(
            "flows", *(f"127.0.0.1||127.0.0.1|{port}" for port in range(900, 3100)), netns=place
        )
        wanted = [row for row in made if 1000 < row["dport"] < 3000 and row["dport"] % 2]
        assert len(wanted) == 1000
        only(tracer, wanted, made)
