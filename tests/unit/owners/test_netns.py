# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgnet.errors import UsageError
from cgnet.filters.selection import Filters, Selection
from cgnet.owners import netns
from cgnet.owners.netns import Netns, find

OWN = Path("/proc/self/ns/net")
INODE = OWN.stat().st_ino
FORM = "give a PID, a path such as /run/netns/NAME, or an inode"


@pytest.mark.parametrize("text", [f"{os.getpid()}", f"/proc/{os.getpid()}/ns/net", f"{INODE}"])
@pytest.mark.parametrize("zeros", [0, 5000])
def test_pid_path_and_inode_find_the_same_namespace(text: str, zeros: int) -> None:
    found = find("0" * zeros + text if text.isdigit() else text)
    assert (found, found.inode) == (find(str(OWN)), INODE)


@pytest.mark.parametrize("refused", [0, -1])
def test_the_cookie_is_the_one_that_a_socket_tells_once_inside(
    monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    """Entering needs rights; a thread that need not move is inside already."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, netns.SO_NETNS_COOKIE, 8)
        except OSError:
            raw = bytes(8)
    asked: list[int] = []

    def setns(_fd: int, kind: int) -> int:
        asked.append(kind)
        return refused

    monkeypatch.setattr(netns.ctypes, "CDLL", lambda *_, **__: SimpleNamespace(setns=setns))
    told = 0 if refused else int.from_bytes(raw, sys.byteorder)
    assert (find(str(OWN)).cookie, asked) == (told, [netns.CLONE_NEWNET])


def test_a_name_is_one_of_ip_netns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blue").symlink_to(OWN)
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    monkeypatch.setattr(netns, "NAMED", tmp_path)
    assert find("blue") == find(str(OWN))
    with pytest.raises(ValueError, match="No such file or directory"):
        find("gone")


def test_an_inode_that_only_a_name_has_is_found_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "blue"
    named.touch()
    monkeypatch.setattr(netns, "NAMED", tmp_path)
    monkeypatch.setattr(netns, "MAX_PID", 0)
    monkeypatch.setattr(netns, "cookie_of", lambda place: 77 if place == named else 0)
    inode = named.stat().st_ino
    assert find(str(inode)) == Netns(inode, 77)


def test_an_inode_that_nothing_has_yet_has_no_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "_place_of_inode", lambda _inode: None)
    assert find(str(netns.MAX_INODE)) == Netns(netns.MAX_INODE, 0)


def test_a_namespace_that_vanishes_before_it_is_entered_has_no_cookie(tmp_path: Path) -> None:
    assert netns.cookie_of(tmp_path / "gone") == 0


def test_what_cannot_be_entered_has_no_cookie(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert netns.cookie_of(tmp_path / "file") == 0


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("0", FORM),
        (f"{1 << 22}", FORM),  # above the kernel's greatest PID
        ("nosuch", FORM),
        ("", FORM),
        ("..", FORM),
        ("-1", FORM),
        ("\u0661", FORM),
        ("/no/such", FORM),
        ("/tmp", FORM),
        ("/proc/self/status", FORM),
        ("n" * 5000, FORM),
        ("4294967296", "they go to 4294967295"),
        ("9" * 5000, "they go to 4294967295"),
        ("0" * 5000 + "4294967296", "they go to 4294967295"),
    ],
)
@pytest.mark.parametrize("sign", ["", "!"])
def test_what_is_no_namespace_is_quoted_with_the_accepted_form(
    text: str, form: str, sign: str
) -> None:
    with pytest.raises(UsageError) as raised:
        Filters(Selection(netns=(sign + text,)))
    assert str(raised.value).startswith(f"--netns {sign + text!r}: ")
    assert str(raised.value).endswith(form)


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not text.isdigit()))
def test_any_other_text_is_a_namespace_or_refused(text: str) -> None:
    try:
        found = find(text)
    except ValueError:
        return
    assert found.inode > netns.MAX_PID
