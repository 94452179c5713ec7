# SPDX-License-Identifier: BSD-2-Clause
"""A command that ``cgnet why`` runs and watches, in a cgroup of its own."""

from __future__ import annotations

import os
import pwd
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cgnet.errors import CgnetError, UsageError

if TYPE_CHECKING:
    from cgnet.owners.cgroups import Hierarchy

PASSED_ON = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
NOT_FOUND, NOT_EXECUTABLE, BY_SIGNAL = 127, 126, 128  # as shells exit
REMOVE_S = 5.0  # how long the cgroup's other processes are waited for
TICK_S = 0.02


class Child:
    """A command in a cgroup below the caller's; on v2 beside it, as inner ones have no processes."""

    def __init__(
        self, words: tuple[str, ...], hierarchy: Hierarchy, user: str | None, *, quiet: bool
    ) -> None:
        """``quiet``: its output goes to standard error. Makes the cgroup. Raises CgnetError."""
        self._words, self._quiet = words, quiet
        self._user = _user(user) if user else None
        self._pid = 0
        self.status: int | None = None
        self.ending = "was not started"
        own = own_cgroup(hierarchy)
        inside = own.parent if hierarchy.name == "v2" and own != hierarchy.mount else own
        self.cgroup = inside / f"cgnet-why-{os.getpid()}"
        self._previous: dict[int, object] = {}
        try:
            self.cgroup.mkdir()
        except OSError as error:
            raise CgnetError(
                f"{self.cgroup}: {error.strerror}; a command to watch gets a cgroup of its own there"
            ) from error

    def start(self) -> None:
        """Run the command. Raises CgnetError."""
        ready, go = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(go)
            self._become(ready)
        os.close(ready)
        for number in PASSED_ON:
            self._previous[number] = signal.signal(number, lambda sig, _: self.kill(sig))
        try:
            (self.cgroup / "cgroup.procs").write_text(str(self._pid))
        except OSError as error:
            os.kill(self._pid, signal.SIGKILL)
            raise CgnetError(f"{self.cgroup}: {error.strerror}") from error
        finally:
            os.write(go, b".")
            os.close(go)

    def _become(self, ready: int) -> None:
        """Wait until this process is in the cgroup, then become the command."""
        status = NOT_EXECUTABLE
        try:
            os.read(ready, 1)
            for number in (signal.SIGPIPE, signal.SIGXFSZ, *PASSED_ON):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            if self._quiet:
                os.dup2(2, 1)
            if self._user:
                os.initgroups(self._user.pw_name, self._user.pw_gid)
                os.setgid(self._user.pw_gid)
                os.setuid(self._user.pw_uid)
            os.execvp(self._words[0], self._words)  # noqa: S606 - what the caller gave
        except OSError as error:
            status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            os.write(2, f"cgnet: {self._words[0]}: {error.strerror}\n".encode(errors="replace"))
        finally:
            os._exit(status)

    def kill(self, number: int) -> None:
        """Pass a signal on."""
        if self._pid and self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def ended(self) -> bool:
        """Return whether the command has ended."""
        if self.status is None and self._pid:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._end(os.waitstatus_to_exitcode(status))
        return self.status is not None

    def _end(self, code: int) -> None:
        if code < 0:
            self.status = BY_SIGNAL - code
            self.ending = f"was ended by {signal.Signals(-code).name}"
        else:
            self.status = code
            self.ending = f"exited with {code}"

    def close(self) -> None:
        """End the command if it runs, and remove its cgroup with everything in it."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        end = time.monotonic() + REMOVE_S
        number = signal.SIGTERM
        while time.monotonic() < end:
            for pid in self._processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            self.ended()
            with suppress(OSError):
                self.cgroup.rmdir()
                return
            time.sleep(TICK_S)
            if end - time.monotonic() < REMOVE_S / 2:
                number = signal.SIGKILL
        sys.stderr.write(
            f"cgnet: {self.cgroup} is still there: rmdir it when its processes ended\n"
        )

    def _processes(self) -> list[int]:
        with suppress(OSError):
            return [int(line) for line in (self.cgroup / "cgroup.procs").read_text().split()]
        return []


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"--user {name!r}: no such user") from None


def own_cgroup(hierarchy: Hierarchy) -> Path:
    """Return the directory of this process's cgroup in a hierarchy."""
    from cgnet.owners.processes import facts  # noqa: PLC0415 - only with a command

    paths = dict(facts(os.getpid(), [hierarchy]).paths)
    return Path(hierarchy.outer_path(paths[hierarchy]))
