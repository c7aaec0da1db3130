"""The figures of a report, one by one, for notebooks and papers.

    records = bdhf.load("results/quickstart")
    bdhf.figures.forest(records).savefig("forest.pdf")

Every function takes the records of an ablation and returns a matplotlib Figure in the style of the
report, with the same colours for arms. It raises ValueError with the reason if there is nothing to
draw. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from bdhf.records import AXES, Records
from bdhf.report.ablation.build import survival_curves as survival_table
from bdhf.report.ablation.curve_bands import bands
from bdhf.report.ablation.figures import curves as _curves
from bdhf.report.ablation.figures import diagnostics as _diagnostics
from bdhf.report.ablation.figures import forest as _forest
from bdhf.report.ablation.figures import profile as _profile
from bdhf.report.ablation.figures import ranks as _ranks
from bdhf.report.ablation.figures import scaling as _scaling
from bdhf.report.ablation.figures import survival as _survival
from bdhf.report.page.drawing import SCALES, Drawing, Evidence
from bdhf.report.page.style import looks
from bdhf.stats.compare import compare
from bdhf.stats.observations.targets import axis_column
from bdhf.stats.scaling.scaling import DRAWN, drawn
from bdhf.stats.scaling.scaling import batch_scaling as fits_of
from bdhf.stats.summaries.profile import performance_profiles as profile_table
from bdhf.stats.summaries.ranks import LEAST_PROBLEMS, LEAST_SOLVERS
from bdhf.stats.summaries.ranks import mean_ranks as ranks_of

__all__ = ["curves", "diagnostics", "forest", "profile", "ranks", "scaling", "survival"]


def curves(
    records: Records,
    axis: str = "updates",
    metrics: Sequence[str] | None = None,
    scale: str | None = None,
) -> Figure:
    """Training curves: median and interquartile range over seeds, a panel per metric.

    `axis` is a key of `bdhf.records.AXES`. `metrics` are columns of the curves; None: validation
    loss, what the targets read, and training loss. `scale`: `linear`, `log_loss` or `log` (both
    axes); None: what suits the curves.

    >>> import matplotlib.figure
    >>> from bdhf.records import Budget, Records
    >>> import pandas as pd
    >>> cell = {"arm": "hf", "seed": [0, 0], "run_id": "a"}
    >>> records = Records(
    ...     name="short", spec_text="", arms=("hf",), targets=(), comparisons=(),
    ...     budget=Budget(updates=2), alpha=0.05, evaluate_every=2,
    ...     runs=pd.DataFrame(cell | {"seed": [0], "status": "done", "reason": ""}, index=[0]),
    ...     curves=pd.DataFrame(cell | {"update": [0, 2], "val_loss": [1.0, 0.5]}),
    ...     environments=pd.DataFrame())
    >>> isinstance(curves(records), matplotlib.figure.Figure)
    True
    >>> forest(records)
    Traceback (most recent call last):
    ...
    ValueError: forest: no comparison has a ratio (the spec compares nothing)
    """
    axis_column(axis)  # raises for an unknown axis
    records = records.in_order()
    usual = ["val_loss", *(target.metric for target in records.targets), "train_loss"]
    wanted = list(dict.fromkeys(usual if metrics is None else metrics))
    unknown = [metric for metric in metrics or () if metric not in records.curves]
    if unknown:
        raise ValueError(f"curves: no column {', '.join(unknown)}")
    seen = [m for m in wanted if m in records.curves and records.curves[m].notna().any()]
    table = bands(records, axis, seen)
    if table.empty:
        raise ValueError(f"curves: no run has an outcome and a {' or '.join(wanted)} on {axis}")
    suited = _curves.suited(table, records.targets) if scale is None else scale
    if suited not in SCALES:
        raise ValueError(f"curves: unknown scale {scale!r}; known: {', '.join(SCALES)}")
    return _curves.draw_lines(table, looks(records.arms), records.targets, AXES[axis][1], suited)


def survival(records: Records, target: str | None = None, axis: str | None = None) -> Figure:
    """Share of runs that have not reached a target yet (Kaplan-Meier).

    `target` in words, as in `records.targets[0].label`; None: the only one. `axis`: None is that of
    the budget; another one must be that of a comparison.
    """
    records = _one_target("survival", records, target)
    axis = records.budget.axis if axis is None else axis
    table = survival_table(records)
    chosen = Evidence(records, table[table["axis"] == axis])
    return _only("survival", _survival.draw_survival(chosen), f"no run has an outcome on {axis}")


def forest(records: Records, question: str | None = None) -> Figure:
    """Ratio of every comparison with its interval and verdict.

    `question` chooses among costs on several axes and losses, and is `Result.question`: "updates to
    val_loss ≤ 0.02". None: the only one.
    """
    records = records.in_order()
    results = compare(records)
    questions = list(dict.fromkeys(result.question for result in results))
    if (question is None and len(questions) > 1) or question not in (None, *questions):
        raise ValueError(f"forest: name one of the questions: {'; '.join(questions)}")
    chosen = [result for result in results if question in (None, result.question)]
    drawings = _forest.draw_forest(Evidence(records, survival_table(records), chosen))
    why = "no pair has an outcome" if results else "the spec compares nothing"
    return _only("forest", drawings, f"no comparison has a ratio ({why})")


def profile(records: Records, target: str | None = None) -> Figure:
    """Share of instances solved within a factor of the best (Dolan and Moré)."""
    records = _one_target("profile", records, target)
    evidence = Evidence(records, survival_table(records), profile=profile_table(records))
    why = "fewer than two arms share an instance, or more than a plot can distinguish"
    return _only("profile", _profile.draw_profile(evidence), why)


def scaling(records: Records, target: str | None = None, axis: str = "updates") -> Figure:
    """Updates to the target against the batch size, with the critical batch size.

    `axis`: `updates`, with the fit, or `seconds`, the means of runs on one kind of hardware.
    """
    if axis not in DRAWN:
        raise ValueError(f"scaling: no axis {axis!r}; known: {', '.join(DRAWN)}")
    records = _one_target("scaling", records, target)
    sizes, fits = drawn(records), fits_of(records)
    evidence = Evidence(records, survival_table(records), sizes=sizes, scaling=fits)
    drawings = {drawing.name: drawing for drawing in _scaling.draw_scaling(evidence)}
    why = "no arm has three values of batch.gradient with an outcome, and hits at two of them"
    if drawings and axis == "seconds":
        why = "no run has recorded its seconds"
    chosen = drawings.get("scaling" if axis == "updates" else f"scaling_{axis}")
    return _only("scaling", () if chosen is None else (chosen,), why)


def diagnostics(records: Records) -> Figure:
    """CG iterations, damping and reduction ratio over updates."""
    records = records.in_order()
    drawings = _diagnostics.draw_diagnostics(Evidence(records, survival_table(records)))
    drawings = tuple(drawing for drawing in drawings if drawing.name == "diagnostics")
    return _only("diagnostics", drawings, "no run has measured its solver")


def ranks(records: Records, target: str | None = None) -> Figure:
    """Mean ranks over problems, and the arms that do not differ significantly (Nemenyi)."""
    records = _one_target("ranks", records, target)
    mean_ranks = ranks_of(records, records.targets[0])
    evidence = Evidence(
        records, survival_table(records), profile=profile_table(records),
        ranks=() if mean_ranks is None else (mean_ranks,),
    )  # fmt: skip
    why = f"fewer than {LEAST_PROBLEMS} problems in the grid, or than {LEAST_SOLVERS} arms"
    return _only("ranks", _ranks.draw_ranks(evidence), why)


def _one_target(figure: str, records: Records, target: str | None) -> Records:
    """The records with one target only. Raises ValueError if it is ambiguous or unknown."""
    labels = [entry.label for entry in records.targets]
    if not labels:
        raise ValueError(f"{figure}: the ablation has no target")
    if target is None and len(labels) > 1:
        raise ValueError(f"{figure}: name one of the targets: {', '.join(labels)}")
    if target is not None and target not in labels:
        raise ValueError(f"{figure}: no target {target!r}; known: {', '.join(labels)}")
    chosen = [entry for entry in records.targets if target in (None, entry.label)]
    return replace(records.in_order(), targets=tuple(chosen))


def _only(figure: str, drawings: Sequence[Drawing], why: str) -> Figure:
    """The figure that was drawn. Raises ValueError with the reason if there is none."""
    if not drawings:
        raise ValueError(f"{figure}: {why}")
    return drawings[0].figure
