# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import ctypes
import errno
import logging
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from cgnet.errors import LibbpfError, UnsupportedError, UsageError
from cgnet.kernel import _libbpf
from cgnet.kernel._libbpf import API, LIBRARY, _libraries, _open_library, _trust, lib
from cgnet.loader import Object

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    Cgnet = Callable[..., subprocess.CompletedProcess[str]]

RULE = "must be an absolute path without links, of a file and folders that only root can write\n"


@pytest.mark.parametrize("name", sorted(API))
def test_every_function_is_typed_in_the_table_and_in_the_library(name: str) -> None:
    assert isinstance(API[name].argtypes, tuple)
    assert API[name].fails in {"never", "negative", "null"}
    function = getattr(lib, name)
    assert (function.restype, tuple(function.argtypes)) == (API[name].restype, API[name].argtypes)


@pytest.mark.parametrize("name", sorted(API))
def test_every_function_is_in_the_installed_libbpf(name: str) -> None:
    assert hasattr(ctypes.CDLL(LIBRARY), name)


@pytest.mark.parametrize("name", sorted(name for name, fn in API.items() if fn.fails == "null"))
def test_functions_that_fail_with_null_return_pointers(name: str) -> None:
    size = ctypes.sizeof(API[name].restype)
    assert size == ctypes.sizeof(ctypes.c_void_p)


def test_a_function_that_is_not_in_the_table_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="bpf_no_such_function"):
        _ = lib.bpf_no_such_function


def test_a_handle_of_another_type_is_refused(built_object: Path) -> None:
    with Object(built_object) as obj, pytest.raises(ctypes.ArgumentError):
        lib.bpf_map__name(obj.handle)


def test_messages_of_libbpf_reach_logging_and_the_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "nothing.bpf.o"
    with (
        caplog.at_level(logging.DEBUG, logger="cgnet.libbpf"),
        pytest.raises(LibbpfError, match=os.strerror(errno.ENOENT)) as raised,
    ):
        Object(path)
    assert raised.value.errno == errno.ENOENT
    assert str(path) in raised.value.log
    assert [record.levelname for record in caplog.records if str(path) in record.message]


def test_an_error_holds_only_what_was_said_for_it(tmp_path: Path) -> None:
    for name in ("first.bpf.o", "second.bpf.o"):
        with pytest.raises(LibbpfError) as raised:
            Object(tmp_path / name)
    assert "second.bpf.o" in raised.value.log
    assert "first.bpf.o" not in raised.value.log


@pytest.fixture
def copy(libbpf_path: Path) -> Iterator[Path]:
    """A copy of the library; root's is in a folder that only root can write."""
    inside = "/var/lib" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="cgnet-test-", dir=inside) as folder:
        made = Path(folder).resolve() / "libbpf.so.1"
        shutil.copy(libbpf_path, made)
        made.chmod(0o755)
        yield made


def test_another_libbpf_is_taken_if_root_alone_can_write_it(cgnet: Cgnet, copy: Path) -> None:
    if os.geteuid() == 0:
        done = cgnet("--version", CGNET_LIBBPF=str(copy))
        assert (done.returncode, done.stderr) == (0, "")
        assert "libbpf" in done.stdout
    else:
        assert refused(cgnet, str(copy)) == RULE


