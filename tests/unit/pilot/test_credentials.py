"""Files of credentials: whose, how readable, how copied."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_lifetime import certificate, token

from pilot.credentials import FileCredentials, read_secret
from pilot.panda.transport import Transport
from pilot.ports import Credential, CredentialKind, Done, Refused, Unavailable

END = datetime(2031, 1, 1, tzinfo=UTC)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(token({"exp": END.timestamp()}))
    path.chmod(0o600)
    return path


def of_token(path: Path) -> FileCredentials:
    return FileCredentials(CredentialKind.TOKEN, str(path), "vo.pilot")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o660])
def test_a_file_that_others_can_use_is_refused(token_file: Path, mode: int) -> None:
    token_file.chmod(mode)
    assert isinstance(of_token(token_file).current(), Refused)
    assert isinstance(of_token(token_file).authority(), Refused)
    assert isinstance(of_token(token_file).deliver(f"{token_file}.copy"), Refused)
    assert not Path(f"{token_file}.copy").exists()


def test_a_file_of_another_user_is_refused(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    found = read_secret(str(token_file))
    assert isinstance(found, Refused)
    assert found.code == "owner"


def test_no_plain_file_is_refused_and_nothing_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert isinstance(read_secret(str(tmp_path / "pipe")), Refused)
    assert isinstance(read_secret(str(tmp_path)), Refused)
    assert isinstance(read_secret(str(tmp_path / "nothing")), Unavailable)


def test_a_token_tells_its_end_and_nothing_of_its_content(token_file: Path) -> None:
    found = of_token(token_file).current()
    assert isinstance(found, Credential)
    assert found.ends_at == END
    assert found.fingerprint not in token_file.read_text()
    assert token_file.read_text().strip() not in repr(found)


def test_a_proxy_without_a_key_that_fits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "proxy"
    path.write_text(certificate(END))
    path.chmod(0o600)
    assert isinstance(FileCredentials(CredentialKind.X509, str(path)).current(), Refused)


def test_a_copy_is_an_own_file_of_mode_0600_put_by_rename(token_file: Path, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        target = tmp_path / "credential"
        target.write_text("older")
        before = target.open()
        assert of_token(token_file).deliver(str(target)) == Done()
    finally:
        os.umask(old)
    assert target.read_text() == token_file.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    # Who had the older copy open goes on reading the older one: it was never written into.
    assert before.read() == "older"
    before.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["credential", "token"]


def test_a_copy_that_is_gone_is_withdrawn(token_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "credential"
    assert of_token(token_file).deliver(str(target)) == Done()
    assert of_token(token_file).withdraw(str(target)) == Done()
    assert of_token(token_file).withdraw(str(target)) == Done()
    assert not target.exists()


def test_a_copy_without_a_directory_tells_so(token_file: Path, tmp_path: Path) -> None:
    assert isinstance(of_token(token_file).deliver(str(tmp_path / "none/credential")), Unavailable)


def test_no_call_is_made_with_a_credential_that_is_refused(token_file: Path) -> None:
    token_file.chmod(0o644)
    assert isinstance(Transport("https://127.0.0.1:9", 11.0, of_token(token_file)).get("/x", {}), Refused)


def test_a_token_of_two_lines_never_reaches_a_header(token_file: Path) -> None:
    token_file.write_text("a\r\nX-Other: b")
    found = of_token(token_file).authority()
    assert isinstance(found, Refused)
