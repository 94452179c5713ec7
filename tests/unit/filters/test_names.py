# SPDX-License-Identifier: BSD-2-Clause
"""--container, --pod, --pod-namespace, --unit: against what is known of a cgroup."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from fakes import FakeMap

from cgnet.errors import UsageError
from cgnet.filters.names import NameFilter
from cgnet.owners.cgroup_paths import Facts, place
from cgnet.owners.runtimes import Known
from cgnet.owners.runtimes.found import Found
from cgnet.records._layouts import OWNER, FilterUse

ID = "0123456789abcdef" * 4


def known(*names: str, expected: bool = False, **facts: Any) -> Known:
    """Return what is known of a cgroup in containers with these names, the innermost first."""
    inside = tuple(Found("docker", "state", name) for name in names)
    ids = tuple(ID for _ in names)
    return Known(Facts(**facts), inside, ids, place("/x"), expected, is_final=not expected)


WEB = known("web", container="web", pod="shop-0", pod_namespace="prod")
PLAIN = known(unit="nginx.service")


@pytest.mark.parametrize(
    ("options", "of", "wanted"),
    [
        ({"container": ["web"]}, WEB, True),
        ({"container": ["db", "web"]}, WEB, True),
        ({"container": ["we"]}, WEB, False),
        ({"container": [ID[:12]]}, WEB, True),
        ({"container": [ID]}, WEB, True),
        ({"container": [ID[:3]]}, WEB, False),
        ({"container": ["web"]}, PLAIN, False),
        ({"container": ["!web"]}, WEB, False),
        ({"container": ["!web"]}, PLAIN, True),
        ({"container": ["web", "!web"]}, WEB, False),
        ({"container": ["outer"]}, known("inner", "outer"), True),
        ({"pod": ["shop-0"]}, WEB, True),
        ({"pod": ["prod/shop-0"]}, WEB, True),
        ({"pod": ["test/shop-0"]}, WEB, False),
        ({"pod": ["shop"]}, WEB, False),
        ({"pod": ["!prod/shop-0"]}, WEB, False),
        ({"pod_namespace": ["prod"]}, WEB, True),
        ({"pod_namespace": ["!prod"]}, PLAIN, True),
        ({"pod_namespace": ["prod"]}, PLAIN, False),
        ({"unit": ["nginx"]}, PLAIN, True),
        ({"unit": ["nginx.service"]}, PLAIN, True),
        ({"unit": ["nginx.socket"]}, PLAIN, False),
        ({"container": ["web"], "pod_namespace": ["prod"]}, WEB, True),
        ({"container": ["web"], "pod_namespace": ["test"]}, WEB, False),
    ],
)
def test_names_are_or_options_are_and_and_exclusion_comes_last(
    options: dict[str, list[str]], of: Known, wanted: bool
) -> None:
    assert NameFilter(**options).decide(of) is wanted


@pytest.mark.parametrize("value", ["web", "!web"])
def test_nothing_is_decided_while_more_is_expected(value: str) -> None:
    assert NameFilter(container=[value]).decide(known(expected=True)) is None


@pytest.mark.parametrize(
    ("options", "use"),
    [
        ({}, 0),
        ({"container": ["a"]}, FilterUse.FILTER_INCLUDES),
        ({"unit": ["!a"]}, FilterUse.FILTER_EXCLUDES),
        ({"unit": ["!a"], "pod": ["b"]}, 3),
    ],
)
def test_use(options: dict[str, list[str]], use: int) -> None:
    assert NameFilter(**options).use == use


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"container": ["!"]}, "--container '!': no name"),
        ({"pod": ["prod/"]}, "--pod 'prod/': no pod; give NAME or NAMESPACE/NAME"),
        ({"pod": ["/web"]}, "--pod '/web': no pod"),
        ({"unit": [""]}, "--unit '': no name"),
    ],
)
def test_a_malformed_name_is_quoted(options: dict[str, list[str]], said: str) -> None:
    with pytest.raises(UsageError) as error:
        NameFilter(**options)
    assert str(error.value).startswith(said)


class Runtimes:
    """Knows one answer."""

    def __init__(self, answer: Known) -> None:
        self.answer = answer

    def of(self, _path: str) -> Known:
        return self.answer


class Names:
    """Knows one path."""

    def path(self, _hierarchy: int, _cgroup: int) -> str:
        return "/docker/web"


@pytest.mark.parametrize(("of", "value"), [(WEB, 1), (PLAIN, 2), (known(expected=True), None)])
def test_what_is_decided_is_told_the_kernel_side(of: Known, value: int | None) -> None:
    named = FakeMap()
    owner = OWNER.packed.pack(77, 4, 1, 4, 0, 1, 0, b"")
    names_filter: Any = NameFilter(container=["web"])
    names_filter.settle(named, owner, Names(), Runtimes(of))
    key = (77).to_bytes(8, sys.byteorder)
    told = {} if value is None else {key: value.to_bytes(4, sys.byteorder)}
    assert named.entries == told
    names_filter.forget(named, 77)
    assert named.entries == {}