def test_the_systems_libbpf_is_taken_by_its_path(cgnet: Cgnet, libbpf_path: Path) -> None:
    done = cgnet("--version", CGNET_LIBBPF=str(libbpf_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_library_asked_for_comes_before_cgnets_own_and_that_before_the_systems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / LIBRARY
    monkeypatch.setattr(_libbpf, "BUNDLED", own)
    monkeypatch.delenv("CGNET_LIBBPF", raising=False)
    assert _libraries() == [LIBRARY]
    own.touch()
    assert _libraries() == [str(own), LIBRARY]
    monkeypatch.setenv("CGNET_LIBBPF", LIBRARY)
    assert _libraries() == [LIBRARY]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A library of cgnet's own that can't be loaded."""
    own = tmp_path / LIBRARY
    own.write_text("no library")
    monkeypatch.setattr(_libbpf, "BUNDLED", own)
    monkeypatch.delenv("CGNET_LIBBPF", raising=False)
    return own


def test_the_systems_libbpf_is_taken_where_cgnets_own_cannot_be_loaded(
    broken: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert _open_library().libbpf_major_version() >= 1
    (said,) = caplog.messages
    assert said.startswith(f"{broken} (")
    assert said.endswith(f"; the system's {LIBRARY} is used instead")


def test_where_none_can_be_loaded_each_is_named_with_its_reason(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_libbpf, "LIBRARY", "libbpf.so.none")
    with pytest.raises(UnsupportedError) as raised:
        _open_library()
    said = str(raised.value)
    assert said.startswith(f"cannot load {broken} (")
    assert "; nor libbpf.so.none (cannot open shared object file: No such file" in said
    assert "reinstall it, or install libbpf 1.0 or newer" in said
    broken.unlink()
    with pytest.raises(
        UnsupportedError, match=r"^cannot load libbpf.so.none \(.*\). Install libbpf"
    ):
        _open_library()
    monkeypatch.setenv("CGNET_LIBBPF", "libbpf.so.none")
    with pytest.raises(UnsupportedError, match="Unset CGNET_LIBBPF"):
        _open_library()


def refused(cgnet: Cgnet, value: str) -> str:
    """Return why a library isn't taken."""
    done = cgnet("--version", CGNET_LIBBPF=value)
    assert (done.returncode, done.stdout) == (2, "")
    start = f"cgnet: CGNET_LIBBPF={value}: "
    assert done.stderr.startswith(start), done.stderr
    return done.stderr.removeprefix(start)


def test_a_libbpf_that_somebody_else_owns_is_refused(cgnet: Cgnet, copy: Path) -> None:
    if os.geteuid() == 0:
        os.chown(copy, 65534, 65534)
    assert refused(cgnet, str(copy)) == RULE


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_libbpf_that_others_can_write_is_refused(cgnet: Cgnet, copy: Path, mode: int) -> None:
    copy.chmod(mode)
    assert refused(cgnet, str(copy)) == RULE


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_libbpf_in_a_folder_that_others_can_write_is_refused(
    cgnet: Cgnet, copy: Path, mode: int
) -> None:
    """Who can write the folder can swap the file between the check and the load."""
    copy.parent.chmod(mode)
    assert refused(cgnet, str(copy)) == RULE


def test_a_libbpf_below_a_folder_that_others_can_write_is_refused(cgnet: Cgnet, copy: Path) -> None:
    below = copy.parent / "a/b"
    below.mkdir(parents=True)
    moved = copy.rename(below / copy.name)
    copy.parent.chmod(0o777)
    assert refused(cgnet, str(moved)) == RULE


def test_a_libbpf_behind_a_link_is_refused(cgnet: Cgnet, copy: Path, libbpf_path: Path) -> None:
    file, folder = copy.parent / "link.so.1", copy.parent / "link"
    file.symlink_to(libbpf_path)
    folder.symlink_to(libbpf_path.parent)
    dots = copy.parent / ".." / copy.parent.name / copy.name
    for each in (file, folder / libbpf_path.name, dots):
        assert refused(cgnet, str(each)) == RULE


@pytest.mark.parametrize("part", ["/a", "/a/b", "/a/b/lib.so"])
@pytest.mark.parametrize(("uid", "mode"), [(1, 0o755), (0, 0o775), (0, 0o757), (0, 0o1777)])
def test_one_place_that_is_not_roots_alone_is_enough_to_refuse(
    monkeypatch: pytest.MonkeyPatch, part: str, uid: int, mode: int
) -> None:
    changed: dict[str, tuple[int, int]] = {}

    def stat(path: Path, **_: bool) -> SimpleNamespace:
        owner, bits = changed.get(str(path), (0, 0o755))
        return SimpleNamespace(st_uid=owner, st_mode=bits)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stat)
        _trust(Path("/a/b/lib.so"))
        changed[part] = (uid, mode)
        with pytest.raises(UsageError, match="only root can write"):
            _trust(Path("/a/b/lib.so"))


def test_a_libbpf_by_a_relative_path_is_refused(
    cgnet: Cgnet, libbpf_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(libbpf_path.parent)
    assert refused(cgnet, libbpf_path.name) == RULE


def test_a_libbpf_that_is_missing_is_refused(cgnet: Cgnet, tmp_path: Path) -> None:
    assert refused(cgnet, str(tmp_path / "none.so")) == f"{os.strerror(errno.ENOENT)}\n"


def test_a_file_that_is_no_library_is_told_in_one_line(cgnet: Cgnet) -> None:
    done = cgnet("--version", CGNET_LIBBPF="/etc/passwd")
    assert done.returncode == 4
    assert done.stderr.startswith("cgnet: cannot load /etc/passwd (")
    assert done.stderr.count("\n") == 1
