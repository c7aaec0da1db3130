"""Rows of a dataclass as a table whose columns keep their types even where it is empty.

Parquet stores an empty column without a type as null, and readers cannot concatenate that with the
same column of another ablation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import pandas as pd

#: Type of a field -> dtype of its column in an empty table; all other types are text.
_DTYPES: Mapping[Any, str] = {bool: "bool", int: "int64", float: "float64"}


def table_of(kind: type, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A column for each field of the dataclass `kind`, a row for each mapping."""
    hints = get_type_hints(kind)
    table = pd.DataFrame(rows, columns=list(hints))
    if rows:
        return table
    return table.astype({name: _DTYPES.get(hint, "string") for name, hint in hints.items()})
