"""The Content-Security-Policy of a page: its own style and its own script, and nothing else.

The page is self-contained, so nothing is fetched, framed or sent. Whatever is added to a page, a
browser runs no other script, not even an attribute such as `onclick`.
"""

from __future__ import annotations

import base64
import hashlib

from markupsafe import Markup


def policy(style: str, script: str) -> Markup:
    """The policy that allows exactly these contents of `<style>` and `<script>`.

    These are the contents between the tags, including line ends. Windows line ends are equivalent,
    since a browser normalises them.
    """
    directives = (
        "default-src 'none'",
        f"script-src {_source(script)}",
        f"style-src {_source(style)}",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return Markup("; ".join(directives))  # it contains no character that ends an attribute


def _source(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
