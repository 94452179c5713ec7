# SPDX-License-Identifier: BSD-2-Clause
"""Show `cgnet connect` and `cgnet why` at work on a cgroup and two network namespaces of the demo's own.

Run through `sudo make demo`. Everything that it makes is removed again, also on failure and Ctrl-C.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cgnet.owners.cgroups import default_hierarchy, hierarchies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CGNET = Path(__file__).parent.parent / ".venv/bin/cgnet"
NAME = f"cgnet-demo-{os.getpid()}"
CLONE_NEWNET = 0x40000000
WAIT_S = 10.0
PAUSE_S = 0.02
# Addresses that are kept for documentation (RFC 5737, RFC 3849).
CLIENT, PEER, SILENT, UNROUTED = "192.0.2.1", "192.0.2.2", "192.0.2.9", "198.51.100.1"
CLIENT6, PEER6 = "2001:db8::1", "2001:db8::2"
OPEN_PORT, CLOSED_PORT = 8080, 8081
HAS_IPV6 = Path("/proc/net/if_inet6").exists()


class Attempt(NamedTuple):
    """A connection that the workload tries, and what has to come of it."""

    address: str
    port: int
    result: str


ATTEMPTS = (
    *[Attempt(PEER, OPEN_PORT, "ok")] * 3,
    *[Attempt(PEER6, OPEN_PORT, "ok")] * HAS_IPV6,
    Attempt(PEER, CLOSED_PORT, "ECONNREFUSED"),
    Attempt(UNROUTED, OPEN_PORT, "ENETUNREACH"),
    Attempt(SILENT, OPEN_PORT, "ETIMEDOUT"),
)
EXPLANATION = f"""
{PEER} listens on port {OPEN_PORT} and on no other; nobody answers for {SILENT}; no route leads to
{UNROUTED}. RESULT is how an attempt was decided, LATENCY how long that took ("-": no SYN left the
host), RETRANS how often the SYN was sent again. The owner is right also where the decision came from
a packet or a timer, outside of any process.

Why? The same workload once more, in a cgroup that cgnet makes for it:
"""


class DemoError(Exception):
    """The demo can't go on; the text says why."""


def run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise DemoError(f"{' '.join(command)}: {done.stderr.strip()}")


