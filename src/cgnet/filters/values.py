# SPDX-License-Identifier: BSD-2-Clause
"""Values of filter options: included values, and values excluded by a ``!``."""

from __future__ import annotations

import errno
import pwd
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from cgnet.errors import UsageError, did_you_mean
from cgnet.records._layouts import (
    CGNET_COMM_LEN,
    CGNET_RESULT_WORDS,
    AttemptResult,
    FilterUse,
    Role,
)
from cgnet.text import is_number, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

T = TypeVar("T")
Network = IPv4Network | IPv6Network

MAX_PORT = 65535
MAX_UID = 2**32 - 1
MAPPED = IPv6Network("::ffff:0:0/96")
RESULTS = {"ok": int(AttemptResult.RESULT_OK), "aborted": int(AttemptResult.RESULT_ABORTED)}
# With aliases such as EOPNOTSUPP, which errno.errorcode leaves out.
ERRNOS: dict[str, int] = {name: value for name, value in vars(errno).items() if name[0] == "E"}
MAX_RESULT = 64 * CGNET_RESULT_WORDS - 2  # bit 0 is RESULT_ABORTED
ROLES = {"client": Role.ROLE_CLIENT, "server": Role.ROLE_SERVER}


class Choice(NamedTuple, Generic[T]):
    """The included and excluded values of one option."""

    includes: tuple[T, ...] = ()
    excludes: tuple[T, ...] = ()

    @property
    def use(self) -> int:
        """The bits of enum filter_use."""
        include = FilterUse.FILTER_INCLUDES if self.includes else 0
        return include | (FilterUse.FILTER_EXCLUDES if self.excludes else 0)

    def uses(self) -> dict[T, int]:
        """Return each value's use; exclusion overrides inclusion."""
        found: dict[T, int] = dict.fromkeys(self.includes, int(FilterUse.FILTER_INCLUDES))
        return found | dict.fromkeys(self.excludes, int(FilterUse.FILTER_EXCLUDES))

    def chosen(self, everything: Iterable[T]) -> set[T]:
        """Return the values of ``everything`` that pass."""
        return set(self.includes or everything) - set(self.excludes)


def choose(option: str, values: Iterable[str], read: Callable[[str], Iterable[T]]) -> Choice[T]:
    """Parse the values of an option. Raises UsageError, which quotes the value."""
    chosen: tuple[list[T], list[T]] = ([], [])
    for value in values:
        try:
            chosen[value.startswith("!")].extend(read(value.removeprefix("!")))
        except ValueError as error:
            raise UsageError(f"{option} {value!r}: {error}") from error
    return Choice(*(tuple(dict.fromkeys(each)) for each in chosen))


def one_of(names: Mapping[str, int]) -> Callable[[str], Iterator[int]]:
    """Return a function that yields the numbers of a list of names. It raises ValueError."""

    def read(text: str) -> Iterator[int]:
        for part in text.split(","):
            if part not in names:
                near = did_you_mean(part, names)
                raise ValueError(f"no such one{near}; one of: {', '.join(names)}")
            yield names[part]

    return read


def as_bits(option: str, given: Iterable[str], names: Mapping[str, int]) -> int:
    """Return the chosen numbers as bits; 0 if the option isn't used. Raises UsageError."""
    chosen = choose(option, given, one_of(names))
    every = {0, *names.values()}  # 0 is no value: it isn't one of those to exclude
    return sum(1 << number for number in chosen.chosen(every)) if chosen.use else 0


def _items(text: str) -> Iterator[str]:
    for item in text.split(","):
        if item.startswith("!"):
            raise ValueError("a ! stands before the whole list; give the option once more")
        yield item.strip()


def _port(text: str) -> int:
    found = number(text, MAX_PORT)
    if found is None:
        raise ValueError("no port or range of ports; give 0 to 65535, as in 80,443,8000-8999")
    return found


def ports(text: str) -> Iterator[range]:
    """Yield the ranges of a list such as ``80,443,8000-8999``. Raises ValueError."""
    for item in _items(text):
        low, dash, high = item.partition("-")
        found = range(_port(low), _port(high if dash else low) + 1)
        if not found:
            raise ValueError(f"the range {item} is empty: its end is below its begin")
        yield found


def network(text: str) -> Iterator[Network]:
    """Yield the network of ``10.0.0.0/8``, ``fd00::/8`` or an address. Raises ValueError."""
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            "no address or network; give one as in 10.0.0.0/8, 192.0.2.1 or fd00::/8"
        ) from None
    if isinstance(found, IPv6Network) and found.subnet_of(MAPPED):
        packed = found.network_address.packed[12:]
        found = IPv4Network((packed, found.prefixlen - MAPPED.prefixlen))
    yield found


def comm(text: str) -> Iterator[bytes]:
    """Yield a command name as the kernel stores it, zero-padded. Raises ValueError."""
    name = text.encode(errors="surrogateescape")[: CGNET_COMM_LEN - 1]
    if not name:
        raise ValueError("no name; give the command's, as ps -o comm shows it")
    yield name.ljust(CGNET_COMM_LEN, b"\0")


def uid(text: str) -> Iterator[int]:
    """Yield a user id, given as a number or a name. Raises ValueError."""
    if is_number(text):
        found = number(text, MAX_UID)
        if found is None:
            raise ValueError(f"no user; numbers go to {MAX_UID}")
        yield found
        return
    try:
        yield pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        near = did_you_mean(text, (each.pw_name for each in pwd.getpwall()))
        raise ValueError(f"no such user{near}; give a number or a name of this host") from None


def results(text: str) -> Iterator[int]:
    """Yield results: ``ok``, ``aborted``, or an errno by name or number. Raises ValueError."""
    known = RESULTS | ERRNOS
    for item in _items(text):
        found = known.get(item.lower(), known.get(item.upper()))
        if found is None:
            found = number(item, MAX_RESULT)
        if found is None:
            near = did_you_mean(item, (*RESULTS, *ERRNOS))
            raise ValueError(
                f"no result{near}; give ok, aborted or an errno's name such as ECONNREFUSED"
            )
        yield found


def result_bits(choice: Choice[int]) -> tuple[int, ...]:
    """Return the results of struct filter_config, a bitmap of 64-bit words."""
    bits = sum(1 << (each + 1) for each in choice.chosen(range(-1, MAX_RESULT + 1)))
    return tuple(bits >> (64 * word) & (2**64 - 1) for word in range(CGNET_RESULT_WORDS))


def roles(text: str) -> Iterator[Role]:
    """Yield the roles in a list of ``client``, ``server``. Raises ValueError."""
    for item in _items(text):
        if item not in ROLES:
            raise ValueError(f"no role{did_you_mean(item, ROLES)}; one of: {', '.join(ROLES)}")
        yield ROLES[item]
