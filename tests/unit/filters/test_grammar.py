# SPDX-License-Identifier: BSD-2-Clause
"""The grammar of options against what the kernel side makes of the bytes that it is given.

The rule: repeats of one option are OR, different options are AND, what begins with ``!`` excludes last;
an unknown owner never matches an option that includes owners.
"""

from __future__ import annotations

import fnmatch
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selecting import Event, Selecting

from cgnet.filters.cgroup import is_pattern
from cgnet.filters.selection import Filters, Selection
from cgnet.owners import cgroups
from cgnet.owners.cgroups import Hierarchy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = ("a", "b", "ab")
PATHS = ["/", *(f"/{x}" for x in NAMES), *(f"/{x}/{y}" for x in NAMES for y in NAMES)]
LATER = ["/new", "/new/b", "/new/b/a", "/a/n", "/a/b/n"]  # made while cgnet runs
IDS = {path: number for number, path in enumerate(PATHS + LATER, 1)}
ADDRESSES = ["10.0.0.1", "10.0.1.1", "10.0.2.1", "192.0.2.1", "fd00::1", "fd00:1::1", "fd00:2::1"]
NETWORKS = [*ADDRESSES, "10.0.0.0/8", "10.0.0.0/23", "10.0.0.9/24", "0.0.0.0/0", "fd00::/8"]
NETWORKS += ["fd00::/31", "::/0", "::ffff:10.0.0.0/104", "::ffff:0:0/96"]
RESULTS = {"ok": 0, "aborted": -1, "ECONNREFUSED": 111, "ETIMEDOUT": 110, "113": 113}


# -- the rule, in plain Python


def in_network(address: str, text: str) -> bool:
    if text.startswith("::ffff:"):
        base, _, bits = text.removeprefix("::ffff:").partition("/")
        text = f"{base if '.' in base else '0.0.0.0'}/{int(bits) - 96}"
    return ip_address(address) in ip_network(text, strict=False)


def in_ports(port: int, text: str) -> bool:
    ranges = (each.split("-") for each in text.split(","))
    return any(int(each[0]) <= port <= int(each[-1]) for each in ranges)


def match_names(names: list[str], pattern: list[str]) -> bool:
    if not names or not pattern:
        return not names and all(each == "**" for each in pattern)
    if pattern[0] == "**":
        return match_names(names, pattern[1:]) or match_names(names[1:], pattern)
    return fnmatch.fnmatchcase(names[0], pattern[0]) and match_names(names[1:], pattern[1:])


def in_cgroup(path: str, pattern: str) -> bool:
    """Whether a path is what the pattern names, or below it."""
    names = path.strip("/").split("/") if path != "/" else []
    wanted = [name for name in pattern.split("/") if name]
    return any(match_names(names[:depth], wanted) for depth in range(len(names) + 1))


MATCH: dict[str, Callable[[Event, str], bool]] = {
    "cgroup": lambda event, text: in_cgroup(event.path or "", text),
    "uid": lambda event, text: event.uid == int(text),
    "comm": lambda event, text: event.comm == text,
    "saddr": lambda event, text: in_network(event.saddr, text),
    "daddr": lambda event, text: in_network(event.daddr, text),
    "addr": lambda event, text: any(in_network(x, text) for x in (event.saddr, event.daddr)),
    "sport": lambda event, text: in_ports(event.sport, text),
    "dport": lambda event, text: in_ports(event.dport, text),
    "port": lambda event, text: in_ports(event.sport, text) or in_ports(event.dport, text),
    "result": lambda event, text: event.result in {RESULTS[each] for each in text.split(",")},
}
OWNERS = {"cgroup", "uid", "comm"}


def wanted(event: Event, options: dict[str, list[str]]) -> bool:
    """The documented rule."""
    for name, values in options.items():
        includes = [text for text in values if text[0] != "!"]
        excludes = [text[1:] for text in values if text[0] == "!"]
        if name in OWNERS and event.path is None:
            if includes:
                return False
            continue
        if any(MATCH[name](event, text) for text in excludes):
            return False
        if includes and not any(MATCH[name](event, text) for text in includes):
            return False
    return True


# -- both must agree

PORTS = [0, 1, 22, 80, 81, 443, 8080, 65535]
ranges = st.tuples(*[st.sampled_from(PORTS[:-1])] * 2).map(lambda e: f"{min(e)}-{max(e)}")
port_lists = st.lists(st.sampled_from(PORTS).map(str) | ranges, min_size=1, max_size=3)
wild = st.lists(st.sampled_from([*NAMES, "*", "?", "**", "[!a]", "n*"]), min_size=1, max_size=3)
patterns = wild.map(lambda names: f"/{'/'.join(names)}").filter(is_pattern)
UIDS, COMMS = [0, 7, 1000], ["curl", "nginx", "kworker/0:1-eve"]
VALUES: dict[str, st.SearchStrategy[str]] = {
    "cgroup": st.sampled_from(PATHS) | patterns,
    "uid": st.sampled_from(UIDS).map(str),
    "comm": st.sampled_from(COMMS),
    **dict.fromkeys(("saddr", "daddr", "addr"), st.sampled_from(NETWORKS)),
    **dict.fromkeys(("sport", "dport", "port"), port_lists.map(",".join)),
    "result": st.lists(st.sampled_from([*RESULTS]), min_size=1, max_size=2).map(",".join),
}
SIGNED = {
    name: st.lists(
        st.builds("{}{}".format, st.sampled_from(["", "!"]), value), min_size=1, max_size=3
    )
    for name, value in VALUES.items()
}


def options_of(names: tuple[str, ...]) -> st.SearchStrategy[dict[str, list[str]]]:
    """Return values for some of the options."""
    return st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: SIGNED[name] for name in chosen})
    )


addresses, ports = st.sampled_from(ADDRESSES), st.sampled_from(PORTS)
paths = st.sampled_from([*PATHS, *LATER, None])
uids, comms, results = map(st.sampled_from, (UIDS, COMMS, [*RESULTS.values(), 104]))
events = st.builds(Event, paths, uids, comms, addresses, addresses, ports, ports, results)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A hierarchy that has the paths, but those that are made later."""
    mount = tmp_path_factory.mktemp("cgroups")
    for path in PATHS[1:]:
        (mount / path[1:]).mkdir()
    made = Hierarchy(9, "memory", ("memory",), mount, "/")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cgroups, "hierarchies", lambda: [made])
        patch.setattr(cgroups, "cgroup_id", lambda path: IDS[made.inner_path(path)])
        yield


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    "names",
    [("cgroup",), ("saddr", "daddr", "addr"), ("sport", "dport", "port"), tuple(VALUES)],
    ids=",".join,
)
@settings(max_examples=250)
@given(data=st.data())
def test_the_maps_select_what_the_rule_says(names: tuple[str, ...], data: st.DataObject) -> None:
    options = data.draw(options_of(names))
    seen = data.draw(st.lists(events, min_size=1, max_size=12))
    made = Filters(Selection(**{name: tuple(values) for name, values in options.items()}))
    selecting = Selecting(made, IDS, LATER)
    expected = [wanted(event, options) for event in seen]
    assert [selecting.selects(event) for event in seen] == expected
    selecting.catch_up()
    assert [selecting.selects(event) for event in seen] == expected


@pytest.mark.usefixtures("tree")
def test_without_options_everybody_is_selected() -> None:
    selecting = Selecting(Filters(), IDS, LATER)
    for path in (*PATHS, *LATER, None):
        assert selecting.selects(Event(path, 0, "curl", "::1", "::1", 0, 65535, -1))
