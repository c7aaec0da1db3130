"""Whether another spec was run in a results folder while an ablation was under way there.

The runs of the ablation are all kept. But the folder now has the spec, the plan and the tables of
the other spec, and a report would show these.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bdhf.experiments.plan.expand import Plan
from bdhf.experiments.spec.yaml_source import parse
from bdhf.records import InputError
from bdhf.records.disk.files import read_table

#: Differences between two specs that are named, at most.
_MOST = 3

_NOTHING = object()


def replaced(folder: Path, text: str, plan: Plan) -> str:
    """The other spec that a folder has now, in words; "" if it still has this one.

    Raises InputError if there is no plan any more.
    """
    file = folder / "spec.yaml"
    try:
        there = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError([f"{file}: cannot be read any more: {error}"]) from None
    if there != text:
        ours, others = (parse(spec, str(file)).data for spec in (text, there))
        differences = list(_differences(ours, others, ()))
        if differences:
            more = len(differences) - _MOST
            named = "; ".join(differences[:_MOST]) + (f"; {more} more" if more > 0 else "")
            return f"that of {_name_of(others)} ({named})"
    ids = {(cell.arm, cell.seed, cell.run_id) for cell in plan.cells}
    columns = ["arm", "seed", "run_id"]
    table = read_table(folder / "plan.parquet", columns)
    rows = table[columns].itertuples(index=False, name=None)
    if {(str(arm), int(seed), str(run_id)) for arm, seed, run_id in rows} != ids:
        return "the same text with other runs, of another bdhf or with other defaults of own parts"
    return ""


def _name_of(spec: Any) -> str:
    return repr(spec["name"]) if isinstance(spec, dict) and "name" in spec else "no name"


def _differences(ours: Any, theirs: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Where two specs differ: `arms.adam.lr: 0.3 there, 0.003 here`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in dict.fromkeys([*ours, *theirs]):
            inner = (ours.get(key, _NOTHING), theirs.get(key, _NOTHING))
            yield from _differences(*inner, (*path, str(key)))
    elif ours != theirs:
        name = ".".join(part if part.isprintable() else repr(part) for part in path)
        yield f"{name}: {_short(theirs)} there, {_short(ours)} here"


def _short(value: Any) -> str:
    """A value on one line; a long one without its middle."""
    text = "nothing" if value is _NOTHING else repr(value)
    return text if len(text) <= 60 else f"{text[:40]} … {text[-15:]}"
