"""Forgeries of a report, and which mode of `bdhf verify` finds each of them.

A forgery is made by somebody who knows the format: its page is made anew from the forged records,
and every sum that can be made anew is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd

from bdhf.records import DIAGNOSTICS, ArmTuning, Comparison, Records, Target, Tuned
from bdhf.records.disk.checksums import digest
from bdhf.report.ablation.build import built_report
from bdhf.report.embedded import encoding
from bdhf.report.embedded.archive import RunFiles
from bdhf.report.embedded.encoding import EmbeddedRecords, decode, encode

#: The arm that shall look better, and one of its runs.
ARM, SEED = "block_hf", 2

MODES = ("verify", "--rerun", "--against")
NOBODY, FOLDER, AGAIN, ALL = (), ("--against",), ("--rerun", "--against"), MODES


@dataclass(frozen=True)
class Forgery:
    """What was forged, in words; how; and the modes that find it."""

    what: str
    forge: Callable[
        [str, EmbeddedRecords], str
    ]  # the honest page and what it carries -> the forged page
    found_by: tuple[str, ...]


def of_page(old: str, new: str) -> Callable[[str, EmbeddedRecords], str]:
    """A change of the page alone: the first piece that matches."""

    def forge(html: str, _: EmbeddedRecords) -> str:
        changed = re.sub(old, new, html, count=1, flags=re.DOTALL)
        assert changed != html, old
        return changed

    return forge


def drawn_elsewhere(old: str, new: str) -> Callable[[str, EmbeddedRecords], str]:
    """A change of a page that says that another matplotlib made it."""

    def forge(_: str, honest: EmbeddedRecords) -> str:
        other = {**encoding.versions(), "matplotlib": "3.0.1"}
        with patch.object(encoding, "versions", lambda: other):
            html = page_of(honest.records, honest.files)
        return of_page(old, new)(html, honest)

    return forge


def of_records(change: Callable[[Records], Records]) -> Callable[[str, EmbeddedRecords], str]:
    """Other records, and the page that they give; files and sums stay."""
    return lambda _, honest: page_of(change(honest.records), honest.files)


def of_files(
    change: Callable[[Mapping[str, RunFiles], Records], Mapping[str, RunFiles]],
) -> Callable[[str, EmbeddedRecords], str]:
    """Other specs and sums of files."""
    return lambda _, honest: page_of(honest.records, change(honest.files, honest.records))


def page_of(records: Records, files: Mapping[str, RunFiles]) -> str:
    """The page that records give."""
    block = encode(records, files)
    return built_report(decode(block).records, block).report.html


def losses_scaled(records: Records) -> Records:
    """All losses of the arm are a fifth less."""
    names = [name for name in records.curves if str(name).endswith("_loss")]
    return _of_arm(records, lambda rows: rows.assign(**{n: rows[n] * 0.8 for n in names}))


def without_their_files(html: str, honest: EmbeddedRecords) -> str:
    """The same, and the runs of the arm are not among those whose files are listed."""
    records = losses_scaled(honest.records)
    ids = set(records.runs.loc[records.runs["arm"] == ARM, "run_id"])
    return page_of(records, {k: v for k, v in honest.files.items() if k not in ids})


def one_loss(records: Records) -> Records:
    """One number of one curve."""
    curves = records.curves.copy()
    rows = curves.index[(curves["arm"] == ARM) & (curves["seed"] == SEED)]
    curves.loc[rows[1], "val_loss"] *= 0.9
    return replace(records, curves=curves)


def another_seed(records: Records) -> Records:
    """A run has the curve of another seed, in the table too."""
    good = _cell(records.curves, ARM, 0)
    rest = records.curves[~_is_cell(records.curves, ARM, SEED)]
    run_id = records.runs.loc[_is_cell(records.runs, ARM, SEED), "run_id"].iloc[0]
    curves = pd.concat([rest, good.assign(seed=SEED, run_id=run_id)], ignore_index=True)
    return with_last_rows(replace(records, curves=curves))


def column_scaled(name: str, factor: float) -> Callable[[Records], Records]:
    """A column of the arm's curves, which is no loss."""
    return lambda records: _of_arm(records, lambda rows: rows.assign(**{name: rows[name] * factor}))


