"""Credentials in files of their owner: read, checked, copied to bundles. Decides nothing; called by lanes only.

A file that anybody else can read or write, or that belongs to somebody else, is refused and never used.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pilot.files import sync_directory, write_new
from pilot.lifetime import NoEnd, end_of_token, end_of_x509
from pilot.ports import Credential, CredentialKind, Done, Failure, Refused, Unavailable

CREDENTIAL_MAX_BYTES = 1024 * 1024


def read_secret(path: str) -> bytes | Failure:
    """The content of an own file that nobody else can read or write."""
    try:
        # Not blocked by a named pipe: what is no plain file is refused below.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Unavailable(f"{path}: {error.strerror}")
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        return Refused("kind", f"{path} is no plain file")
    with open(fd, "rb") as source:
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            return Refused("mode", f"{path} has mode {mode:04o}: others can use it; expected 0600")
        if found.st_uid != os.geteuid():
            return Refused("owner", f"{path} belongs to user {found.st_uid}, expected {os.geteuid()}")
        try:
            content = source.read(CREDENTIAL_MAX_BYTES + 1)
        except OSError as error:
            return Unavailable(f"{path}: {error.strerror}")
    if len(content) > CREDENTIAL_MAX_BYTES:
        return Refused("size", f"{path} has more than {CREDENTIAL_MAX_BYTES} bytes")
    return content


@dataclass(frozen=True, slots=True)
class FileCredentials:
    """Implements `ports.Credentials` and the transport's `Authority` over one file.

    `origin`: with a token, the value of the header Origin (`<vo>` or `<vo>:<role>`).
    """

    kind: CredentialKind
    path: str
    origin: str | None = None

    def current(self) -> Credential | Failure:
        """What the file holds now. A proxy whose key does not fit, or a token without an end, is refused."""
        content = read_secret(self.path)
        if not isinstance(content, bytes):
            return content
        text = content.decode("ascii", "replace")
        try:
            ends_at = end_of_x509(text) if self.kind is CredentialKind.X509 else end_of_token(text)
            if self.kind is CredentialKind.X509:
                # The empty password: a key that needs one is an error, not a question on a terminal.
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(self.path, password="")
        except (NoEnd, ssl.SSLError, OSError) as error:
            reason = error.reason if isinstance(error, ssl.SSLError) else error
            return Refused("content", f"{self.path}: {reason}")
        fingerprint = hashlib.sha256(content).hexdigest()[:16]
        return Credential(self.kind, self.path, ends_at, fingerprint)

    def deliver(self, target: str) -> Done | Failure:
        """Copy the file to `target`: an own new file of mode 0600, fsynced, renamed into place."""
        content = read_secret(self.path)
        if not isinstance(content, bytes):
            return content
        path = Path(target)
        private = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        try:
            try:
                write_new(private, content, 0o600)
                os.rename(private, path)
            finally:
                private.unlink(missing_ok=True)
            sync_directory(path.parent)
        except OSError as error:
            return Unavailable(f"{error.strerror} ({error.filename})")
        return Done()

    def withdraw(self, target: str) -> Done | Failure:
        """Remove a delivered copy; one that is not there is removed."""
        try:
            Path(target).unlink(missing_ok=True)
        except OSError as error:
            return Unavailable(f"{error.strerror} ({error.filename})")
        return Done()

    def authority(self) -> tuple[str | None, Mapping[str, str]] | Failure:
        """For one call: path of the client certificate (None: none), and headers."""
        content = read_secret(self.path)
        if not isinstance(content, bytes):
            return content
        if self.kind is CredentialKind.X509:
            return self.path, {}
        token = content.decode("ascii", "replace").strip()
        if not token.isprintable() or " " in token or not token:
            return Refused("content", f"{self.path}: no token of one line")
        return None, {"Authorization": f"Bearer {token}", "Origin": self.origin or ""}
