"""Remove paths, addresses, and names of hosts and users from texts."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

_EMAIL = r"[\w.+-]+@[A-Za-z][\w-]*(\.[\w-]+)*(:[^\s\"'<>,;]+)?"  # also git@host:name/project.git
_HOST = r"\b[\w-]+(\.[\w-]+)*\.(edu|org|com|gov|(ac|edu)\.[a-z]{2})\b"  # no name of a module
_IPV6 = r"(?<![\w:])[0-9a-f]{1,4}(:[0-9a-f]{0,4}){3,7}(?![\w:])"
_ADDRESS = rf"\b[a-z][a-z0-9+]+://[^\s\"'<>]+|\b\d{{1,3}}(\.\d{{1,3}}){{3}}\b|{_IPV6}"
_WINDOWS = r"(\b[A-Za-z]:|\\)\\[^\"'<>|\n]*"
_POSIX = (
    r"(?<![\w.)\]/])(~[\w.-]*)?/[^\s\"'<>/:,;]+(/[^\s\"'<>:,;]*)*(?: [^\s\"'/]+/[^\s\"'<>:,;]*)*"
)
_IN_A_HOME = r"[^\s\"']*/(home|Users)/[^\"'\n:,;<>]*"
_QUOTED = r"(?<=[\"'])(~[\w.-]*)?/[^\"'\n]+(?=[\"'])"
_HOME = re.compile(r"/(?:home|Users)/([^/\s\"']+)")

#: Pattern -> its replacement.
_PATTERNS = (
    (re.compile(_ADDRESS), "[address]"),
    (re.compile(_EMAIL), "[e-mail]"),
    (re.compile(_HOST), "[address]"),
    (re.compile(f"{_QUOTED}|{_POSIX}|{_IN_A_HOME}|{_WINDOWS}"), "[path]"),
)


def redacted(text: Any, names: Iterable[str]) -> Any:
    """A reason without paths, addresses and these names; other values stay.

    >>> redacted("OSError: /home/ada/data/x.bin on lab-3: ada has no rights", {"ada", "lab-3"})
    'OSError: [path] on [name]: [name] has no rights'
    """
    if not isinstance(text, str):
        return text
    text = without_paths(text)
    for name in sorted(names, key=len, reverse=True):
        if len(name) > 1:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "[name]", text, flags=re.IGNORECASE)
    return text


def users_in(texts: Iterable[Any]) -> set[str]:
    """The current user, and users whose home a text names."""
    users = {name for text in texts if isinstance(text, str) for name in _HOME.findall(text)}
    with suppress(OSError, KeyError, ImportError, RuntimeError):  # a container without users
        users |= {getpass.getuser(), Path.home().name}
    return users - {""}


def without_paths(text: str) -> str:
    """The text with every path and address replaced by a word."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def first_path(text: str) -> str:
    """The first path or address of a text; "" for none."""
    matches = (pattern.search(text) for pattern, _ in _PATTERNS)
    return next((match[0] for match in matches if match), "")