def fewer_evaluations(records: Records) -> Records:
    """Every second evaluation of the arm is left out."""
    return _of_arm(records, lambda rows: rows[rows["update"] % 4 != 2])


def cut_short(records: Records) -> Records:
    """A run that is done ends at its evaluation before the last."""
    rows = records.curves.index[_is_cell(records.curves, ARM, SEED)]
    return with_last_rows(
        replace(records, curves=records.curves.drop(rows[-1]).reset_index(drop=True))
    )


def ended_as(status: str | None, reason: str, *, curve: bool = False) -> Any:
    """A run that ended otherwise than it did; its curve is taken out, or left."""

    def change(records: Records) -> Records:
        here = _is_cell(records.runs, ARM, SEED)
        runs = records.runs.astype({"status": object, "reason": object})
        runs.loc[here, ["status", "reason"]] = [status, reason]
        curves = records.curves
        if not curve:
            curves = curves[~_is_cell(curves, ARM, SEED)].reset_index(drop=True)
        return with_last_rows(replace(records, runs=runs, curves=curves))

    return of_records(change)


def never_run(status: str | None, reason: str) -> Callable[[str, EmbeddedRecords], str]:
    """A run that is said not to have been made, without a trace of it."""

    def forge(html: str, honest: EmbeddedRecords) -> str:
        records = honest.records
        run_id = records.runs.loc[_is_cell(records.runs, ARM, SEED), "run_id"].iloc[0]
        places = records.environments[records.environments["run_id"] != run_id]
        rest = EmbeddedRecords(
            replace(records, environments=places.reset_index(drop=True)),
            {k: v for k, v in honest.files.items() if k != run_id},
            honest.light, honest.versions, honest.sha256,
        )  # fmt: skip
        return str(ended_as(status, reason)(html, rest))

    return forge


def other_field(**fields: Any) -> Callable[[str, EmbeddedRecords], str]:
    """Fields of the records that are not those of the spec."""
    return of_records(lambda records: replace(records, **fields))


def another_run_behind(records: Records) -> Records:
    """A curve goes on, with an evaluation under the id of another run."""
    rows = _cell(records.curves, ARM, SEED)
    more = rows.tail(1).assign(update=rows["update"].max() + 2, val_loss=0.01, run_id="f" * 16)
    curves = pd.concat([records.curves, more], ignore_index=True)
    return with_last_rows(replace(records, curves=curves).in_order())


def environment_more(records: Records) -> Records:
    """A machine on which nothing was run."""
    more = records.environments.iloc[[0]].assign(run_id="f" * 16, cpu="Z80")
    return replace(records, environments=pd.concat([records.environments, more], ignore_index=True))


def without_diagnostics(records: Records) -> Records:
    """What tells how the updates of the arm went is gone."""
    return _of_arm(records, lambda rows: rows.assign(**dict.fromkeys(DIAGNOSTICS, np.nan)))


def with_reasons(records: Records) -> Records:
    """Every run says another reason for its end."""
    return replace(records, runs=records.runs.assign(reason="made by an independent laboratory"))


def without_environments(records: Records) -> Records:
    """Nothing is said of where runs were made."""
    return replace(records, environments=records.environments.iloc[:0])


def seed_left_out(records: Records) -> Records:
    """A seed of all arms is in no table any more."""
    runs = records.runs[records.runs["seed"] != SEED].reset_index(drop=True)
    is_left = records.environments["run_id"].isin(runs["run_id"])
    return replace(
        records,
        runs=runs,
        curves=records.curves[records.curves["seed"] != SEED].reset_index(drop=True),
        environments=records.environments[is_left].reset_index(drop=True),
    )


def in_spec(old: str, new: str) -> Callable[[Records], Records]:
    """Another text of the spec."""

    def change(records: Records) -> Records:
        assert old in records.spec_text, old
        return replace(records, spec_text=records.spec_text.replace(old, new))

    return change


def seed_left_out_of_spec(records: Records) -> Records:
    """The spec does not ask for it either."""
    return in_spec("count: 3", "count: 2")(seed_left_out(records))


def target_moved(records: Records) -> Records:
    """Another target was asked for, the records say."""
    (target,) = records.targets
    return replace(records, targets=(Target(metric=target.metric, below=target.below + 0.01),))


def target_moved_in_spec(records: Records) -> Records:
    """The spec says so too."""
    (target,) = records.targets
    return in_spec(f"below: {target.below}", f"below: {target.below + 0.01}")(target_moved(records))


