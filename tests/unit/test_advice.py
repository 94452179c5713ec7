# SPDX-License-Identifier: BSD-2-Clause
"""Advice stands on evidence; without evidence it says what the reason means."""

from __future__ import annotations

from typing import Any

import pytest

from cgnet.advice import BY_REASON, Seen, advise
from cgnet.evidence import Queue
from cgnet.reasons import BY_REASON as CLASS_OF


class Told:
    """What a test says that was read; what it doesn't say can't be read."""

    def __init__(self, **known: Any) -> None:
        self.known = known

    def grown(self, _netns: int, names: tuple[str, ...]) -> dict[str, int]:
        return {name: value for name, value in self.known.get("grown", {}).items() if name in names}

    def sysctl(self, _netns: int, name: str) -> str | None:
        return self.known.get("sysctl", {}).get(name)

    def queues(self, _netns: int) -> list[Queue] | None:
        return self.known.get("queues")

    def qdiscs(self, _netns: int, _device: str) -> list[dict[str, Any]] | None:
        return self.known.get("qdiscs")

    def throttling(self, _cgroup: str) -> dict[str, int] | None:
        return self.known.get("throttling")


def seen(reason: str, **also: Any) -> Seen:
    return Seen(reason, "application", 1, **also)


CALL = {"dport": 80, "daddr": "10.0.0.2", "tcp_flags": "S"}


@pytest.mark.parametrize(
    ("queues", "said"),
    [
        (None, "nobody listens at 10.0.0.2 port 80"),
        ([], "nobody listens at port 80 in that"),
        ([Queue("127.0.0.1", 80, 0, 128)], "listens on 127.0.0.1 alone"),
        ([Queue("10.0.0.3", 80, 0, 128)], "listens on 10.0.0.3, not on 10.0.0.2"),
        ([Queue("0.0.0.0", 80, 0, 128)], "by now"),
        ([Queue("0.0.0.0", 81, 0, 128)], "nobody listens at port 80 in that"),
    ],
)
def test_no_socket(queues: list[Queue] | None, said: str) -> None:
    advice = advise(seen("NO_SOCKET", **CALL), Told(queues=queues))
    assert advice
    assert said in advice[0]
    assert ("listeners" in advice[1]) is (queues is not None)


NO_PORTS = (
    "nobody listens at the ports that they went to, or their connections are gone; count by dport "
    "to see the ports"
)
COUNTED = {"10.0.0.0/24": "a network's", None: "of any address"}


@pytest.mark.parametrize("daddr", COUNTED, ids=COUNTED.get)
@pytest.mark.parametrize(
    ("queues", "said"),
    [
        (None, "nobody listens at port 80"),
        ([], "nobody listens at port 80 in that network namespace"),
        (
            [Queue("127.0.0.1", 80, 0, 128)],
            "the server at port 80 listens on 127.0.0.1 alone; have it listen on the called address",
        ),
        (
            [Queue("10.0.0.3", 80, 0, 128)],
            "the server at port 80 listens on 10.0.0.3 alone, and may be called elsewhere",
        ),
        (
            [Queue("::", 80, 0, 128)],
            "somebody listens at port 80 by now, and didn't when it was called",
        ),
    ],
)
def test_no_socket_of_counts_without_an_address(
    queues: list[Queue] | None, said: str, daddr: str | None
) -> None:
    advice = advise(seen("NO_SOCKET", dport=80, daddr=daddr), Told(queues=queues))
    assert advice
    assert advice[0] == said


@pytest.mark.parametrize("daddr", ["10.0.0.2", None])
def test_no_socket_of_counts_without_ports(daddr: str | None) -> None:
    """What listens at other ports is no evidence."""
    told = Told(queues=[Queue("0.0.0.0", 80, 0, 128)])
    assert advise(seen("NO_SOCKET", daddr=daddr), told) == (
        NO_PORTS,
        {},
    )


@pytest.mark.parametrize("reason", BY_REASON)
def test_advice_of_counts_by_a_reason_alone_is_a_sentence(reason: str) -> None:
    advice = advise(seen(reason), Told(queues=[]))
    assert advice
    assert not {"?", "None"} & set(advice[0].split())


def test_no_socket_of_a_connection_that_is_gone() -> None:
    advice = advise(seen("NO_SOCKET", **CALL | {"tcp_flags": "PA"}), Told(queues=[]))
    assert advice == ("segments of connections that aren't there any more, or never were", {})


def test_overflow_with_all_evidence() -> None:
    told = Told(
        grown={"TcpExtListenOverflows": 3},
        queues=[Queue("0.0.0.0", 80, 129, 128)],
        sysctl={"net/core/somaxconn": "128"},
        throttling={"nr_periods": 10, "nr_throttled": 4},
    )
    advice = advise(seen("TCP_LISTEN_OVERFLOW", cgroup="/shop", **CALL), told)
    assert advice
    text, evidence = advice
    for part in ("129 wait, and 128 are allowed", "somaxconn there is 128", "4 of 10 periods"):
        assert part in text
    assert evidence["TcpExtListenOverflows"] == 3
    assert evidence["accept_queue"] == 129


def test_a_full_table_of_connections() -> None:
    names = {"count": "100", "max": "100"}
    settings = {f"net/netfilter/nf_conntrack_{name}": value for name, value in names.items()}
    advice = advise(seen("NETFILTER_DROP"), Told(sysctl=settings))
    assert advice
    assert "100 of 100" in advice[0]


@pytest.mark.parametrize("reason", BY_REASON)
def test_without_evidence_no_number_is_told(reason: str) -> None:
    advice = advise(seen(reason, cgroup="/shop", dev="eth0", dport=80), Told())
    assert advice
    text, evidence = advice
    assert text
    assert evidence == {}


@pytest.mark.parametrize("reason", CLASS_OF)
def test_each_reason_with_a_class_has_advice(reason: str) -> None:
    kind = CLASS_OF[reason].name.removeprefix("DROP_").lower()
    assert advise(Seen(reason, kind, 1), Told())


def test_what_nobody_knows_is_not_explained() -> None:
    assert advise(Seen("SOMETHING_NEW", None, 1), Told()) is None
    assert advise(Seen(None, None, 1), Told()) is None
