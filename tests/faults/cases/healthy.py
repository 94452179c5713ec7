# SPDX-License-Identifier: BSD-2-Clause
"""Traffic that is well: none of it may be found."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from case import Trouble, healthy
from harness import ip
from lab import PORT
from router_chain import chain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import App, Lab

HEALTHY = ("ok", "sent", "received", "connected", "listening")


def well(*apps: App, least: int = 1) -> Trouble:
    """All that the programs see is well; no finding is expected."""
    for each in apps:
        each.wait_for(*HEALTHY)

    def seen() -> bool:
        return all(
            each.count(*HEALTHY) >= least and each.count(*HEALTHY) == len(each.reports)
            for each in apps
        )

    return Trouble("nothing", seen)


@healthy
def keep_alive(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT, workers=8, pause=0.01)
    yield None
    yield well(keeps)


@healthy
def bulk(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen("sink")
    sends = client.start("upload", to=server.address, port=PORT, workers=2)
    yield None
    yield well(sends)


@healthy
def bulk_over_a_long_way(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.apart(0.01)
    server.listen("sink")
    sends = client.start("upload", to=server.address, port=PORT, chunk=8192, pause=0.005)
    yield None
    yield well(sends)


@healthy
def closed_by_reset(lab: Lab) -> Iterator[Trouble | None]:
    """The clients have their answers, and close by reset, as some do."""
    client, _, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT, reset=True, workers=4)
    yield None
    yield well(calls)


@healthy
def long_polls(lab: Lab) -> Iterator[Trouble | None]:
    """Requests that the server answers after 20 s, as it is meant to; others are fast."""
    client, _, server = lab.routed()
    server.listen(think=20)
    server.listen(port=PORT + 1)
    polls = client.start("keep", to=server.address, port=PORT, workers=4)
    keeps = client.start("keep", to=server.address, port=PORT + 1)
    yield None
    trouble = well(keeps)
    yield Trouble("nothing", lambda: trouble.seen() and polls.count("ok") == len(polls.reports))


@healthy
def idle(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    held = client.start("hold", to=server.address, port=PORT, count=50)
    yield None
    yield well(held, least=50)


@healthy
def health_checks(lab: Lab) -> Iterator[Trouble | None]:
    """They connect and close, or reset, without a word."""
    client, _, server = lab.routed()
    server.listen()
    checks = [
        client.start("call", to=server.address, port=PORT, silent=True, reset=each)
        for each in (False, True)
    ]
    yield None
    yield well(*checks)


@healthy
def time_wait(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT, workers=8, pause=0.005)
    calls.wait_for("ok", count=500)
    yield None
    yield well(calls)


@healthy
def twenty_containers(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    apps = []
    for number in range(20):
        each = lab.end(f"quiet{number}", client.place)
        apps.append(
            each.start("keep", to=server.address, port=PORT, workers=1, pause=0.5, answer=100)
        )
    yield None
    yield well(*apps)


@healthy
def drained_restarts(lab: Lab) -> Iterator[Trouble | None]:
    """Servers close connections after an answer; the clients see it, and open others."""
    client, _, server = lab.routed()
    server.listen(drain=0.5)
    keeps = client.start("keep", to=server.address, port=PORT, workers=4, checks=True)
    yield None
    yield well(keeps, least=20)


@healthy
def uploads_end(lab: Lab) -> Iterator[Trouble | None]:
    """Large answers, one connection each."""
    client, _, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT, answer=3_000_000, pause=0.2)
    yield None
    begin = time.monotonic()
    calls.wait_for("ok", since=begin)
    yield well(calls)


@healthy
def deleted_containers(lab: Lab) -> Iterator[Trouble | None]:
    """Containers are deleted while they talk: what the kernel still holds is nobody's trouble."""
    client, _, server = lab.routed()
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT)
    with ExitStack() as gone:
        places = gone.enter_context(chain(0))
        sender, receiver = (lab.end("gone", each) for each in places)
        reads = receiver.listen("sink", stop_after=100_000)
        to = places[1].address(lab.family)
        sends = sender.start("upload", to=to, port=PORT, workers=4)
        sends.wait_for("connected", count=4)
        for each in (reads, sends):
            each.stop()
    yield None
    yield well(keeps)


