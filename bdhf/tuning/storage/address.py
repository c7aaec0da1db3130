"""The URL of a database, and how to hide its password.

>>> hidden("cannot reach bdhf:s3cret@there", "postgresql://bdhf:s3cret@there/db")
'cannot reach bdhf:***@there'
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote


def hidden(text: str, url: str) -> str:
    """A text without the password of a URL."""
    for secret in sorted(set(_passwords(url)), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def has_password(url: str) -> bool:
    """Whether a URL holds a password, which others could read in the list of processes."""
    return any(_passwords(url))


def what_is_wrong(url: str) -> str:
    """Why a URL names no database that all workers can open; empty if it names one.

    This check comes first: other parsers may put half of a password into a message.
    """
    scheme, _, rest = url.partition("://")
    before_query, _, query = rest.partition("?")
    if before_query.count("@") > 1:
        return "the URL has several @: write an @ of the password as %40"
    is_in_memory = before_query in ("", "/", "/:memory:") or "mode=memory" in query
    if scheme.partition("+")[0] == "sqlite" and is_in_memory:
        return "the database is in the memory of one process, and each worker is another process"
    return ""


def _passwords(url: str) -> Iterator[str]:
    """The passwords in a URL, encoded and decoded."""
    rest = url.partition("://")[2]
    before_query, _, query = rest.partition("?")
    ends = {rest.rpartition("@")[0], before_query.rpartition("@")[0], rest.partition("@")[0]}
    written = [end.partition(":")[2] for end in ends if "@" in rest]
    written += [value for key, value in parse_qsl(query) if "password" in key.lower()]
    written += [] if "@" in before_query else _in_place_of_a_port(before_query)
    for password in written:
        yield from (secret for secret in {password, unquote(password)} if secret)


def _in_place_of_a_port(rest: str) -> list[str]:
    """The text after the host's colon that is no port: a password without its `@host`."""
    authority = rest.partition("/")[0]
    after = authority.rpartition("]")[2].partition(":")[2]
    return [] if after.isdecimal() else [after]
