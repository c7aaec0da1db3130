#!/usr/bin/env bash
# pyarrow 26.0.1: a file that is written with page checksums is read without a look at them.
#
# write_table(write_page_checksum=True) puts a CRC beside every page. read_table verifies none of them
# unless it is told page_checksum_verification=True, so whoever only writes them is not protected. One
# flipped bit in an uncompressed column of numbers is then another number, without a word. What no
# page checksum covers are the headers of pages.
#
# Seen, of 300 files with one flipped bit each (the same table, another one, an error):
#   uncompressed  default 2, 297, 1   verified 1, 0, 299
#   zstd          default 9, 251, 40  verified 9, 0, 291
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyarrow==26.0.1
"$folder/venv/bin/python" - <<'PYTHON'
import io
import random

import pyarrow as pa
from pyarrow import parquet

TABLE = pa.table({"x": [float(i) * 1.1 for i in range(1000)]})


def outcome(content, **options):
    try:
        table = parquet.read_table(pa.BufferReader(content), **options)
    except (OSError, pa.ArrowException):
        return "error"
    return "same" if table.equals(TABLE) else "other"


def counts(compression, **options):
    buffer, draw = io.BytesIO(), random.Random(0)
    parquet.write_table(
        TABLE, buffer, write_page_checksum=True, compression=compression, use_dictionary=False
    )
    whole, seen = buffer.getvalue(), {"same": 0, "other": 0, "error": 0}
    for _ in range(300):
        content = bytearray(whole)
        content[draw.randrange(4, len(whole) - 600)] ^= 1 << draw.randrange(8)
        seen[outcome(bytes(content), **options)] += 1
    return tuple(seen.values())


verified = {"page_checksum_verification": True}
seen = {c: (counts(c), counts(c, **verified)) for c in ("none", "zstd")}
print(seen)
assert seen == {"none": ((2, 297, 1), (1, 0, 299)), "zstd": ((9, 251, 40), (9, 0, 291))}
PYTHON