@healthy
def other_family_is_refused(lab: Lab) -> Iterator[Trouble | None]:
    """Clients call the IPv6 address first, or ::1, and then the IPv4 one, which serves."""
    client, _, server = lab.routed()
    server.listen(address="0.0.0.0")
    alone = lab.lone("alone")
    alone.listen(address="127.0.0.1")
    addresses = {"first": server.place.address(6), "second": server.place.address(4)}
    calls = [
        client.start("eyeballs", **addresses, port=PORT),
        alone.start("eyeballs", first="::1", second="127.0.0.1", port=PORT),
    ]
    yield None
    yield well(*calls)


@healthy
def other_family_has_no_route(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen(address="0.0.0.0")
    second = server.place.address(4)
    calls = client.start("eyeballs", first="2001:db8:9::9", second=second, port=PORT)
    yield None
    yield well(calls)


@healthy
def half_close(lab: Lab) -> Iterator[Trouble | None]:
    """A request ends by shutdown(SHUT_WR)."""
    client, _, server = lab.routed()
    server.listen("serve_halves", think=0.1)
    calls = client.start("halves", to=server.address, port=PORT)
    yield None
    yield well(calls)


@healthy
def server_sent_events(lab: Lab) -> Iterator[Trouble | None]:
    """A line a second, and one in ten seconds, for one request."""
    client, _, server = lab.routed()
    server.listen("events", every=1)
    server.listen("events", port=PORT + 1, every=10)
    reads = [
        client.start("subscribe", to=server.address, port=port, count=2)
        for port in (PORT, PORT + 1)
    ]
    yield None
    yield well(*reads)


@healthy
def lines_without_an_answer(lab: Lab) -> Iterator[Trouble | None]:
    """Lines of a log, some on each connection; nobody answers."""
    client, _, server = lab.routed()
    server.listen("sink")
    sends = [
        client.start("batches", to=server.address, port=PORT),
        client.start("batches", to=server.address, port=PORT, lines=2, pause=1),
    ]
    yield None
    yield well(*sends)


@healthy
def upload_at_a_limited_rate(lab: Lab) -> Iterator[Trouble | None]:
    """A link of 20 Mbit/s with a queue of 50 ms, which TCP fills."""
    client, router, server = lab.routed()
    server.listen("sink")
    number = router.devices.index("e0")
    lab.enter(router.shaper(number, rate="20mbit", burst="32kb", limit="125000"))
    sends = client.start("upload", to=server.address, port=PORT)
    yield None
    sends.wait_for("sent", count=4)
    yield well(sends)


@healthy
def download_from_before(lab: Lab) -> Iterator[Trouble | None]:
    """A large download, which began earlier; segments may overtake each other between CPUs."""
    client, _, server = lab.routed()
    server.listen("source")
    reads = client.start("download", to=server.address, port=PORT)
    yield None
    yield well(reads)


@healthy
def cancelled_attempts(lab: Lab) -> Iterator[Trouble | None]:
    """Attempts over a long way are given up before their answer can come."""
    client, _, server = lab.apart(0.2)
    server.listen()
    calls = client.start("cancels", to=server.address, port=PORT)
    yield None
    yield well(calls)


@healthy
def smaller_mtu_on_the_way(lab: Lab) -> Iterator[Trouble | None]:
    """The router tells it by ICMP."""
    client, router, server = lab.routed()
    server.listen()
    ip("-n", router.netns, "link", "set", "e0", "mtu", "1400")
    yield None
    yield well(client.start("call", to=server.address, port=PORT, size=50_000))
