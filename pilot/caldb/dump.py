"""An SQL dump as statements, and its statements as SQLite's. Pure: bytes in, values out.

Understood is what mysqldump and the demo's generator write: CREATE TABLE and INSERT with quoted or hexadecimal
values. What is not understood is refused with its line, never skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

# Possessive, so that a quote without its end costs no backtracking: it comes out as a single character.
_TOKEN = re.compile(
    rb"""
      (?P<text> '(?:[^'\\]++|\\.|'')*+' | "(?:[^"\\]++|\\.|"")*+" )
    | (?P<name> `[^`]*+` )
    | (?P<order> /\*!.*?\*/ )
    | (?P<comment> /\*.*?\*/ | --(?=\s|$)[^\n]*+ | \#[^\n]*+ )
    | (?P<end> ; )
    | (?P<plain> [^'"`;/\#-]++ | [/-] )
    | (?P<open> . )
    """,
    re.VERBOSE | re.DOTALL,
)

# Statements of a dump that mean nothing to a snapshot that is only read.
_IGNORED = re.compile(
    rb"(SET|LOCK|UNLOCK|DROP\s+TABLE|CREATE\s+(DATABASE|SCHEMA)|START|BEGIN|COMMIT|USE|ALTER\s+TABLE\s+\S+\s+(DIS|EN)ABLE)\b",
    re.I,
)
_HEX = re.compile(rb"\b0x([0-9A-Fa-f]*)\b")
_ESCAPE = re.compile(rb"\\(.)|''|\"\"", re.DOTALL)
_ESCAPED = {b"0": b"\0", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"Z": b"\x1a"}
# Parts of a column that SQLite does not have and a reader does not need.
_COLUMN_WORDS = re.compile(
    rb"\b(UNSIGNED|AUTO_INCREMENT|CHARACTER\s+SET\s+\w+|CHARSET\s+\w+|COLLATE\s+\w+|ON\s+UPDATE\s+\w+(\(\))?|COMMENT)\b",
    re.I,
)
_PLAIN_KEY = re.compile(rb"\s*(?:(?:FULLTEXT|SPATIAL)\s+)?(?:KEY|INDEX)\b", re.I)
_UNIQUE_KEY = re.compile(rb"(\s*UNIQUE)\s+(?:KEY|INDEX)\s+(?:`[^`]*`|\w+)?", re.I)


class BadDump(Exception):
    """The dump cannot be used; the text names the line."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a statement; `kind` is text, name, order, plain or end."""

    kind: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement without its semicolon and without comments, and the line of the dump where it starts."""

    tokens: tuple[Token, ...]
    line: int

    @property
    def text(self) -> bytes:
        """As the server reads it."""
        return b"".join(token.text for token in self.tokens)


def split_statements(lines: Iterable[bytes]) -> Iterator[Statement]:
    """Statements of a dump, one after the other. Raises BadDump."""
    block: list[bytes] = []
    first = number = 1
    for number, line in enumerate(lines, 1):
        if not block:
            first = number
            if line[:9].upper() == b"DELIMITER":
                raise BadDump(f"line {number}: stored programs are not part of a snapshot")
        block.append(line)
        if line.rstrip().endswith(b";"):
            tokens = _tokens(b"".join(block))
            if tokens is not None:
                yield from _statements(tokens, first)
                block = []
    tokens = _tokens(b"".join(block))
    if tokens is None or any(token.text.strip() for token in tokens):
        raise BadDump(f"line {number}: the dump ends inside the statement that starts after line {first - 1}")


def _tokens(text: bytes) -> list[Token] | None:
    """Tokens without comments, None if a quote or comment is open."""
    tokens = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "open" or (
            kind == "plain" and match.group() == b"/" and text[match.end() : match.end() + 1] == b"*"
        ):
            return None
        if kind is not None and kind != "comment":
            tokens.append(Token(kind, match.group()))
    return tokens


def _statements(tokens: Sequence[Token], line: int) -> Iterator[Statement]:
    statement: list[Token] = []
    for token in tokens:
        if token.kind != "end":
            statement.append(token)
            continue
        if any(part.text.strip() for part in statement):
            yield Statement(tuple(statement), line)
        line += sum(part.text.count(b"\n") for part in statement)
        statement = []


def render_sqlite(statement: Statement) -> str | None:
    """The same for SQLite; None for what a snapshot does not need. Raises BadDump."""
    plain = b"".join(t.text if t.kind != "order" else b"" for t in statement.tokens).strip()
    if not plain or _IGNORED.match(plain):
        return None
    if re.match(rb"CREATE\s+TABLE\b", plain, re.I):
        return _create_table(statement)
    if re.match(rb"INSERT\s+INTO\b", plain, re.I):
        return b"".join(map(_value, statement.tokens)).decode("utf-8", "surrogateescape")
    raise BadDump(
        f"line {statement.line}: not understood for SQLite: {plain[:60].decode('ascii', 'replace')!a}"
    )


def _value(token: Token) -> bytes:
    if token.kind == "text":
        inner = _ESCAPE.sub(_unescape, token.text[1:-1])
        return b"'" + inner.replace(b"'", b"''") + b"'"
    if token.kind == "order":
        return b""
    return _HEX.sub(rb"X'\1'", token.text) if token.kind == "plain" else token.text


def _unescape(match: re.Match[bytes]) -> bytes:
    escaped = match.group(1)
    return match.group()[:1] if escaped is None else _ESCAPED.get(escaped, escaped)


def _create_table(statement: Statement) -> str:
    # Texts go first: comments and defaults may hold anything, and none is needed but plain defaults.
    plain = b"".join(_value(t) for t in statement.tokens)
    start, end = plain.find(b"("), plain.rfind(b")")
    head = re.sub(rb"(?i)COMMENT\s*=?\s*'(?:[^']|'')*'", b"", plain[:start])
    body = re.sub(rb"(?i)\bCOMMENT\s+'(?:[^']|'')*'", b"", plain[start + 1 : end])
    closing = _outer_parenthesis(body)
    items = _split_items(body if closing is None else body[:closing])
    kept = [
        _COLUMN_WORDS.sub(b"", _UNIQUE_KEY.sub(rb"\1 ", item)) for item in items if not _PLAIN_KEY.match(item)
    ]
    return (head + b"(" + b",".join(kept) + b")").decode("utf-8", "surrogateescape")


def _outer_parenthesis(body: bytes) -> int | None:
    """Where the column list ends if table options hold further parentheses, None if it ends with the body."""
    depth = 0
    for match in re.finditer(rb"'(?:[^']|'')*'|[()]", body):
        depth += {b"(": 1, b")": -1}.get(match.group(), 0)
        if depth < 0:
            return match.start()
    return None


def _split_items(body: bytes) -> list[bytes]:
    items, depth, begin = [], 0, 0
    for match in re.finditer(rb"'(?:[^']|'')*'|[(),]", body):
        mark = match.group()
        depth += {b"(": 1, b")": -1}.get(mark, 0)
        if mark == b"," and depth == 0:
            items.append(body[begin : match.start()])
            begin = match.end()
    items.append(body[begin:])
    return items
