"""After a study: the best settings against those of the spec, on seeds that no trial used.

It is an ordinary ablation in the study's folder. It contains each arm of the spec twice, with the
settings of the spec (`ARM.default`) and with the best ones (`ARM.tuned`); the comparisons of the
spec are made between tuned arms. Twins are not compared: an arm whose default is the best, and two
arms with the same best settings. Where a grid varies batch sizes, `settings` give each its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bdhf.experiments.ablation import Ablation
from bdhf.experiments.plan.expand import expand
from bdhf.experiments.plan.twins import only_twins
from bdhf.experiments.spec.grid import Variant
from bdhf.experiments.spec.load import load_spec
from bdhf.records import LOSSES, Comparison, Tuning, tests_of, write_atomically
from bdhf.tuning.study.space import placed
from bdhf.tuning.study.study import Study, StudyCell

#: Suffixes of an arm with the settings of the spec, and with the best ones.
DEFAULT, TUNED = "default", "tuned"

#: Keys of the ablation that are replaced or omitted.
_OWN = ("include", "name", "arms", "settings", "exclude", "compare", "tuned_from", "report")


def held_out(study: Study, record: Tuning, folder: Path) -> Ablation:
    """Write `held_out.yaml` into a study's folder, and open it: its runs go to `held_out`."""
    file, spec = folder / "held_out.yaml", held_out_spec(study, record)
    head = [f"Written by `bdhf tune {study.file}`: the best settings of study {study.name}",
            "against those of the spec, on the seeds of the ablation."]  # fmt: skip
    _write(file, spec, head)
    places = only_twins(expand(load_spec(file)[0]))
    if places:
        kept = [entry for index, entry in enumerate(spec["compare"]) if index not in places]
        head += [_same_runs(spec["compare"][index]) for index in places]
        _write(file, {**spec, "compare": kept}, head)
    return Ablation.open(file, folder / "held_out")


def _write(file: Path, spec: Mapping[str, Any], head: Sequence[str]) -> None:
    buffer, yaml = StringIO(), YAML()
    yaml.width = 100
    buffer.writelines(f"# {' '.join(line.split())}\n" for line in head)
    yaml.dump(spec, buffer)
    write_atomically(file, buffer.getvalue().encode())


def _same_runs(entry: Mapping[str, Any]) -> str:
    sides = f"{entry['candidate']} and {entry['baseline']}"
    return f"Not compared, since {sides} are the same runs: {entry['name']}"


def held_out_spec(study: Study, record: Tuning) -> dict[str, Any]:
    """The spec of the comparison, as plain data."""
    data = study.source.data
    names = [name for name in data["arms"] if name in study.spec.spaces]
    arms: dict[str, Any] = {}
    for name in names:
        arms[f"{name}.{DEFAULT}"] = data["arms"][name]
        arms[f"{name}.{TUNED}"] = data["arms"][name]
    spec = {key: value for key, value in data.items() if key not in _OWN}
    spec |= {"name": f"{study.name}-held-out", "tuned_from": f"studies/{study.name}", "arms": arms}
    if not LOSSES.keys().isdisjoint(study.spec.objectives):
        spec["stop"] = "at_budget"  # as in the trials: a run that stops early has the target's loss
    if study.variants[0].picks:
        spec["exclude"] = list(_excluded(study))
        spec["settings"] = [
            *(
                entry
                for variant in fewest_values_first(study.variants)
                for entry in _own_settings(study, variant)
            ),
            *(
                {"at": at_of(variant), "set": values}
                for variant in fewest_values_first(study.variants)
                if (values := settings_in(study, record, variant, f".{TUNED}"))
            ),
        ]
    else:
        for arm in record.arms:
            spec["arms"][f"{arm.name}.{TUNED}"] = placed(data["arms"][arm.name], dict(arm.settings))
    return {**spec, "compare": _comparisons(study, names)}


