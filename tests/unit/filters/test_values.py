# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import errno
import os
import pwd
from ipaddress import IPv4Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cgnet.errors import UsageError
from cgnet.filters import values
from cgnet.filters.values import Choice, choose
from cgnet.records._layouts import FilterUse, Role
from cgnet.text import is_number, number

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = "9" * 5000  # more digits than Python reads
ZEROS = "0" * 5000
PORTS = "give 0 to 65535, as in 80,443,8000-8999"
CIDR = "give one as in 10.0.0.0/8, 192.0.2.1 or fd00::/8"
RESULT = "give ok, aborted or an errno's name such as ECONNREFUSED"
ONCE_MORE = "give the option once more"
USER = "give a number or a name of this host"
GREATEST = "numbers go to 4294967295"

GOOD: list[tuple[Callable[[str], Any], str, list[Any]]] = [
    (values.ports, "80", [range(80, 81)]),
    (values.ports, "0,65535", [range(1), range(65535, 65536)]),
    (values.ports, "80, 443 ,8000-8999", [range(80, 81), range(443, 444), range(8000, 9000)]),
    (values.ports, "0-65535", [range(65536)]),
    (values.ports, "7-7", [range(7, 8)]),
    (values.ports, ZEROS + "80", [range(80, 81)]),
    (values.ports, ZEROS, [range(1)]),
    (values.network, "10.0.0.0/8", [ip_network("10.0.0.0/8")]),
    (values.network, "10.1.2.3/8", [ip_network("10.0.0.0/8")]),
    (values.network, "192.0.2.1", [ip_network("192.0.2.1/32")]),
    (values.network, "0.0.0.0/0", [ip_network("0.0.0.0/0")]),
    (values.network, "fd00::/8", [ip_network("fd00::/8")]),
    (values.network, "fd12::3/8", [ip_network("fd00::/8")]),
    (values.network, "::1", [ip_network("::1/128")]),
    (values.network, "::/0", [ip_network("::/0")]),
    (values.network, "::ffff:10.1.2.3", [ip_network("10.1.2.3/32")]),
    (values.network, "::ffff:10.0.0.0/104", [ip_network("10.0.0.0/8")]),
    (values.network, "::ffff:0:0/96", [ip_network("0.0.0.0/0")]),
    (values.network, "::ffff:0:0/95", [ip_network("::fffe:0:0/95")]),
    (values.comm, "nginx", [b"nginx" + bytes(11)]),
    (values.comm, "kworker/0:1-events", [b"kworker/0:1-eve\0"]),
    (values.comm, "a,b", [b"a,b" + bytes(13)]),
    (values.comm, " a", [b" a" + bytes(14)]),
    (values.comm, "\udcff\udcfe", [b"\xff\xfe" + bytes(14)]),
    (values.comm, "é" * 8, [("é" * 8).encode()[:15] + b"\0"]),
    (values.uid, "0", [0]),
    (values.uid, "4294967295", [2**32 - 1]),
    (values.uid, ZEROS + "7", [7]),
    (values.uid, "root", [pwd.getpwnam("root").pw_uid]),
    (values.results, "ok", [0]),
    (values.results, "aborted", [-1]),
    (values.results, "OK,Aborted", [0, -1]),
    (values.results, "econnrefused, ETIMEDOUT", [errno.ECONNREFUSED, errno.ETIMEDOUT]),
    (values.results, "EWOULDBLOCK,EOPNOTSUPP", [errno.EAGAIN, errno.EOPNOTSUPP]),
    (values.results, "0,111,254", [0, 111, 254]),
    (values.results, ZEROS + "111", [111]),
    (values.roles, "client", [Role.ROLE_CLIENT]),
    (values.roles, "server, client", [Role.ROLE_SERVER, Role.ROLE_CLIENT]),
]

BAD: list[tuple[Callable[[str], Any], str, str]] = [
    *((values.ports, text, PORTS) for text in ("", ",", "80,", ",80", "80,,443", "http", "-1")),
    *((values.ports, text, PORTS) for text in ("65536", "80-", "-80", "1-2-3", "1-65536", "0x50")),
    *(
        (values.ports, text, PORTS)
        for text in (LONG, ZEROS + "65536", "\u0668\u0660", "\u00b2", "8 0", "+80")
    ),
    (values.ports, "90-80", "the range 90-80 is empty: its end is below its begin"),
    (values.ports, "80,!81", ONCE_MORE),
    *((values.network, text, CIDR) for text in ("", "10", "10.0.0.0/33", "10.0.0.0/8/8")),
    *((values.network, text, CIDR) for text in ("::/129", "10.0.0.256", "10.0.0", "localhost")),
    *(
        (values.network, text, CIDR)
        for text in ("10.0.0.0/" + LONG, "10.0.0.0,::1", "\u0661.0.0.0")
    ),
    *((values.network, text, CIDR) for text in ("fe80::/-1", " ::1", "10.0.0.0/8 ", "1" * 40)),
    (values.comm, "", "give the command's, as ps -o comm shows it"),
    *((values.uid, text, USER) for text in ("", "-1", "no such", "1 ", "\u0667", "0x1", "a\0b")),
    *((values.uid, text, GREATEST) for text in ("4294967296", LONG, ZEROS + "4294967296")),
    *((values.results, text, RESULT) for text in ("", "ok,", ",ok", "fine", "-1", "255", "+1")),
    *(
        (values.results, text, RESULT)
        for text in (LONG, ZEROS + "1111", "1.0", "\u0661", "errno", "E")
    ),
    (values.results, "ok,!aborted", ONCE_MORE),
    *((values.roles, text, "one of: client, server") for text in ("", "Client", "both", "client,")),
    (values.roles, "client,!server", ONCE_MORE),
]


