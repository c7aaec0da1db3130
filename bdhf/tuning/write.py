"""The tuned spec: what a study found, as an ablation of its own, a comment beside every value."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bdhf.experiments.errors import SpecError
from bdhf.experiments.grid import Variant
from bdhf.experiments.plan import expand
from bdhf.experiments.spec import load
from bdhf.records import InputError, TunedArm, Tuning, unit_of, write_atomically
from bdhf.tuning.collect import as_text
from bdhf.tuning.held_out import at_of, settings_in
from bdhf.tuning.study import Study

#: Columns that a comment stands behind, where the value is short.
_COLUMN = 34


def write_tuned(study: Study, record: Tuning, file: Path) -> None:
    """Write the tuned spec, and the record of the study beside it as `NAME.tuning.json`.

    Raises InputError for an arm without a completed trial, and where the file cannot be written.
    What was written is read again: it must give the very settings that were best.
    """
    hopeless = [arm.label for arm in record.arms if arm.best is None]
    if hopeless:
        raise InputError(
            [f"{file}: not written: no trial of {', '.join(hopeless)} has been completed"]
        )
    before = file.read_bytes() if file.exists() else None
    write_atomically(file, text_of(study, record, file).encode())
    try:
        _check(record, file)
    except (SpecError, ValueError) as error:
        _put_back(file, before)
        raise InputError([f"{file}: not written: {error}"]) from None
    write_atomically(file.with_name(f"{study.name}.tuning.json"), as_text(record).encode())


def text_of(study: Study, record: Tuning, file: Path) -> str:
    """The text of the tuned spec."""
    base = os.path.relpath(study.ablation_file.resolve(), file.parent.resolve())
    seeds = ", ".join(map(str, record.seeds))
    lines = [
        *_schema_line(file),
        f"# Written by `bdhf tune {study.file} --write {file}`.",
        f"# Study {record.name}: {record.trials} trials of every arm on seeds {seeds}; sampler",
        f"# {record.sampler}; pruner {record.pruner}. The ablation's own seeds were not used.",
        "schema: 1",
        f"include: {json.dumps(base)}",
        f"name: {study.name}-tuned",
        f"tuned_from: studies/{study.name}",
    ]
    lines += _set(study)
    by_label = {arm.label: arm for arm in record.arms}
    if not study.variants[0].picks:
        lines.append("arms:")
        for cell in study.cells:
            lines.append(f"  {cell.planned.name}:")
            lines += _nested(by_label[cell.label], record)
    else:
        lines.append("settings:")
        lines += [f"  - {_flow(entry)}" for entry in study.source.data.get("settings", [])]
        for variant in study.variants:
            lines += _entry(study, record, variant)
    return "\n".join(lines) + "\n"


def _schema_line(file: Path) -> list[str]:
    """What tells an editor where the schema is, for a file in a checkout of bdhf."""
    for folder in file.resolve().parents:
        schema = folder / "docs" / "spec.schema.json"
        if schema.exists():
            path = os.path.relpath(schema, file.parent.resolve())
            return [f"# yaml-language-server: $schema={path}"]
    return []


def _set(study: Study) -> Iterator[str]:
    """What the study sets on its ablation: whole keys, since a list cannot be merged in part."""
    for key in dict.fromkeys(path.split(".")[0] for path in study.spec.set):
        if key != "name" and not (key == "settings" and study.variants[0].picks):
            yield f"{key}: {_flow(study.source.data[key])}   # set by the study"


def _nested(arm: TunedArm, record: Tuning) -> Iterator[str]:
    """The settings of an arm as nested keys."""
    tree: dict[str, Any] = {}
    for path, value in arm.settings.items():
        *outer, last = path.split(".")
        node = tree
        for key in outer:
            inner = node.setdefault(key, {})
            node = inner if isinstance(inner, dict) else {}
        node[last] = dict(value) if isinstance(value, Mapping) else value
    for key, value in tree.items():
        yield _line(f"    {key}: {_flow(value)}", arm, record)


def _entry(study: Study, record: Tuning, variant: Variant) -> Iterator[str]:
    """The settings of all arms in one combination of the grid."""
    by_name = {
        cell.planned.name: next(arm for arm in record.arms if arm.label == cell.label)
        for cell in study.cells
        if all(
            pick.words == cell.planned.values.get(pick.axis, pick.words) for pick in variant.picks
        )
    }
    yield f"  - at: {_flow(at_of(variant))}"
    yield "    set:"
    for path, value in settings_in(study, record, variant).items():
        names = [name for name in by_name if f"{path}.".startswith(f"arms.{name}.")]
        yield _line(f"      {path}: {_flow(value)}", by_name[max(names, key=len)], record)


def _line(text: str, arm: TunedArm, record: Tuning) -> str:
    return f"{text:<{_COLUMN}}  # {record.name}, trial {arm.best}: {_value(arm, record)}"


def _value(arm: TunedArm, record: Tuning) -> str:
    """`71.5 updates (66 to 77)`: the value of the best trial, with its spread over seeds."""
    unit, horizon = unit_of(record.objectives[0]), arm.horizons.get(record.objectives[0])
    value = arm.best_value if arm.best_value is not None else float("nan")
    if horizon is not None and value > horizon:
        return "the target was missed on every seed"
    spread = "" if arm.least is None else f" ({arm.least:.4g} to {arm.largest:.4g} over seeds)"
    return f"{value:.4g} {unit}{spread}"


def _flow(value: Any) -> str:
    """A value as YAML on one line; JSON is YAML, but for numbers such as 1e-05, which get a dot."""
    if isinstance(value, Mapping):
        inner = ", ".join(
            f"{json.dumps(k) if _quoted(k) else k}: {_flow(v)}" for k, v in value.items()
        )
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, float):
        digits, e, power = repr(value).partition("e")
        return f"{digits if '.' in digits else digits + '.0'}{e}{power}"
    return json.dumps(value)


def _quoted(key: str) -> bool:
    return not key.replace("_", "").replace(".", "").isalnum() or key[0].isdigit()


def _check(record: Tuning, file: Path) -> None:
    """Read the tuned spec again. Raises SpecError, and ValueError where it says another thing."""
    variants, _ = load(file)
    runs = {cell.arm: cell.run for cell in expand(variants).cells}
    for arm in record.arms:
        run = runs.get(arm.label)
        if run is None or run.optimizer != arm.optimizer:
            raise ValueError(f"{arm.label} would not have the settings of trial {arm.best}")


def _put_back(file: Path, before: bytes | None) -> None:
    if before is None:
        file.unlink(missing_ok=True)
    else:
        write_atomically(file, before)
