"""What lies in a made-up study's folder: its files, and an ablation on held-out seeds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from bdhf.records import ArmTuning, Comparison, PlanIndex, PlannedArm, Records, StudyRecords, Tuned
from tests.report.synthetic import Arm, save, synthetic_records


def held_out_records(records: StudyRecords, gain: float = 0.7, seeds: int = 8) -> Records:
    """Tuned against default settings: tuned arms need about `gain` × the updates."""
    arms: dict[str, Arm] = {}
    comparisons, values, names = [], {}, {}
    for arm in records.study.arms:
        rest = arm.label.removeprefix(arm.name)
        tau = {"adam": 45.0, "full_hf": 26.0}.get(arm.name, 20.0)
        tau *= 1 + 300 / int(arm.values["batch.gradient"]) if arm.values else 1
        for kind, factor in (("default", 1.0), ("tuned", gain)):
            label = f"{arm.name}.{kind}{rest}"
            arms[label] = Arm(tau=tau * factor, floor=0.008)
            values[label], names[label] = arm.values, f"{arm.name}.{kind}"
        comparisons.append(
            Comparison(name=f"{arm.name}: tuned against default{rest}",
                       candidate=f"{arm.name}.tuned{rest}", baseline=f"{arm.name}.default{rest}")
        )  # fmt: skip
    comparisons += [
        entry.model_copy(
            update={
                "name": f"{name}, tuned{f' {rest}' if rest else ''}",
                "candidate": _tuned(entry.candidate),
                "baseline": _tuned(entry.baseline),
            }
        )
        for entry in records.study.comparisons
        for name, _, rest in [entry.name.partition(" gradient=")]
        for rest in [rest and f"gradient={rest}"]
    ]
    made = synthetic_records(
        arms, seeds=seeds, updates=300, comparisons=comparisons, name="held_out"
    )
    return dataclasses.replace(made, values=values, names=names)


def _tuned(label: str) -> str:
    name, _, rest = label.partition(" ")
    return f"{name}.tuned{f' {rest}' if rest else ''}"


def save_study(records: StudyRecords, folder: Path, held_out: Records | None = None) -> Path:
    """Write what `bdhf.records.load_study` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(records.text, encoding="utf-8")
    (folder / "study.json").write_text(records.study.model_dump_json(indent=1), encoding="utf-8")
    tables = {"trials": records.trials, "parameters": records.parameters, "seeds": records.seeds,
              "trial_curves": records.curves}  # fmt: skip
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    if held_out is not None:
        save(held_out, folder / "held_out")
        index = PlanIndex(
            arms=tuple(
                PlannedArm(label=label, name=held_out.names[label],
                           values=dict(held_out.values[label]), budget=held_out.budget,
                           evaluate_every=held_out.evaluate_every)
                for label in held_out.arms
            ),
            comparisons=held_out.comparisons,
            tuning=Tuned(
                study=f"studies/{records.study.name}",
                objective=records.study.objectives[0],
                seeds=records.study.seeds,
                arms={label: ArmTuning(how="tuned", trials=records.study.trials)
                      for label in held_out.arms if ".tuned" in label},
            ),
        )  # fmt: skip
        text = json.dumps(index.model_dump(mode="json"))
        (folder / "held_out" / "plan.json").write_text(text, encoding="utf-8")
    return folder