def short(value: object) -> str | None:
    """Return what a parameter is called in a report."""
    return value[:20] if isinstance(value, str) else None


@pytest.mark.parametrize(("read", "text", "expected"), GOOD, ids=short)
def test_a_good_value_is_read(read: Callable[[str], Any], text: str, expected: list[Any]) -> None:
    assert list(read(text)) == expected


@pytest.mark.parametrize(("read", "text", "form"), BAD, ids=short)
@pytest.mark.parametrize("sign", ["", "!"])
def test_a_bad_value_is_quoted_with_the_accepted_form(
    read: Callable[[str], Any], text: str, form: str, sign: str
) -> None:
    with pytest.raises(UsageError) as raised:
        choose("--opt", [sign + text], read)
    assert str(raised.value).startswith(f"--opt {sign + text!r}: ")
    assert str(raised.value).endswith(form)


@pytest.mark.parametrize(
    "read", sorted({read for read, _, _ in BAD}, key=lambda read: read.__name__)
)
def test_a_mark_alone_is_no_value(read: Callable[[str], Any]) -> None:
    with pytest.raises(UsageError, match=r"^--opt '!': "):
        choose("--opt", ["!"], read)


def test_one_bad_value_among_good_ones_is_the_one_quoted() -> None:
    with pytest.raises(UsageError, match=r"^--port '!x': "):
        choose("--port", ["80", "!x", "y"], values.ports)


@pytest.mark.parametrize(
    ("given_values", "expected"),
    [
        ([], Choice()),
        (["80"], Choice((range(80, 81),))),
        (["!80"], Choice((), (range(80, 81),))),
        (["!80,81"], Choice((), (range(80, 81), range(81, 82)))),
        (["1", "2", "1,1"], Choice((range(1, 2), range(2, 3)))),
        (["1", "!1"], Choice((range(1, 2),), (range(1, 2),))),
    ],
)
def test_a_leading_mark_excludes_the_whole_value(
    given_values: list[str], expected: Choice[range]
) -> None:
    assert choose("--port", given_values, values.ports) == expected


def test_only_the_first_mark_is_one() -> None:
    assert choose("--comm", ["!!x"], values.comm) == Choice((), (b"!x" + bytes(14),))


@pytest.mark.parametrize(
    ("choice", "use", "uses", "chosen"),
    [
        (Choice(), 0, {}, {1, 2, 3}),
        (Choice((1,)), 1, {1: 1}, {1}),
        (Choice((), (1,)), 2, {1: 2}, {2, 3}),
        (Choice((1, 2), (2,)), 3, {1: 1, 2: 2}, {1}),
        (Choice((1,), (1,)), 3, {1: 2}, set()),
    ],
)
def test_a_choice_knows_its_use(
    choice: Choice[int], use: int, uses: dict[int, int], chosen: set[int]
) -> None:
    assert (choice.use, choice.uses(), choice.chosen([1, 2, 3])) == (use, uses, chosen)
    assert (FilterUse.FILTER_INCLUDES, FilterUse.FILTER_EXCLUDES) == (1, 2)


@given(st.integers(0, 10**30), st.integers(0, 10**12), st.integers(0, 50))
@example(2**32, 2**32, 0)
@example(2**32, 2**32 - 1, 0)
def test_a_number_is_read_if_it_is_small_enough(value: int, most: int, zeros: int) -> None:
    assert number("0" * zeros + str(value), most) == (value if value <= most else None)


@given(st.text())
@example("\u0663")
@example("1_0")
@example(" 1")
def test_no_text_but_digits_of_ascii_is_a_number(text: str) -> None:
    is_one = bool(text) and set(text) <= set("0123456789")
    assert is_number(text) == is_one
    assert (number(text, 10**4000) is not None) == is_one


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_a_mapped_network_is_the_ipv4_one(address: Any, bits: int) -> None:
    mapped = f"::ffff:{address}/{bits + 96}"
    (found,) = values.network(mapped)
    assert isinstance(found, IPv4Network)
    assert [found] == [*values.network(f"{address}/{bits}")]
    assert ip_address(address) in found


@given(st.sets(st.integers(-1, values.MAX_RESULT)), st.sets(st.integers(-1, values.MAX_RESULT)))
def test_the_words_of_results_have_a_bit_for_each_that_gets_through(
    includes: set[int], excludes: set[int]
) -> None:
    words = values.result_bits(Choice((*includes,), (*excludes,)))
    assert [word for word in words if not 0 <= word < 1 << 64] == []
    found = {bit - 1 for bit in range(256) if words[bit // 64] >> bit % 64 & 1}
    everything = set(range(-1, 255))
    assert found == (includes or everything) - excludes


@pytest.mark.parametrize(
    "read", [values.ports, values.network, values.uid, values.results, values.roles, values.comm]
)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3))
def test_any_text_is_read_or_refused_and_never_raises_something_else(
    read: Callable[[str], Any], texts: list[str]
) -> None:
    try:
        found = choose("--opt", texts, read)
    except UsageError as error:
        said = str(error)
    else:
        said = ""
        assert bool(found.use) == bool(texts)
    assert not said or any(repr(text) in said for text in texts)


def test_every_errno_of_this_host_has_a_place_in_the_words() -> None:
    assert max(errno.errorcode) <= values.MAX_RESULT
    assert {*values.results(",".join(errno.errorcode.values()))} == {*errno.errorcode}
    assert os.strerror(values.ERRNOS["ECONNREFUSED"]) == "Connection refused"
