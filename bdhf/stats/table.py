"""Rows of a dataclass as a table whose columns have their types even where it is empty.

An empty column without one is written to parquet as null, which no reader can put beside the same
column of another ablation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import pandas as pd

#: Type of a field -> dtype of its column where no row tells; text for all that is not here.
_DTYPES: Mapping[Any, str] = {bool: "bool", int: "int64", float: "float64"}


def table_of(kind: type, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A column for each field of the dataclass `kind`, a row for each mapping."""
    hints = get_type_hints(kind)
    table = pd.DataFrame(rows, columns=list(hints))
    if rows:
        return table
    return table.astype({name: _DTYPES.get(hint, "string") for name, hint in hints.items()})