def count_tests(study: Study) -> int:
    """The number of tests of the comparison, for Holm's correction."""
    first, objective = study.variants[0].spec, study.spec.objectives[0]
    labels = {cell.label for cell in study.cells}
    asked = [question.comparison for question in study.plan.questions]
    entries = [e for e in asked if {e.candidate, e.baseline} <= labels]
    itself = Comparison(name="itself", candidate="tuned", baseline="default", estimand=objective)
    return len(tests_of([*entries, *([itself] * len(labels))], first.targets))


def settings_in(study: Study, record: Tuning, variant: Variant, suffix: str = "") -> dict[str, Any]:
    """Dotted path -> best value, for every arm in a combination of the grid."""
    by_label = {arm.label: arm for arm in record.arms}
    settings: dict[str, Any] = {}
    for name, cell in cells_in(study, variant).items():
        for path, value in by_label[cell.label].settings.items():
            settings[f"arms.{name}{suffix}.{path}"] = value
    return settings


def cells_in(study: Study, variant: Variant) -> dict[str, StudyCell]:
    """Name -> cell, for every tuned arm in a combination of the grid.

    If the grids of a union vary different axes: the cell with the most values of the combination.
    """
    there = {pick.axis: pick.words for pick in variant.picks}.items()
    cells: dict[str, StudyCell] = {}
    for cell in sorted(study.cells, key=lambda cell: len(cell.planned.values)):
        if cell.planned.name not in variant.excluded and cell.planned.values.items() <= there:
            cells[cell.planned.name] = cell
    return cells


def fewest_values_first(variants: Sequence[Variant]) -> list[Variant]:
    """Combinations with fewer values first: their `at` also matches those with more."""
    return sorted(variants, key=lambda variant: len(variant.picks))


def at_of(variant: Variant) -> dict[str, Any]:
    """A combination of the grid, as `at` of an entry of `settings`."""
    return {  # in `at`, a list means any of its values
        pick.axis: [pick.value] if isinstance(pick.value, list) else pick.value
        for pick in variant.picks
    }


def _own_settings(study: Study, variant: Variant) -> Iterator[dict[str, Any]]:
    """The entries of the ablation's `settings` for a combination, for both forms of every arm."""
    for setting in variant.settings:
        if paths := _both(".".join(map(str, setting.keys)), study):
            yield {"at": at_of(variant), "set": dict.fromkeys(paths, setting.value)}


def _excluded(study: Study) -> Iterator[dict[str, Any]]:
    """The entries of `exclude` for tuned arms; untuned arms are not compared."""
    for entry in study.source.data.get("exclude", []):
        named = entry.get("arm", list(study.spec.spaces))
        arms = [named] if isinstance(named, str) else named
        forms = [form for name in arms for form in _both(f"arms.{name}", study)]
        if forms:
            values = {
                (_both(path, study) or [path])[0]: values
                for path, values in entry.items()
                if path != "arm"
            }
            yield {"arm": [form.removeprefix("arms.") for form in forms], **values}


def _both(path: str, study: Study) -> list[str]:
    """A path for both forms of its arm; empty for an arm that is not tuned."""
    if not path.startswith("arms."):
        return [path]
    inner = path.removeprefix("arms.")
    name = max(
        (n for n in study.spec.spaces if f"{inner}.".startswith(f"{n}.")), key=len, default=""
    )
    rest = inner.removeprefix(name)
    return [f"arms.{name}.{form}{rest}" for form in (DEFAULT, TUNED)] if name else []


def _comparisons(study: Study, names: Sequence[str]) -> list[dict[str, Any]]:
    """Every arm against its default, then the comparisons of the spec between tuned arms."""
    estimand = study.spec.objectives[0]
    comparisons = [
        {
            "name": f"{name}: tuned against default",
            "candidate": f"{name}.{TUNED}",
            "baseline": f"{name}.{DEFAULT}",
            "estimand": estimand,
        }
        for name in names
    ]
    for entry in study.source.data.get("compare") or []:
        if entry["candidate"] in names and entry["baseline"] in names:
            sides = {side: f"{entry[side]}.{TUNED}" for side in ("candidate", "baseline")}
            comparisons.append({**entry, "name": f"{entry['name']}, tuned", **sides})
    return comparisons
