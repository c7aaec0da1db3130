"""The tuned spec: the best settings of a study as an ablation, with a comment for every value."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bdhf.experiments.errors import SpecError
from bdhf.experiments.plan.expand import expand
from bdhf.experiments.spec.compose import merged, read_spec
from bdhf.experiments.spec.grid import Variant
from bdhf.experiments.spec.load import load_spec
from bdhf.records import InputError, TunedArm, Tuning, unit_of, write_atomically
from bdhf.text.formatting import short
from bdhf.tuning.outcome.collect import study_text
from bdhf.tuning.outcome.held_out import at_of, cells_in, fewest_values_first, settings_in
from bdhf.tuning.study.space import placed
from bdhf.tuning.study.study import Study

#: Column at which a comment starts, after a short value.
_COLUMN = 34


def write_tuned(study: Study, record: Tuning, file: Path) -> None:
    """Write the tuned spec, and the record of the study to the same folder as `NAME.tuning.json`.

    Raises InputError for an arm without a completed trial, and where the file cannot be written.
    The file is read again: it must give exactly the best settings.
    """
    hopeless = [arm.label for arm in record.arms if arm.best is None]
    if hopeless:
        raise InputError(
            [f"{file}: not written: no trial of {', '.join(hopeless)} has been completed"]
        )
    if file.resolve() in (study.file.resolve(), study.ablation_file.resolve()):
        message = "would overwrite its source: give another file, for example ablations/tuned/…"
        raise InputError([f"{file}: {message}"])
    before = file.read_bytes() if file.exists() else None
    write_atomically(file, tuned_spec_text(study, record, file).encode())
    try:
        _check(record, file)
    except (SpecError, ValueError) as error:
        _put_back(file, before)
        raise InputError([f"{file}: not written: {error}"]) from None
    write_atomically(file.with_name(f"{study.name}.tuning.json"), study_text(record).encode())


def tuned_spec_text(study: Study, record: Tuning, file: Path) -> str:
    """The text of the tuned spec."""
    base = os.path.relpath(study.ablation_file.resolve(), file.parent.resolve())
    seeds = ", ".join(map(str, record.seeds))
    lines = [
        *_schema_line(file),
        f"# Written by `bdhf tune {study.file} --write {file}`.",
        f"# Study {record.name}: {record.trials} trials of every arm on seeds {seeds}; sampler",
        f"# {record.sampler}; pruner {record.pruner}. The ablation's own seeds were not used.",
        "schema: 1",
    ]
    keys, is_on_top = _set(study)
    lines += [f"include: {json.dumps(base)}"] if is_on_top else []
    lines += [f"name: {study.name}-tuned", f"tuned_from: studies/{study.name}"]
    has_grid = bool(study.variants[0].picks)
    own = ("schema", "name", "tuned_from", "settings" if has_grid else "arms")
    why = "   # set by the study" if is_on_top else ""
    lines += [f"{k}: {_flow(study.source.data.get(k))}{why}" for k in keys if k not in own]
    if not has_grid:
        lines += ["arms:", *_arms(study, record, is_whole="arms" in keys)]
    else:
        lines.append("settings:")
        lines += [f"  - {_flow(entry)}" for entry in study.source.data.get("settings", [])]
        for variant in fewest_values_first(study.variants):
            lines += _entry(study, record, variant)
    return "\n".join(lines) + "\n"


def _schema_line(file: Path) -> list[str]:
    """The path of the schema, for editors, for a file in a checkout of bdhf."""
    for folder in file.resolve().parents:
        schema = folder / "docs" / "spec.schema.json"
        if schema.exists():
            path = os.path.relpath(schema, file.parent.resolve())
            return [f"# yaml-language-server: $schema={path}"]
    return []


def _set(study: Study) -> tuple[list[str], bool]:
    """The keys to write, and whether the tuned spec includes the ablation.

    These are the keys that the study sets, each as a whole, since a list cannot be merged in part.
    If merging gives another spec (an axis of a grid cannot be removed), they are all keys.
    """
    data, base = study.source.data, read_spec(study.ablation_file).data
    keys = list(dict.fromkeys(path.split(".")[0] for path in study.spec.set))
    is_on_top = merged(base, {key: data.get(key) for key in keys}, ()) == data
    return (keys, True) if is_on_top else (list(data), False)


def _arms(study: Study, record: Tuning, *, is_whole: bool) -> Iterator[str]:
    """The best settings of every arm; if `is_whole`, with all its other keys."""
    by_name = {arm.name: arm for arm in record.arms}
    raw: Mapping[str, Any] = study.source.data["arms"]
    for name in raw if is_whole else by_name:
        arm = by_name.get(name)
        if arm is None:
            yield f"  {name}: {_flow(raw[name])}"
            continue
        tree = placed(raw[name], dict(arm.settings)) if is_whole else _nested(arm.settings)
        tuned = {path.split(".")[0] for path in arm.settings}
        yield f"  {name}:"
        for key, value in tree.items():
            line = f"    {key}: {_flow(value)}"
            yield _line(line, arm, record) if key in tuned else line


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as nested keys."""
    tree: dict[str, Any] = {}
    for path, value in settings.items():
        *outer, last = path.split(".")
        node = tree
        for key in outer:
            node = node.setdefault(key, {})
        node[last] = dict(value) if isinstance(value, Mapping) else value
    return tree


def _entry(study: Study, record: Tuning, variant: Variant) -> Iterator[str]:
    """The settings of all arms in one combination of the grid."""
    by_label = {arm.label: arm for arm in record.arms}
    by_name = {name: by_label[cell.label] for name, cell in cells_in(study, variant).items()}
    settings = settings_in(study, record, variant)
    if not settings:  # the combination has no arm
        return
    yield f"  - at: {_flow(at_of(variant))}"
    yield "    set:"
    for path, value in settings.items():
        names = [name for name in by_name if f"{path}.".startswith(f"arms.{name}.")]
        yield _line(f"      {path}: {_flow(value)}", by_name[max(names, key=len)], record)


def _line(text: str, arm: TunedArm, record: Tuning) -> str:
    return f"{text:<{_COLUMN}}  # {record.name}, trial {arm.best}: {_value(arm, record)}"


def _value(arm: TunedArm, record: Tuning) -> str:
    """`71.5 updates (66 to 77 over seeds)`: the value of the best trial, with its spread."""
    unit, horizon = unit_of(record.objectives[0]), arm.horizons.get(record.objectives[0])
    value = arm.best_value if arm.best_value is not None else float("nan")
    if horizon is not None and value > horizon:
        return (
            "every trial failed" if value >= 2 * horizon else "the target was missed on every seed"
        )
    text = f"{short(value)} {unit}"
    if arm.least is None or arm.largest is None:
        return text
    return f"{text} ({short(arm.least)} to {short(arm.largest)} over seeds)"


def _flow(value: Any) -> str:
    """A value as YAML on one line: JSON, with a dot in numbers such as 1e-05."""
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
    """Read the tuned spec again. Raises SpecError, and ValueError where its settings differ."""
    variants, _ = load_spec(file)
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
