"""The Content-Security-Policy of a page: its own style and its own script, and nothing else.

The page stands alone, so nothing is fetched, framed or sent. Whatever finds its way into a page,
a browser runs no other script, not even an attribute such as `onclick`.
"""

from __future__ import annotations

import base64
import hashlib

from markupsafe import Markup


def policy(style: str, script: str) -> Markup:
    """The policy that allows just these contents of `<style>` and of `<script>`.

    The contents as they stand between the tags, ends of lines included. Those of Windows count as
    the same, since a browser reads both alike.
    """
    directives = (
        "default-src 'none'",
        f"script-src {_source(script)}",
        f"style-src {_source(style)}",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return Markup("; ".join(directives))  # no character of it ends an attribute


def _source(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
