# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from commands_made import TRACING, command_of

from cgnet import commands, errors
from cgnet.cli import LazyGroup, _run, cli, main
from cgnet.commands import COMMANDS
from cgnet.errors import (
    CgnetError,
    ExitStatus,
    LayoutError,
    LibbpfError,
    NotPermittedError,
    StoppedError,
    UnsupportedError,
    UsageError,
)
from cgnet.kernel import probes
from cgnet.kernel.variants import HOOK, TYPED
from cgnet.run.launch import functions_path, object_path
from cgnet.run.shared_ledger import OBJECT

if TYPE_CHECKING:
    from collections.abc import Callable

    Python = Callable[[str], subprocess.CompletedProcess[str]]

MODULES = sorted(COMMANDS)
OBJECTS = Path(errors.__file__).parent / "_bpf"
STATUSES = {
    CgnetError: 1,
    UsageError: 2,
    NotPermittedError: 3,
    UnsupportedError: 4,
    LayoutError: 1,
    LibbpfError: 1,
    StoppedError: 1,
}
CGNET = Path(sys.executable).parent / "cgnet"


def raise_from_command(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `cgnet connect` raise."""

    def callback() -> None:
        raise error

    command = click.Command("connect", callback=callback)
    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: command)


def test_every_module_of_the_package_is_a_command_or_part_of_one() -> None:
    rooms = {each.name for each in pkgutil.iter_modules(commands.__path__)}
    assert rooms == set(COMMANDS)
    assert LazyGroup().list_commands(click.Context(cli)) == MODULES


@pytest.mark.parametrize("name", MODULES)
def test_a_commands_module_has_what_makes_a_command(name: str) -> None:
    module = importlib.import_module(COMMANDS[name].module)
    assert isinstance(module.command, click.Command)
    assert module.command.name == name
    assert module.command.help == COMMANDS[name].help
    assert module.command.help.endswith(".")
    assert len(module.command.help) <= 80


@pytest.mark.parametrize("name", TRACING)
def test_a_tracing_commands_module_says_what_it_traces(name: str) -> None:
    assert command_of(name).name == name
    assert command_of(name).layouts[0].members[0].name == "head"


@pytest.mark.parametrize("name", TRACING)
def test_a_commands_columns_are_fields_of_its_records(name: str) -> None:
    from records import Names, fixed_clock, no_runtimes

    from cgnet.records.schema import Schema
    from cgnet.render import DERIVED

    command = command_of(name)
    names: Any = Names()
    groups = command.fields(names, no_runtimes())
    schema = Schema(name, fixed_clock(), groups, command.layouts[0].size, command.min_record_size)
    known = {*schema.fields, *DERIVED}
    assert set(command.columns) == {"table", "wide", "first", "then"}
    assert {field for fields in command.columns.values() for field in fields} - known == set()


def test_every_command_has_its_object_and_every_object_a_command() -> None:
    used = {
        object_path(command_of(name).object, hook)
        for name in TRACING
        for hook in HOOK.variants
        if (name, hook.way) != ("sockets", "typed")  # the raw one runs on every kernel
    }
    used |= {functions_path(name) for name in ("connect", "trace")}
    used |= {
        object_path(OBJECT, hook) for hook in HOOK.only(TYPED).variants
    }  # several commands' one
    assert used | {probes.OBJECT} == set(OBJECTS.glob("*.bpf.o"))


def test_help_imports_nothing_that_only_a_run_needs(python: Python) -> None:
    done = python(
        "import sys\n"
        "from cgnet.cli import _run\n"
        "status = _run(['--help'])\n"
        "print(status, *sorted(sys.modules), file=sys.stderr)\n"
    )
    status, *modules = done.stderr.split()
    assert status == "0"
    allowed = {"cgnet", "cgnet.cli", "cgnet.commands", "cgnet.errors"}
    assert {name for name in modules if name.partition(".")[0] == "cgnet"} == allowed
    assert {"rich", "ctypes", "csv", "json"} & set(modules) == set()


def test_a_run_with_json_imports_no_rich(python: Python) -> None:
    done = python(
        "import sys\n"
        "from cgnet.cli import _run\n"
        "_run(['connect', '-o', 'json', '--fields', 'nosuch'])\n"
        "print('rich' in sys.modules, 'cgnet.run.session' in sys.modules)\n"
    )
    assert done.stdout == "False True\n"


@pytest.mark.parametrize(("kind", "status"), STATUSES.items())
def test_an_error_is_one_line_and_its_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: type[CgnetError],
    status: int,
) -> None:
    raise_from_command(monkeypatch, LibbpfError("it", 1) if kind is LibbpfError else kind("it"))
    assert _run(["connect"]) == status
    assert capsys.readouterr() == ("", "cgnet: it\n")


def test_every_kind_of_error_has_its_status_tested() -> None:
    kinds = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, CgnetError)
    }
    assert kinds == set(STATUSES)


def test_an_interrupt_ends_with_status_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raise_from_command(monkeypatch, KeyboardInterrupt())
    assert _run(["connect"]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_of_the_program_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    raise_from_command(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        _run(["connect"])


@pytest.mark.parametrize("status", ExitStatus)
def test_main_exits_with_what_the_command_returns(
    monkeypatch: pytest.MonkeyPatch, status: ExitStatus
) -> None:
    command = click.Command("connect", callback=lambda: status)
    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: command)
    with pytest.raises(SystemExit) as raised:
        main(["connect"])
    assert raised.value.code == status


@pytest.fixture
def closed_pipe() -> Any:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["connect", "--help"]], ids=" ".join
)
def test_a_reader_that_went_away_ends_it_cleanly(closed_pipe: int, arguments: list[str]) -> None:
    done = subprocess.run(
        [CGNET, *arguments], check=False, stdout=closed_pipe, stderr=subprocess.PIPE, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_goes_away_during_a_command_ends_it_cleanly(closed_pipe: int) -> None:
    code = (
        "import click\n"
        "from cgnet.cli import LazyGroup, main\n"
        "def callback():\n"
        "    raise BrokenPipeError(32, 'Broken pipe')\n"
        "command = click.Command('connect', callback=callback)\n"
        "LazyGroup.get_command = lambda *_: command\n"
        "main(['connect'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        stdout=closed_pipe,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_it_speaks_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, python: Python
) -> None:
    monkeypatch.chdir(tmp_path)
    code = (
        "import logging, click\n"
        "from cgnet.cli import LazyGroup, main\n"
        "log = logging.getLogger('cgnet.loader')\n"
        "command = click.Command('connect', callback=lambda: log.debug('attached %s', 'it'))\n"
        "LazyGroup.get_command = lambda *_: command\n"
        "main([{}'connect'])\n"
    )
    assert python(code.format("")).stderr == ""
    assert python(code.format("'-v', ")).stderr == "cgnet.loader: attached it\n"
