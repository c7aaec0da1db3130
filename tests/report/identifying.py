"""What tells who made results, and where; and the pieces of a page to look for it in."""

import io
from base64 import b85decode
from zipfile import ZipFile

import pandas as pd

from bdhf.report.verify.verify import block_of

TRACE = (
    'Traceback (most recent call last):\n  File "/home/lovelace/Old Engine/mill.py", line 3\n'
    "OSError: /srv/babbage/cards on turing-7.uni-example.edu; ask lovelace@uni-example.edu or see "
    "postgresql://lovelace:countess@10.2.3.4/cards, C:\\Users\\lovelace\\cards.txt"
)
PLACES = {
    "host": ["turing-7.uni-example.edu", "turing-8.uni-example.edu"],
    "cpu": ["Mill 9000 by Babbage", "Mill 9001 by Babbage"],
    "platform": ["Linux-6.1.0-lovelace+-x86_64"] * 2,
    "commit": ["41b10f5deadbeef", "52c21a6deadbeef"],
    "dirty": ["77aa77aa77aa", ""],
    "bdhf": ["0.9.1+g41b10f5", "0.9.1"],
    "torch": ["2.13.0+cpu", "2.13.0+cu130"],
    "queue": ["babbage-long"] * 2,
}

#: Nothing of this may be left in a page or in what it carries.
IDENTIFYING = (
    "lovelace", "babbage", "turing", "uni-example", "countess", "10.2.3.4", "mill.py", "41b10f5",
    "52c21a6", "77aa77aa", "/home", "/srv", "mill 900",
)  # fmt: skip


def unpacked(html):
    """Everything that a page carries, as text: its header, JSON, and the values of tables."""
    header, *lines = block_of(html, "page").split("\n")
    archive = ZipFile(io.BytesIO(b85decode("".join(lines).replace(",", "<"))))
    parts = [header]
    for name in archive.namelist():
        content = archive.read(name)
        if name.endswith(".parquet"):
            table = pd.read_parquet(io.BytesIO(content))
            content += table.to_json(orient="split", default_handler=str).encode()
        parts.append(content.decode(errors="replace"))
    return "\n".join(parts)
