# SPDX-License-Identifier: BSD-2-Clause
"""The command line: a lazy group of subcommands, and the mapping of errors to exit codes."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cgnet import __version__
from cgnet.commands import COMMANDS
from cgnet.errors import CgnetError, ExitStatus, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _ReaderGoneError(Exception):
    """The reader of the output closed it, which ends cgnet normally."""


@contextmanager
def _closed_pipe_is_an_end() -> Iterator[None]:
    """Handle BrokenPipeError before click does, which would exit with 1."""
    try:
        yield
    except BrokenPipeError as error:
        raise _ReaderGoneError from error


class LazyGroup(click.Group):
    """A group of the commands in cgnet.commands, each imported when it runs."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the arguments; ``--help`` prints here."""
        with _closed_pipe_is_an_end():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        with _closed_pipe_is_an_end():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; the error for an unknown name suggests the nearest one."""
        name = args[0]
        names = self.list_commands(ctx)
        if name not in names and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"no such command {name!r}{did_you_mean(name, names)}")
        return super().resolve_command(ctx, args)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return sorted(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        found = importlib.import_module(COMMANDS[cmd_name].module).command
        assert isinstance(found, click.Command)  # noqa: S101 - each module's promise
        return found

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in sorted(COMMANDS)])


class _Continued(logging.Formatter):
    """Indents continuation lines of a message: a stranger's name can't begin one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return super().format(record).replace("\n", "\n  ")


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if not value or ctx.resilient_parsing:
        return
    from cgnet.kernel._libbpf import lib  # noqa: PLC0415 - only here

    click.echo(f"cgnet {__version__} (libbpf {lib.libbpf_version_string().decode()})")
    ctx.exit()


EPILOG = """\b
Shell completion, for bash (zsh and fish likewise):
  eval "$(_CGNET_COMPLETE=bash_source cgnet)"
"""


@click.group(cls=LazyGroup, context_settings=CONTEXT, epilog=EPILOG)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Show the version of cgnet and of the libbpf that it uses.",
)  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Say what is loaded, and what libbpf says.")
def cli(*, verbose: bool) -> None:
    """Tell which container's TCP is slow, failing or losing packets, and why."""
    level = logging.DEBUG if verbose else logging.ERROR
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Continued("%(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    from cgnet.run import output  # noqa: PLC0415 - callers of _run() keep their streams

    if arguments is None:
        _speak_utf8()
    if "_CGNET_COMPLETE" in os.environ:
        from click.shell_completion import add_completion_class  # noqa: PLC0415 - only for shells

        from cgnet.options.completion import Fish  # noqa: PLC0415

        add_completion_class(Fish)
    status: int = ExitStatus.FAILED
    try:
        output.open_standard()
        status = _run(arguments)
    except CgnetError as error:
        output.tell(str(error))
    except Exception as error:
        log.debug("", exc_info=True)
        output.tell(f"a fault of cgnet itself: {_place_of(error)}; -v tells more")
    if status == ExitStatus.DONE and getattr(sys.stderr, "failed", False):
        status = ExitStatus.FAILED  # a message couldn't be written
    sys.exit(status)


def _speak_utf8() -> None:
    """Restart in UTF-8 mode if the locale has another encoding: paths and rows are UTF-8."""
    if sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    with suppress(OSError):  # otherwise as well as the locale allows
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def _place_of(error: Exception) -> str:
    """Return an error and where it was raised, in one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"


def _run(arguments: list[str] | None) -> int:
    try:
        status: Any = cli.main(arguments, prog_name="cgnet", standalone_mode=False)
    except CgnetError as error:
        from cgnet.run.output import tell  # noqa: PLC0415 - only here

        tell(str(error))
        return error.exit_status
    except click.ClickException as error:
        error.show()
        return ExitStatus.USAGE
    except (click.Abort, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is ending already
        return ExitStatus.DONE
    except _ReaderGoneError:
        # Python would report the error once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.DONE
    return int(status or ExitStatus.DONE)
