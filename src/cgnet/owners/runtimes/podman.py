# SPDX-License-Identifier: BSD-2-Clause
"""Names, labels and pods from podman's own database, which only root's podman writes.

It is SQLite since podman 4.8 on a new host (libpod/sqlite_state.go), and was bbolt before
(libpod/boltdb_state.go). Neither is locked: podman must not wait for cgnet.
"""

from __future__ import annotations

import json
import os
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.owners.runtimes import bolt
from cgnet.owners.runtimes.files import complain, parse, read, read_if_there, regular, text, texts

if TYPE_CHECKING:
    from pathlib import Path

BOLT = "/var/lib/containers/storage/libpod/bolt_state.db"
SQLITE = "/var/lib/containers/storage/db.sql"
JOURNAL = "-journal"
STORED = "/var/lib/containers/storage/{}/containers.json"
MAX_BYTES = 64 << 20
TRIES = 3


class Known(NamedTuple):
    """The data about a container in podman's database."""

    name: str | None = None
    image: str | None = None
    labels: dict[str, str] | None = None
    pod: str | None = None
    infra: bool = False


def configuration(root: Path, container: str) -> Known:
    """Return a container's configuration; blanks if no database has it."""
    config, pod = _from_bolt(root, container)
    if not config:
        config, pod = _from_sqlite(root, container)
    if not config:
        return Known()
    return Known(
        name=text(config.get("name")),
        image=text(config.get("rootfsImageName")),
        labels=texts(config.get("labels")),
        pod=text(pod.get("name")),
        infra=config.get("pause") is True,  # ContainerMiscConfig.IsInfra
    )


def _from_bolt(root: Path, container: str) -> tuple[dict[str, Any], dict[str, Any]]:
    with suppress(OSError), regular(root, BOLT) as fd:

        def look_up(*keys: str) -> dict[str, Any]:
            return parse(bolt.get(fd, *(key.encode() for key in keys)))

        try:
            config = look_up("ctr", container, "config")
            pod = text(config.get("pod"))
            return config, look_up("pod", pod, "config") if pod else {}
        except ValueError as error:
            complain(BOLT, error)
    return {}, {}


def _from_sqlite(root: Path, container: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        import sqlite3  # noqa: PLC0415 - only where it is needed; a Python may lack it
    except ImportError:
        return {}, {}
    try:
        raw = _settled(root)
        with closing(sqlite3.connect(":memory:")) as memory:
            memory.deserialize(raw)

            def look_up(query: str, key: str) -> dict[str, Any]:
                rows = memory.execute(query, (key,)).fetchmany(1)
                return parse(rows[0][0]) if rows else {}

            config = look_up("SELECT JSON FROM ContainerConfig WHERE ID = ?", container)
            pod = text(config.get("pod"))
            if not pod:
                return config, {}
            return config, look_up("SELECT JSON FROM PodConfig WHERE ID = ?", pod)
    except FileNotFoundError:
        return {}, {}
    except MemoryError:  # deserialize() of an empty file
        complain(SQLITE, "is no database of podman's")
    except OSError as error:
        if error.errno is None and not isinstance(error, PermissionError):
            complain(SQLITE, str(error).removeprefix(f"{SQLITE} "))
    except (ValueError, sqlite3.Error) as error:
        complain(SQLITE, f"is no database of podman's ({error})")
    return {}, {}


def _settled(root: Path) -> bytes:
    """Return the database's contents outside of a transaction. Raises OSError."""
    for _ in range(TRIES):
        with regular(root, SQLITE) as fd:
            before = _stamp(fd)
        raw = read(root, SQLITE, MAX_BYTES)
        with regular(root, SQLITE) as fd:
            if _stamp(fd) == before and not _is_changing(root):
                return raw
    raise OSError(f"{SQLITE} changes all the time")


def _stamp(fd: int) -> tuple[int, ...]:
    status = os.fstat(fd)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _is_changing(root: Path) -> bool:
    """Return whether a transaction is in progress: its journal exists until it ends."""
    with suppress(OSError):
        return bool(read(root, SQLITE + JOURNAL, MAX_BYTES))
    return False


def stored(root: Path, container: str, layers: str) -> tuple[str | None, str | None]:
    """Return a container's name and image from the list in containers/storage."""
    path = STORED.format(layers)
    raw = read_if_there(root, path, MAX_BYTES)
    if raw is None:
        return None, None
    found = None
    with suppress(ValueError, RecursionError, MemoryError):
        found = json.loads(raw)
    if not isinstance(found, list):
        complain(path, "holds no list of containers")
        return None, None
    for each in found:
        if isinstance(each, dict) and each.get("id") == container:
            told = parse(each.get("metadata"))
            names = each.get("names")
            name = names[0] if isinstance(names, list) and names else None
            return text(told.get("name")) or text(name), text(told.get("image-name"))
    return None, None
