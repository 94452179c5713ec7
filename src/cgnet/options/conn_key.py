# SPDX-License-Identifier: BSD-2-Clause
"""The type of ``--conn-key``: a file with a secret key."""

from __future__ import annotations

import os
import re
import stat
from typing import Any

import click

from cgnet.records.conn_id import KEY_BYTES

KEY = re.compile(rb"[0-9A-Fa-f]{%d}\s*" % (2 * KEY_BYTES))
MAX_BYTES = 256
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class KeyFile(click.ParamType):  # type: ignore[type-arg]
    """A file with 32 hexadecimal digits that its owner alone may read."""

    name = "FILE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """Return the key."""
        if isinstance(value, bytes):
            return value
        try:
            fd = os.open(value, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "no name of a file"
            self.fail(f"{value!r}: {why}", param, ctx)
        try:
            status, text = os.fstat(fd), os.read(fd, MAX_BYTES)
        except OSError as error:
            self.fail(f"{value!r}: {error.strerror}", param, ctx)
        finally:
            os.close(fd)
        if not stat.S_ISREG(status.st_mode):
            self.fail(f"{value!r} is no regular file", param, ctx)
        if status.st_uid not in (0, os.geteuid()):
            self.fail(f"{value!r} belongs to another user, who knows the key", param, ctx)
        if status.st_mode & OTHERS:
            self.fail(f"{value!r} is open to others; chmod 600 it, and make a new key", param, ctx)
        if not KEY.fullmatch(text):
            self.fail(
                f"{value!r} has no key: 32 hexadecimal digits, as `openssl rand -hex 16` prints",
                param,
                ctx,
            )
        return bytes.fromhex(text.decode())
