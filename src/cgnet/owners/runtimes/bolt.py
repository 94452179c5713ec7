# SPDX-License-Identifier: BSD-2-Clause
"""Lookup in a bbolt database without its lock, which podman holds while it runs a command.

The file consists of pages; two of them alternate in pointing to the root of the newest tree. A
writer writes changed pages where no tree uses one, then the other of the two. So a tree's pages may
be overwritten only by the transaction after the next: a result is right if the newest tree is the
same afterwards. Format: page.go, bucket.go, db.go of go.etcd.io/bbolt v1.3, version 2 of the file.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right
from typing import NamedTuple

MAGIC, VERSION = 0xED0CDAED, 2
HEADER = struct.Struct("=QHHI")  # page: id, flags, count, overflow
META = struct.Struct("=IIIIQQQQQQ")  # …, page size, …, root, …, transaction, checksum
BRANCH, LEAF = struct.Struct("=IIQ"), struct.Struct("=IIII")
ELEMENT = 16
IS_BRANCH, IS_LEAF, IS_META = 0x01, 0x02, 0x04
IS_BUCKET = 1  # flag of a leaf element
PAGE_SIZES = frozenset(1 << shift for shift in range(9, 17))
MAX_BYTES = 8 << 20  # of a page with its overflow
DEEPEST = 32
TRIES = 3
FNV_START, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


class Meta(NamedTuple):
    """The root of the newest tree."""

    page_size: int
    root: int
    transaction: int


class Node(NamedTuple):
    """A page's keys in order; ``rest`` has (page, b"") for each in a branch, or (flags, value)."""

    is_branch: bool
    keys: list[bytes]
    rest: list[tuple[int, bytes]]


def _checksum(raw: bytes) -> int:
    """Return the 64-bit FNV-1a hash."""
    found = FNV_START
    for byte in raw:
        found = (found ^ byte) * FNV_PRIME & 0xFFFFFFFFFFFFFFFF
    return found


def _meta(fd: int) -> Meta:
    """Return the newer of the valid meta pages. Raises ValueError."""
    newest = None
    offsets = [0, *sorted(PAGE_SIZES)]
    for offset in offsets:
        raw = os.pread(fd, HEADER.size + META.size, offset)
        if len(raw) < HEADER.size + META.size:
            break
        magic, version, size, _, root, _, _, _, transaction, checksum = META.unpack_from(
            raw, HEADER.size
        )
        if (magic, version) != (MAGIC, VERSION) or size not in PAGE_SIZES:
            continue
        if checksum != _checksum(raw[HEADER.size : HEADER.size + META.size - 8]):
            continue
        if newest is None or transaction > newest.transaction:
            newest = Meta(size, root, transaction)
    if newest is None:
        raise ValueError("no bbolt database")
    return newest


def _node(raw: bytes) -> Node:
    """Decode a page. Raises ValueError."""
    _, flags, count, _ = HEADER.unpack_from(raw)
    if flags & (IS_BRANCH | IS_LEAF) == 0 or HEADER.size + count * ELEMENT > len(raw):
        raise ValueError("no page of a tree")
    keys, rest = [], []
    for at in range(HEADER.size, HEADER.size + count * ELEMENT, ELEMENT):
        if flags & IS_BRANCH:
            start, key_size, number = BRANCH.unpack_from(raw, at)
            value_size = 0
        else:
            number, start, key_size, value_size = LEAF.unpack_from(raw, at)
        start += at
        end = start + key_size + value_size
        if end > len(raw):
            raise ValueError("a page's element lies outside of it")
        keys.append(raw[start : start + key_size])
        rest.append((number, raw[start + key_size : end]))
    return Node(bool(flags & IS_BRANCH), keys, rest)


class _Tree:
    """A tree of an open file."""

    def __init__(self, fd: int, meta: Meta) -> None:
        self._fd = fd
        self._size = meta.page_size

    def page(self, number: int) -> Node:
        """Return a page by number. Raises ValueError."""
        offset = number * self._size
        if offset >= 1 << 62:
            raise ValueError("no such page")
        raw = os.pread(self._fd, self._size, offset)
        if len(raw) < HEADER.size:
            raise ValueError("the file ends before the page")
        found, _, _, overflow = HEADER.unpack_from(raw)
        size = (1 + overflow) * self._size
        if found != number or size > MAX_BYTES:
            raise ValueError("another page is in its place")
        if overflow:
            raw = os.pread(self._fd, size, offset)
        return _node(raw)

    def look_up(self, node: Node, key: bytes) -> tuple[int, bytes] | None:
        """Return the flags and value of a key, or None. Raises ValueError."""
        for _ in range(DEEPEST):
            if not node.is_branch:
                at = bisect_left(node.keys, key)
                return node.rest[at] if node.keys[at : at + 1] == [key] else None
            at = max(bisect_right(node.keys, key) - 1, 0)
            if not node.rest:
                raise ValueError("an empty branch")
            node = self.page(node.rest[at][0])
        raise ValueError("a tree that doesn't end")

    def bucket(self, value: bytes) -> Node:
        """Return a bucket's root page: one of its own, or inline in the value if small."""
        root, _ = struct.unpack_from("=QQ", value)
        return self.page(root) if root else _node(value[16:])


def _get(fd: int, meta: Meta, keys: tuple[bytes, ...]) -> Node | bytes | None:
    tree = _Tree(fd, meta)
    node = tree.page(meta.root)
    for depth, key in enumerate(keys, 1):
        found = tree.look_up(node, key)
        if found is None:
            return None
        flags, value = found
        if not flags & IS_BUCKET:
            return value if depth == len(keys) else None
        node = tree.bucket(value)
    return node


def get(fd: int, *keys: bytes) -> bytes | dict[bytes, bytes] | None:
    """Return the value under keys of nested buckets; for a small bucket, its values by key.

    None if there is none. Raises ValueError for a file that is no database, or keeps changing.
    """
    for _ in range(TRIES):
        meta = _meta(fd)
        try:
            found = _get(fd, meta, keys)
        except (ValueError, struct.error):
            if _meta(fd) == meta:
                raise ValueError("a damaged database") from None
            continue
        if _meta(fd) != meta:
            continue
        if isinstance(found, Node):
            return {} if found.is_branch else _values(found)
        return found
    raise ValueError("a database that changes all the time")


def _values(node: Node) -> dict[bytes, bytes]:
    pairs = zip(node.keys, node.rest, strict=True)
    return {key: value for key, (flags, value) in pairs if not flags & IS_BUCKET}