def spec_of_run(files: Mapping[str, RunFiles], records: Records) -> Mapping[str, RunFiles]:
    """The spec of a run has another learning rate, with its sum."""
    run_id = records.runs.loc[_is_cell(records.runs, ARM, SEED), "run_id"].iloc[0]
    spec = files[run_id].spec.replace("lr: 0.5", "lr: 0.25")
    assert spec != files[run_id].spec
    sums = {**files[run_id].sha256, "spec.yaml": digest(spec.encode())}
    return {**files, run_id: RunFiles(spec=spec, sha256=sums)}


def other_sum(files: Mapping[str, RunFiles], records: Records) -> Mapping[str, RunFiles]:
    """The sum of a status.json is another."""
    run_id = records.runs.loc[_is_cell(records.runs, ARM, SEED), "run_id"].iloc[0]
    sums = {**files[run_id].sha256, "status.json": digest(b"another")}
    return {**files, run_id: RunFiles(spec=files[run_id].spec, sha256=sums)}


def elsewhere(name: str, value: str) -> Callable[[Records], Records]:
    """All runs were made somewhere else."""
    return lambda records: replace(
        records, environments=records.environments.assign(**{name: value})
    )


def with_last_rows(records: Records) -> Records:
    """The table of runs with the last rows of the curves."""
    last = records.curves.groupby(["arm", "seed"], sort=False).tail(1).set_index(["arm", "seed"])
    names = [n for n in records.runs if n in last and n != "run_id"]
    ends = last[names].reindex(pd.MultiIndex.from_frame(records.runs[["arm", "seed"]]))
    return replace(records, runs=records.runs.assign(**{n: ends[n].to_numpy() for n in names}))


