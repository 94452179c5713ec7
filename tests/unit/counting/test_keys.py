# SPDX-License-Identifier: BSD-2-Clause
"""``--by``: what may be counted by, and what the programs are told of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgnet.counting.keys import (
    KEYS,
    OF_CONNECTIONS,
    OF_DROPS,
    OF_LISTINGS,
    OF_RESENDS,
    OF_SOCKETS,
    PEER_FIELDS,
    SIZED,
    Key,
    count_config,
    read_by,
)
from cgnet.errors import UsageError
from cgnet.records._layouts import CountBy, CountConfig


@pytest.mark.parametrize(
    ("given_values", "keys"),
    [
        (["container,result"], [Key("container"), Key("result")]),
        (["pid", "comm, uid"], [Key("pid"), Key("comm"), Key("uid")]),
        (["cgroup/2"], [Key("cgroup", 2)]),
        (["cgroup/0"], [Key("cgroup", 0)]),
        (["cgroup/" + "9" * 5000], [Key("cgroup", 4096)]),
        (["saddr/0,daddr/128"], [Key("saddr", 0), Key("daddr", 128)]),
        (["daddr/" + "0" * 5000 + "24"], [Key("daddr", 24)]),
        ([",".join(OF_CONNECTIONS)], [Key(name) for name in OF_CONNECTIONS]),
    ],
)
def test_by_is_a_list_of_keys(given_values: list[str], keys: list[Key]) -> None:
    assert read_by(given_values) == keys


@pytest.mark.parametrize(
    ("text", "form"),
    [
        *(
            (text, "one of: container, pod, ")
            for text in ("", "nosuch", "Pid", "/", "/24", "pid ,")
        ),
        *((text, "cgroup[/DEPTH]") for text in ("", "x")),
        *((text, "as in cgroup/2 or daddr/24") for text in ("pid/2", "dport/8", "container/1")),
        *((text, "as in cgroup/2 or daddr/24") for text in ("cgroup/", "daddr/x", "daddr/-1")),
        *((text, "as in cgroup/2 or daddr/24") for text in ("daddr/\u0662", "daddr/24/1")),
        *((f"daddr/{bits}", "longer than 128 bits") for bits in ("129", "9" * 5000, "000129")),
        ("saddr/999", "longer than 128 bits"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_no_key_is_quoted_with_the_accepted_form(text: str, form: str) -> None:
    bad = text.rpartition(",")[2] if text.endswith(",") else text
    with pytest.raises(UsageError) as raised:
        read_by(["uid", text])
    assert str(raised.value).startswith(f"--by {bad!r}: ")
    assert form in str(raised.value)


@pytest.mark.parametrize("usable", [OF_SOCKETS, OF_CONNECTIONS, (*OF_SOCKETS, *OF_DROPS)])
def test_what_the_records_have_alone_is_counted_by(usable: tuple[str, ...]) -> None:
    assert read_by([",".join(usable)], usable) == [Key(name) for name in usable]
    for name in KEYS.keys() - set(usable):
        with pytest.raises(UsageError) as raised:
            read_by([name], usable)
        told = str(raised.value).partition("one of: ")[2].split(", ")
        assert [each.partition("[")[0] for each in told] == list(usable)


def test_every_name_belongs_to_some_records() -> None:
    assert set(KEYS) == {*OF_CONNECTIONS, *OF_DROPS, *OF_LISTINGS, *OF_RESENDS, "stage"}


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        (Key("container"), ("container", "pod", "pod_namespace", "cgroup")),
        (Key("pod"), ("pod", "pod_namespace")),
        (Key("peer"), PEER_FIELDS),
        *((Key(name), (name,)) for name in sorted(KEYS.keys() - {"container", "pod", "peer"})),
        (Key("daddr", 24), ("daddr",)),
    ],
)
def test_a_key_is_shown_by_its_fields(key: Key, fields: tuple[str, ...]) -> None:
    assert key.fields == fields


@pytest.mark.parametrize("values", [["pid,pid"], ["pid", "uid,pid"], ["daddr", "daddr/8"]])
def test_a_key_comes_once(values: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^--by: (pid|daddr) comes 2 times; once is enough$"):
        read_by(values)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_keys_or_refused(text: str) -> None:
    try:
        keys = read_by([text])
    except UsageError:
        return
    assert {key.name for key in keys} <= set(KEYS)
    assert {key.name for key in keys if key.size is not None} <= set(SIZED)


@pytest.mark.parametrize(
    ("by", "bits", "saddr_bits", "daddr_bits"),
    [
        ("pid", CountBy.BY_PID, 128, 128),
        ("container,pod,unit,cgroup/3", CountBy.BY_CGROUP, 128, 128),
        ("saddr/8,daddr/64", CountBy.BY_SADDR | CountBy.BY_DADDR, 8, 64),
        ("daddr/0", CountBy.BY_DADDR, 128, 0),
        (",".join(KEYS), sum(CountBy), 128, 128),
    ],
)
@pytest.mark.usefixtures("mounted")
def test_the_programs_are_told_what_to_count_by(
    by: str, bits: int, saddr_bits: int, daddr_bits: int
) -> None:
    assert count_config(read_by([by], KEYS)) == CountConfig(1, bits, saddr_bits, daddr_bits)