def wait_for(what: str, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > deadline:
            raise DemoError(f"{what}: not after {WAIT_S:.0f} s")
        time.sleep(PAUSE_S)


# -- places


@contextmanager
def cgroup() -> Iterator[Path]:
    path = default_hierarchy(hierarchies()).mount / NAME
    path.mkdir()
    try:
        yield path
    finally:
        wait_for(f"removing {path}", lambda: removed(path))


def removed(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError as error:
        if error.errno == errno.EBUSY:  # a process that was killed isn't quite gone
            return False
        raise
    return True


@contextmanager
def namespace(name: str) -> Iterator[str]:
    run("ip", "netns", "add", name)
    try:
        yield name
    finally:
        run("ip", "netns", "delete", name)


def enter(name: str) -> None:
    """Go to a network namespace; mounts stay as they are, other than with `ip netns exec`."""
    with Path("/run/netns", name).open() as file:
        enter_open(file.fileno())


def enter_open(fd: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def inside(name: str) -> Iterator[None]:
    with Path("/proc/self/ns/net").open() as home:
        enter(name)
        try:
            yield
        finally:
            enter_open(home.fileno())


def connect_namespaces(client: str, peer: str) -> None:
    """Lay a veth pair. SYNs to SILENT reach the peer, which drops them without a word."""
    run("ip", "-n", client, "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", peer)
    for name, address, address6 in ((client, CLIENT, CLIENT6), (peer, PEER, PEER6)):
        run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        if HAS_IPV6:
            run("ip", "-n", name, "address", "add", f"{address6}/64", "dev", "eth0", "nodad")
        run("ip", "-n", name, "link", "set", "eth0", "up")
    run("ip", "-n", peer, "route", "add", "blackhole", SILENT)
    nowhere = ("lladdr", "02:00:00:00:00:09", "nud", "permanent", "dev", "eth0")
    run("ip", "-n", client, "neighbour", "add", SILENT, *nowhere)


def listen(where: str, cleanup: ExitStack) -> None:
    """Open the listening sockets; the kernel accepts by itself up to the backlog."""
    with inside(where):
        for address in (PEER, PEER6) if HAS_IPV6 else (PEER,):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = cleanup.enter_context(
                socket.create_server((address, OPEN_PORT), family=family)
            )
            server.listen(16)


def wait_for_link(where: str) -> None:
    """Wait until connections get through, and the neighbours know each other."""

    def reached(address: str) -> bool:
        with suppress(OSError), socket.create_connection((address, OPEN_PORT), timeout=WAIT_S):
            return True
        return False

    with inside(where):
        for address in (PEER, PEER6) if HAS_IPV6 else (PEER,):
            wait_for(f"the link to {address}", lambda address=address: reached(address))  # type: ignore[misc]


# -- processes


@contextmanager
def process(*command: str | Path, **options: int | None) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, text=True, **options) as child:  # type: ignore[call-overload]
        try:
            yield child
        finally:
            child.kill()  # nothing, if it has ended


def tracer(
    cleanup: ExitStack, group: Path, *options: str, out: int | None
) -> subprocess.Popen[str]:
    """Start cgnet, and wait for it to say that it traces."""
    common = ("connect", "--cgroup", str(group), "--sync-errors", "on", *options)
    ends = ("--limit", str(len(ATTEMPTS)), "--duration", "30")
    child = cleanup.enter_context(
        process(CGNET, *common, *ends, stdout=out, stderr=subprocess.PIPE)
    )
    assert child.stderr  # noqa: S101 - it is a pipe
    said = ""
    for line in child.stderr:
        if line.startswith("cgnet: tracing"):
            return child
        said += line
    raise DemoError(f"cgnet ended before it traced\n{said}")


def work(where: str, group: str = "") -> None:
    """Be the workload: join the namespace, and the cgroup if there is one, then connect."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a traceback
    if group:
        Path(group, "cgroup.procs").write_text("0")
    enter(where)
    Path("/proc/self/comm").write_text("demo-client")
    # These count for this namespace alone: the time-out shall not take minutes.
    sysctls = Path("/proc/sys/net/ipv4")
    (sysctls / "tcp_syn_retries").write_text("1")
    with suppress(FileNotFoundError):
        (sysctls / "tcp_syn_linear_timeouts").write_text("0")
    for attempt in ATTEMPTS:
        with suppress(OSError):
            socket.create_connection(attempt[:2]).close()


def check(records: str) -> None:
    """Compare what was traced with what was done."""
    rows = [json.loads(line) for line in records.splitlines()]
    seen = Counter(
        Attempt(row["daddr"], row["dport"], row["result"])
        for row in rows
        if row["type"] == "connect"
    )
    missing, surplus = Counter(ATTEMPTS) - seen, seen - Counter(ATTEMPTS)
    wrong = [f"not seen: {each}" for each in missing] + [
        f"not expected: {each}" for each in surplus
    ]
    if wrong:
        raise DemoError("the rows aren't those of the workload\n  " + "\n  ".join(wrong))


def show() -> None:
    with ExitStack() as cleanup:
        client = cleanup.enter_context(namespace(f"{NAME}-client"))
        peer = cleanup.enter_context(namespace(f"{NAME}-peer"))
        group = cleanup.enter_context(cgroup())
        connect_namespaces(client, peer)
        listen(peer, cleanup)
        wait_for_link(client)
        print(f"$ cgnet connect --cgroup {group} --sync-errors on", flush=True)
        counted = tracer(cleanup, group, "--output", "json", out=subprocess.PIPE)
        shown = tracer(cleanup, group, out=None)
        command = (sys.executable, __file__, "work", client)
        workload = cleanup.enter_context(process(*command, str(group)))
        if workload.wait():
            raise DemoError("the workload failed")
        records = counted.communicate()[0]
        said = shown.communicate()[1]
        if shown.returncode:
            raise DemoError(f"cgnet failed\n{said}")
        print(said, end="")
        check(records)
        print(EXPLANATION, flush=True)
        explain(*command)


def explain(*command: str) -> None:
    """Show why attempts of the workload fail."""
    options = ("why", "--sync-errors", "on")
    print(f"$ cgnet {' '.join(options)} -- WORKLOAD", flush=True)
    if subprocess.run([CGNET, *options, "--", *command], check=False).returncode:
        raise DemoError("cgnet why failed")


def end(number: int, _frame: object) -> NoReturn:
    """End as if by Ctrl-C, once: the cleaning up isn't to be interrupted."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> None:
    if sys.argv[1:2] == ["work"]:
        work(*sys.argv[2:])
        return
    if os.geteuid():
        sys.exit("the demo makes namespaces and loads BPF programs: run 'sudo make demo'")
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, end)
    try:
        show()
    except (DemoError, OSError) as error:
        sys.exit(f"demo: {error}")


if __name__ == "__main__":
    main()