def _of_arm(records: Records, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Records:
    is_arm = records.curves["arm"] == ARM
    parts = [records.curves[~is_arm], change(records.curves[is_arm])]
    return with_last_rows(replace(records, curves=pd.concat(parts, ignore_index=True)).in_order())


def _is_cell(table: pd.DataFrame, arm: str, seed: int) -> np.ndarray[Any, Any]:
    return ((table["arm"] == arm) & (table["seed"] == seed)).to_numpy()


def _cell(table: pd.DataFrame, arm: str, seed: int) -> pd.DataFrame:
    return table[_is_cell(table, arm, seed)]


_HEAD, _IN_FIGURE, _PATH = r"<h2>Verdicts</h2>", r"</svg>", r'(<path d="M \d+)'
_OTHER = "which names another matplotlib"
TWINS = Comparison(name="made up", candidate=ARM, baseline="full_hf")
TUNED = Tuned(
    study="studies/none",
    objective="updates_to_target",
    seeds=(1000,),
    arms={ARM: ArmTuning(how="tuned", trials=99, best=2.0, low=2.0, high=4.0)},
)

FORGERIES = (
    Forgery("a verdict on the page", of_page(r"→ [^<]+</p>", "→ better</p>"), ALL),
    Forgery("a number on the page", of_page(r'(<td class="n">)(\d)', r"\g<1>9\2"), ALL),
    Forgery("a row of a run, taken out of the page", of_page(r'<tr id="run-.*?</tr>\n', ""), ALL),
    Forgery("a script in the page", of_page(_HEAD, r"\g<0><script>1</script>"), ALL),
    Forgery("the page's policy, taken out", of_page(r"<meta http-equiv[^\n]*\n", ""), ALL),
    Forgery("a line of a figure", of_page(_PATH, r"\g<1>1"), ALL),
    Forgery(f"a line of a figure in a report {_OTHER}", drawn_elsewhere(_PATH, r"\g<1>1"), NOBODY),
    Forgery(f"a script in a figure {_OTHER}",
            drawn_elsewhere(_IN_FIGURE, r"<script>1</script>\g<0>"), ALL),
    Forgery(f"a style in a figure {_OTHER}",
            drawn_elsewhere(_IN_FIGURE, r"<style>#verdicts{display:none}</style>\g<0>"), ALL),
    Forgery(f"words over a figure {_OTHER}",
            drawn_elsewhere(_IN_FIGURE, r'<text x="9" y="9">better</text>\g<0>'), ALL),
    Forgery(f"a link out of a figure {_OTHER}",
            drawn_elsewhere(_IN_FIGURE, r'<use xlink:href="https://example.org/#a"/>\g<0>'), ALL),
    Forgery("all losses of an arm", of_records(losses_scaled), AGAIN),
    Forgery("all losses of an arm, its runs taken out of the list of files", without_their_files,
            ALL),
    Forgery("one loss of one evaluation", of_records(one_loss), AGAIN),
    Forgery("a run with the curve of another seed", of_records(another_seed), AGAIN),
    Forgery("every second evaluation of an arm, taken out", of_records(fewer_evaluations), ALL),
    Forgery("damping in the curves of an arm", of_records(column_scaled("damping", 2.0)), AGAIN),
    Forgery("seconds in the curves of an arm", of_records(column_scaled("seconds", 0.5)), FOLDER),
    Forgery("a run that is done, its curve cut short", of_records(cut_short), ALL),
    Forgery("a run that is done, said to have diverged at a finite loss",
            ended_as("diverged", "val_loss is nan at update 6", curve=True), ALL),
    Forgery("a run that is done, said to have diverged in an update",
            ended_as("diverged", "norm of the gradient is inf at update 7", curve=True), AGAIN),
    Forgery("a run that is done, said to have failed",
            ended_as("error", "RuntimeError: none"), AGAIN),
    Forgery("a run that is done, said to have run out of memory", ended_as("oom", "no memory"),
            FOLDER),
    Forgery("a run that is done, said to have run out of time", ended_as("timeout", "too long"),
            FOLDER),
    Forgery("a run that is done, said not to have been made yet", never_run(None, "not run yet"),
            FOLDER),
    Forgery("a run that is done, said to be torn", never_run(None, "torn: curve.parquet: cut"),
            FOLDER),
    Forgery("a run that is done, said to be skipped by the plan",
            never_run("skipped", "more than safety.gradient_equivalents"), AGAIN),
    Forgery("a run that is done, with a status that no run has",
            ended_as("withdrawn", "by its author"), ALL),
    Forgery("an evaluation behind a curve, as if of another run", of_records(another_run_behind),
            ALL),
    Forgery("diagnostics in the curves of an arm, taken out", of_records(without_diagnostics),
            FOLDER),
    Forgery("why runs ended, in words", of_records(with_reasons), FOLDER),
    Forgery("a seed, taken out of the tables", of_records(seed_left_out), AGAIN),
    Forgery("a seed, taken out of the tables and of the spec", of_records(seed_left_out_of_spec),
            FOLDER),
    Forgery("a target that is easier to reach, not in the spec", of_records(target_moved), AGAIN),
    Forgery("a target that is easier to reach, in the spec too",
            of_records(target_moved_in_spec), FOLDER),
    Forgery("figures, taken out and not in the spec", other_field(figures=()), AGAIN),
    Forgery("`safety.seconds`, not in the spec", other_field(safety_seconds=7.0), AGAIN),
    Forgery("a comparison that is said to be of equal arms", other_field(twins=(TWINS,)), AGAIN),
    Forgery("values of the grid", other_field(values={ARM: {"batch.gradient": "50"}}), AGAIN),
    Forgery("tuning by a study that the spec does not name", other_field(tuning=TUNED), AGAIN),
    Forgery("a comment in the spec", of_records(in_spec("name: small", "name: small  # audited")),
            FOLDER),
    Forgery("a learning rate in the spec", of_records(in_spec("lr: 0.5", "lr: 0.4")), AGAIN),
    Forgery("a learning rate in the spec of a run, its sum made anew", of_files(spec_of_run),
            AGAIN),
    Forgery("the processor of all runs", of_records(elsewhere("cpu", "Z80")), FOLDER),
    Forgery("the commit of all runs", of_records(elsewhere("commit", "0" * 40)), FOLDER),
    Forgery("where all runs were made, taken out", of_records(without_environments), FOLDER),
    Forgery("the machine of a run that is none", of_records(environment_more), ALL),
    Forgery("the sum of a file", of_files(other_sum), FOLDER),
)  # fmt: skip


def table() -> list[str]:
    """The rows of docs/verify.md."""
    return [
        f"| {forgery.what} | "
        + " | ".join("found" if mode in forgery.found_by else "–" for mode in MODES)
        + " |"
        for forgery in FORGERIES
    ]
