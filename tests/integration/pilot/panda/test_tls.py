"""One real TLS handshake: a user's proxy of a throw-away authority against a PanDA server that asks for it."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from pilot.credentials import FileCredentials
from pilot.panda.dialect import make_job_source
from pilot.ports import Credential, CredentialKind, Fetched, JobSource, Refused, Unavailable
from simulators.panda.http import PandaHttpServer, PandaServer
from simulators.panda.model import PandaModel
from simulators.panda.settings import Settings

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="Debian package openssl is missing")

FILES = {"cert": "server.pem", "key": "server.key", "ca": "ca.pem"}
PROXY = "basicConstraints=CA:FALSE\nproxyCertInfo=critical,language:id-ppl-inheritAll\n"


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.call("req", "-x509", *self.new("ca"), "-subj", "/CN=throw-away", "-days", "3", "-out", "ca.pem")

    def call(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.directory, check=True, capture_output=True, timeout=60)

    def new(self, name: str) -> tuple[str, ...]:
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key")

    def sign(self, name: str, subject: str, extensions: str, by: str = "ca", days: int = 2) -> None:
        (self.directory / f"{name}.cnf").write_text(extensions)
        self.call("req", *self.new(name), "-subj", subject, "-out", f"{name}.csr")
        self.call(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key"),
            *("-CAcreateserial", "-days", str(days), "-extfile", f"{name}.cnf", "-out", f"{name}.pem"),
        )

    def proxy(self, name: str, days: int) -> Path:
        """A proxy file as voms-proxy-init writes it: proxy, its key, the user's certificate."""
        self.sign(name, f"/CN=alice/CN={name}", PROXY, by="user", days=days)
        parts = [(self.directory / part).read_text() for part in (f"{name}.pem", f"{name}.key", "user.pem")]
        path = self.directory / f"{name}.proxy"
        path.write_text("".join(parts))
        path.chmod(0o600)
        return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.sign("server", "/CN=localhost", "subjectAltName=IP:127.0.0.1\n")
    made.sign("user", "/CN=alice", "basicConstraints=CA:FALSE\n")
    return made


class TlsServer(PandaHttpServer):
    """The simulated PanDA server behind TLS; keeps the subjects that were shown."""

    subjects: list[object]

    def finish_request(self, request, client_address):  # type: ignore[no-untyped-def]
        request.do_handshake()
        self.subjects.append(request.getpeercert()["subject"])
        super().finish_request(request, client_address)


ROLES = {"/CN=alice": ("/compass/Role=production",)}


@pytest.fixture
def server(authority: Authority) -> Iterator[TlsServer]:
    files = {name: str(authority.directory / path) for name, path in FILES.items()}
    settings = Settings(require_role=True, roles=ROLES, tls=files)
    made = TlsServer(("127.0.0.1", 0), PandaServer(PandaModel(), None, settings))
    made.subjects = []
    made.protect(files)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def source(server: TlsServer, credential: FileCredentials | None, ca: Path | None) -> JobSource:
    url = f"https://127.0.0.1:{server.server_address[1]}"
    return make_job_source(
        "v1",
        url,
        timeout_s=20.0,
        prod_source_label="managed",
        credential=credential,
        ca=str(ca) if ca else None,
    )


def test_a_proxy_is_shown_checked_and_renewed_in_place(authority: Authority, server: TlsServer) -> None:
    first, second = authority.proxy("1", days=1), authority.proxy("2", days=2)
    credential = FileCredentials(CredentialKind.X509, str(first))
    found = credential.current()
    assert isinstance(found, Credential)
    assert timedelta(hours=23) < found.ends_at - datetime.now(UTC) < timedelta(hours=25)
    ca = authority.directory / "ca.pem"
    assert source(server, credential, ca).fetch("Q", 1) == Fetched(())
    second.rename(first)
    renewed = credential.current()
    assert isinstance(renewed, Credential)
    assert renewed.ends_at - found.ends_at > timedelta(hours=23)
    assert renewed.fingerprint != found.fingerprint
    assert source(server, credential, ca).fetch("Q", 1) == Fetched(())
    assert [str(subject).count("commonName") for subject in server.subjects] == [2, 2]
    assert "'1'" in str(server.subjects[0])
    assert "'2'" in str(server.subjects[1])


def test_without_a_proxy_there_is_no_answer(authority: Authority, server: TlsServer) -> None:
    assert isinstance(source(server, None, authority.directory / "ca.pem").fetch("Q", 1), Unavailable)
    assert server.subjects == []


def test_a_server_of_an_unknown_authority_is_told_nothing(authority: Authority, server: TlsServer) -> None:
    credential = FileCredentials(CredentialKind.X509, str(authority.proxy("third", days=1)))
    assert isinstance(source(server, credential, None).fetch("Q", 1), Unavailable)
    assert server.subjects == []


def test_a_key_of_somebody_else_is_refused_before_any_call(authority: Authority) -> None:
    path = authority.proxy("mixed", days=1)
    other = (authority.directory / "server.key").read_text()
    own = (authority.directory / "mixed.key").read_text()
    path.write_text(path.read_text().replace(own, other))
    found = FileCredentials(CredentialKind.X509, str(path)).current()
    assert isinstance(found, Refused)
    assert other.splitlines()[1] not in found.reason


def test_a_certificate_without_a_role_gets_no_jobs_and_a_header_gives_none(
    authority: Authority, server: TlsServer
) -> None:
    authority.sign("user", "/CN=alice", "basicConstraints=CA:FALSE\n")
    authority.sign("bob", "/CN=bob", "basicConstraints=CA:FALSE\n")
    own = authority.directory
    claimed = {"X-Test-DN": "/CN=alice", "X-Test-FQAN": ROLES["/CN=alice"][0], "X-Subject": "/CN=alice"}
    url = f"https://127.0.0.1:{server.server_address[1]}/api/v1/pilot/acquire_jobs"
    found = {
        name: requests.post(
            url,
            json={"site_name": "Q"},
            headers=claimed,
            cert=(str(own / f"{name}.pem"), str(own / f"{name}.key")),
            verify=str(own / "ca.pem"),
            timeout=20,
        ).json()
        for name in ("user", "bob")
    }
    assert "role" in found["bob"]["message"]
    assert "role" not in found["user"]["message"]
