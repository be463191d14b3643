"""A minimal MySQL client: standard library only, an account without a password, text results of moderate size.

For the node's readiness probe, where no client library is installed. Protocol: MariaDB knowledge base,
"Client/Server Protocol" (handshake v10, COM_QUERY with EOF packets).
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

from pilot.caldb.plan import Address

_LONG_PASSWORD, _WITH_DATABASE, _PROTOCOL_41 = 0x1, 0x8, 0x200
_SECURE, _PLUGIN_AUTH = 0x8000, 0x80000
_UTF8MB4 = 45
_PACKET_MAX = 0xFFFFFF
# A probe or a grant is a few hundred bytes; an answer beyond this is not one that was asked for.
ANSWER_MAX_BYTES = 16 * 1024 * 1024


class QueryFailed(Exception):
    """The server refused, or its answer was not understood. Network errors are OSError."""


class Connection:
    """One connection. Use as a context manager; `timeout_s` bounds each single read and write."""

    def __init__(self, address: Address, user: str, database: str | None = None, timeout_s: float = 10.0):
        if address.port is None:
            self._socket = socket.socket(socket.AF_UNIX)
            target: object = address.socket
        else:
            self._socket = socket.socket(socket.AF_INET)
            target = ("127.0.0.1", address.port)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(target)  # type: ignore[arg-type]
            self._log_in(user, database)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        # COM_QUIT, so that the server's log does not speak of an aborted connection.
        with contextlib.suppress(OSError):
            self._send(0, b"\x01")
        self._socket.close()

    def rows(self, sql: str) -> tuple[tuple[str | None, ...], ...]:
        """All rows as texts (None for NULL); empty for a statement without a result."""
        return self.send_query(sql.encode())

    def send_query(self, sql: bytes) -> tuple[tuple[str | None, ...], ...]:
        """`rows` of a statement whose bytes are sent as they are; one over 16 MiB goes in several packets."""
        self._send(0, b"\x03" + sql)
        first = self._receive()
        if first[0] == 0x00:
            return ()
        columns, _ = _length(first, 0)
        for _ in range(columns):
            self._receive()
        self._end_of_rows(self._receive())
        found: list[tuple[str | None, ...]] = []
        size = 0
        while True:
            packet = self._receive()
            if self._end_of_rows(packet):
                return tuple(found)
            size += len(packet)
            if size > ANSWER_MAX_BYTES:
                raise QueryFailed(f"answer over {ANSWER_MAX_BYTES} bytes")
            found.append(tuple(_texts(packet, columns)))

    def _log_in(self, user: str, database: str | None) -> None:
        greeting = self._receive()
        if greeting[0] != 10:
            raise QueryFailed(f"protocol version {greeting[0]}, expected 10")
        flags = _LONG_PASSWORD | _PROTOCOL_41 | _SECURE | _PLUGIN_AUTH
        flags |= _WITH_DATABASE if database is not None else 0
        answer = struct.pack("<IIB23x", flags, _PACKET_MAX, _UTF8MB4) + user.encode() + b"\0\0"
        if database is not None:
            answer += database.encode() + b"\0"
        self._send(1, answer + b"mysql_native_password\0")
        reply = self._receive()
        if reply[0] == 0xFE:
            # Another authentication is proposed: without a password every one is answered by nothing.
            self._send(self._sequence + 1, b"")
            reply = self._receive()
        if reply[0] != 0x00:
            raise QueryFailed("log-in was not answered by OK")

    def _send(self, sequence: int, body: bytes) -> None:
        while True:
            piece, body = body[:_PACKET_MAX], body[_PACKET_MAX:]
            self._socket.sendall(struct.pack("<I", len(piece))[:3] + bytes([sequence % 256]) + piece)
            sequence += 1
            if len(piece) < _PACKET_MAX:
                return

    def _receive(self) -> bytes:
        """One packet that is not empty; an error packet raises."""
        body = b""
        while True:
            head = self._exactly(4)
            length = int.from_bytes(head[:3], "little")
            self._sequence = head[3]
            body += self._exactly(length)
            if len(body) > ANSWER_MAX_BYTES:
                raise QueryFailed(f"packet over {ANSWER_MAX_BYTES} bytes")
            if length < _PACKET_MAX:
                break
        if not body:
            raise QueryFailed("empty packet")
        if body[0] == 0xFF:
            code = int.from_bytes(body[1:3], "little")
            words = body[9:] if body[3:4] == b"#" else body[3:]
            raise QueryFailed(f"error {code}: {words[:500].decode('utf-8', 'replace')}")
        return body

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self._socket.recv(min(size - len(found), 65536))
            if not piece:
                raise QueryFailed("the server closed the connection")
            found += piece
        return found

    @staticmethod
    def _end_of_rows(packet: bytes) -> bool:
        return packet[0] == 0xFE and len(packet) < 9


def first_value(address: Address, user: str, database: str, sql: str) -> str | None:
    """First column of the first row, None if there is no row. Raises QueryFailed or OSError."""
    with Connection(address, user, database) as connection:
        rows = connection.rows(sql)
    return rows[0][0] if rows else None


def _length(packet: bytes, at: int) -> tuple[int, int]:
    """A length-encoded integer and the offset behind it."""
    first = packet[at]
    if first < 0xFB:
        return first, at + 1
    width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first)
    if width is None:
        raise QueryFailed("no length where one is expected")
    return int.from_bytes(packet[at + 1 : at + 1 + width], "little"), at + 1 + width


def _texts(packet: bytes, columns: int) -> Iterator[str | None]:
    at = 0
    for _ in range(columns):
        if at >= len(packet):
            raise QueryFailed("row is shorter than its columns")
        if packet[at] == 0xFB:
            at += 1
            yield None
        else:
            length, at = _length(packet, at)
            yield packet[at : at + length].decode("utf-8", "replace")
            at += length
