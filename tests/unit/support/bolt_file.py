# SPDX-License-Identifier: BSD-2-Clause
"""Write bbolt databases for tests to read."""

from __future__ import annotations

import struct
from typing import Any

PAGE = 4096
BRANCH_PAGE, LEAF_PAGE, META_PAGE = 1, 2, 4
Tree = dict[bytes, Any]  # values are bytes or trees


def _checksum(raw: bytes) -> int:
    found = 0xCBF29CE484222325
    for byte in raw:
        found = ((found ^ byte) * 0x100000001B3) % 2**64
    return found


def _leaf(tree: Tree, number: int = 0) -> bytes:
    """Return a leaf page with inline buckets."""
    elements, data = b"", b""
    for index, (key, value) in enumerate(sorted(tree.items())):
        is_bucket = isinstance(value, dict)
        raw = struct.pack("=QQ", 0, 0) + _leaf(value) if is_bucket else value
        start = 16 * (len(tree) - index) + len(data)
        elements += struct.pack("=IIII", is_bucket, start, len(key), len(raw))
        data += key + raw
    return struct.pack("=QHHI", number, LEAF_PAGE, len(tree), 0) + elements + data


def _branch(keys: list[bytes], pages: list[int], number: int) -> bytes:
    elements, data = b"", b""
    for index, (key, page) in enumerate(zip(keys, pages, strict=True)):
        elements += struct.pack("=IIQ", 16 * (len(keys) - index) + len(data), len(key), page)
        data += key
    return struct.pack("=QHHI", number, BRANCH_PAGE, len(keys), 0) + elements + data


def meta(number: int, root: int, transaction: int, *, size: int = PAGE) -> bytes:
    raw = struct.pack("=IIIIQQQQQ", 0xED0CDAED, 2, size, 0, root, 0, 0, 0, transaction)
    raw += struct.pack("=Q", _checksum(raw))
    return (struct.pack("=QHHI", number, META_PAGE, 0, 0) + raw).ljust(PAGE, b"\0")


def _padded(page: bytes) -> bytes:
    """Pad to whole pages, and set the number of overflow pages in the header."""
    more = (len(page) - 1) // PAGE
    head = page[:12] + struct.pack("=I", more)
    return (head + page[16:]).ljust((1 + more) * PAGE, b"\0")


def database(tree: Tree, transaction: int = 7) -> bytes:
    """Return a database: two leaves below a branch, if there are two keys."""
    keys = sorted(tree)
    halves = [keys[: len(keys) // 2], keys[len(keys) // 2 :]]
    pages, numbers, at = b"", [], 3
    for half in filter(None, halves):
        page = _padded(_leaf({key: tree[key] for key in half}, at))
        numbers.append(at)
        pages += page
        at += len(page) // PAGE
    firsts = [half[0] for half in filter(None, halves)]
    root = _padded(_branch(firsts, numbers, 2))
    return meta(0, 9999, transaction - 1) + meta(1, 2, transaction) + root + pages
