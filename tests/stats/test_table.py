"""Tables of results: their columns have the same types with rows and without."""

import dataclasses

import pyarrow as pa
import pyarrow.dataset
import pytest

from bdhf.records import write_table
from bdhf.stats.multiverse import AnalysisChoice
from bdhf.stats.result import Result
from bdhf.stats.table import table_of

#: A value of every type of a field.
VALUES = {
    "str": "a",
    "int": 1,
    "float": 0.5,
    "bool": True,
    "Verdict": "better",
    "tuple[str, ...]": "",
}


def row(kind):
    """A row with a value in every field."""
    return {field.name: VALUES[field.type] for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("kind", [Result, AnalysisChoice])
def test_an_empty_table_is_read_beside_a_full_one(kind, tmp_path):
    """No column is of type null, so that either order of the files makes one data set."""
    empty, full = tmp_path / "empty.parquet", tmp_path / "full.parquet"
    write_table(empty, table_of(kind, []))
    write_table(full, table_of(kind, [row(kind)]))

    for order in ([empty, full], [full, empty]):
        table = pyarrow.dataset.dataset([str(path) for path in order]).to_table()

        assert table.num_rows == 1
        assert pa.null() not in table.schema.types
        assert table.to_pylist() == [row(kind)]
