"""Untrusted text never acts on a terminal: each command shows it within its own lines."""

import dataclasses
import io
import json
import re
import unicodedata

import pandas as pd
import pytest
from typer.testing import CliRunner

from bdhf.cli import app
from bdhf.cli.console import PlainConsole
from bdhf.experiments.observers.progress import watching
from bdhf.records import Status, write_atomically, write_table
from bdhf.text.printable import SIGN, on_a_line
from tests.experiments.specs import changed, planned
from tests.experiments.synthetic import begun, claim, resealed, write
from tests.messages import naming
from tests.report.synthetic_held_out import save_study
from tests.report.synthetic_study import synthetic_study

#: Harmless sequences: a colour, a C1 control, a direction of writing, a return, a forged line.
ODD = "x\x1b[35m\x9b35m\u202e\rA\nall agree"
IN_YAML = r'"x\e[35m\x9b35m\u202e\rA\nall agree"'
NAMED = ("name: block vs full", f"name: {IN_YAML}")
NO_FIGURES = ("seeds: {count: 2}", "report: {figures: []}\nseeds: {count: 2}")

#: What this test is about has no sign in the fonts of figures.
pytestmark = pytest.mark.filterwarnings("ignore:Glyph")


def printed(*arguments, codes=(0,)):
    """The output of a command, without a traceback, control characters or forged lines."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code in codes, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    assert_plain(done.output)
    return done.output


def assert_plain(text):
    """No control character but line breaks, and no forged line."""
    hidden = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")} - {"\n", "\t"}
    assert not hidden
    assert not [line for line in text.splitlines() if line.startswith("all agree")]


def relabel(folder, arm, label):
    """Give an arm another label in the plan, as the folder of somebody else may have it."""
    content = json.loads((folder / "plan.json").read_text())
    index = json.loads(json.dumps(content).replace(f'"{arm}"', json.dumps(label)))
    read = pd.read_parquet(folder / "plan.parquet")
    write_atomically(folder / "plan.json", json.dumps(index).encode())
    write_table(folder / "plan.parquet", read.assign(arm=read["arm"].replace(arm, label)))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A folder whose names, reasons, hosts and tracebacks are odd; and its cells."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(changed(NAMED, NO_FIGURES))
    store, cells = begun(tmp_path / "small", NAMED, NO_FIGURES)
    relabel(store.folder, "full_hf", ODD)
    run = write(store, cells[0], Status.ERROR, trace=f"Traceback\n  {ODD}\n")
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"reason": ODD}))
    (run / "env.json").write_text(json.dumps({"host": ODD, ODD: "x"}))
    resealed(run)
    write(store, cells[2])
    torn = write(store, cells[1])
    (torn / "status.json").write_text(json.dumps({"status": ODD}))
    content = {"host": ODD, "pid": 7, "started": 17.0, "made": 1.5}
    claim(store, cells[3], json.dumps(content))
    return store, cells, run


@pytest.mark.parametrize(
    "command",
    [("plan", "spec.yaml"), ("plan", "spec.yaml", "--out", "small", "--cost"),
     ("status", "small"), ("status", "small", "--json"), ("compare", "small"),
     ("compare", "small", "--json"), ("report", "small"),
     ("clean", "small", "--failed", "--dry-run"), ("clean", "small", "--failed"), ("list",),
     ("list", "--compatibility"), ("schema",)],
    ids=" ".join,
)  # fmt: skip
def test_what_a_folder_says_is_shown_and_does_nothing(made, command):
    """Names of arms and comparisons, reasons, owners of claims."""
    said = printed(*command)

    is_shown = command[0] in ("plan", "status", "clean") and "--json" not in command
    assert f"x{SIGN}[35m" in said or not is_shown


def test_a_run_is_shown_line_by_line(made):
    """Its traceback keeps its lines; a key and a value are one line each."""
    _, _, run = made

    said = printed("show", run)

    assert f"  x{SIGN}[35m" in said
    assert "\nreason " not in said
    assert "\n  reason " in said
    assert "Traceback\n    x" in said


def test_a_table_for_a_paper_keeps_its_lines(made, monkeypatch):
    """Whatever the text contains."""
    monkeypatch.setattr("bdhf.stats.text.latex.to_latex", lambda results, more: "a \x1b[35m\n\tb\n")

    assert printed("compare", "small", "--latex") == f"a {SIGN}[35m\n\tb\n"


def test_errors_are_lines(made):
    """One line for each fault of a spec, a folder or a study."""
    spec = changed(NAMED, ("lr: 3.0e-3", f"lr: 3.0e-3, {IN_YAML}: 1"))
    made[0].folder.parent.joinpath("odd.yaml").write_text(spec)
    study = f"schema: 1\nname: s\nablation: spec.yaml\nspaces: {{{IN_YAML}: {{lr: {IN_YAML}}}}}\n"
    made[0].folder.parent.joinpath("study.yaml").write_text(
        f"{study}trials: 2\nseeds: {{count: 2}}"
    )

    for command in (("plan", "odd.yaml"), ("run", "odd.yaml"), ("tune", "study.yaml"),
                    ("plan", "spec.yaml", "--only", ODD), ("status", ODD), ("show", ODD),
                    ("report", ODD), ("verify", ODD), ("clean", ODD, "--failed")):  # fmt: skip
        assert len(printed(*command, codes=(2,)).splitlines()) >= 1, command


@pytest.mark.slow
def test_a_study_is_reported_in_plain_lines(tmp_path):
    """Its name, its arms and its results."""
    records = synthetic_study()
    study = records.study.model_copy(
        update={
            "name": ODD,
            "arms": tuple(
                arm.model_copy(update={"label": arm.label + ODD}) for arm in records.study.arms
            ),
            "comparisons": (),
        }
    )
    tables = {
        name: getattr(records, name).assign(arm=lambda t: t["arm"] + ODD)
        for name in ("trials", "parameters", "seeds", "curves")
    }
    save_study(dataclasses.replace(records, study=study, **tables), tmp_path / "study")

    assert SIGN in printed("report", tmp_path / "study")


def test_a_line_of_a_page_that_somebody_sent_is_one_line(made):
    """`verify` shows it within its own line, and it cannot look like a verdict."""
    printed("report", "small")
    page = made[0].folder / "report.html"
    page.write_text(page.read_text().replace("<h1>small", "<h1>\x1b[1A\x1b[2K\u2028all agree"))

    said = printed("verify", page, codes=(1,))

    assert f"<h1>{SIGN}[1A" in said
    assert re.search(naming("1 line"), said.splitlines()[-1])


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_plain(is_terminal):
    """Labels and reasons of runs, as bars and as lines; brackets are not read as markup."""
    cells = planned().cells
    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=is_terminal, color_system=None, width=200)
    label = f"{ODD}[/bold]:bomb:"

    with watching({cells[0].run_id: label}, 1, console) as observer:
        observer.started(cells[0].run)
        observer.evaluated(cells[0].run, {"update": 1.0, "val_loss": 0.5})
        observer.finished(cells[0].run, "error", label)

    shown = f"{on_a_line(ODD)}[/bold]:bomb:: error ({on_a_line(ODD)}[/bold]:bomb:)"
    assert shown in file.getvalue()
    assert "\x1b[35m" not in file.getvalue()
    assert "\x9b" not in file.getvalue()
    assert "\nall agree" not in file.getvalue()


def test_own_texts_keep_their_lines_and_other_alphabets_their_letters():
    """Other characters are unchanged."""
    file = io.StringIO()
    console = PlainConsole(file=file, width=20)

    console.print("λ ≤ 0.1 é 中 \N{NO-BREAK SPACE}x", markup=False)
    console.print("[bold]a[/bold]")

    assert file.getvalue() == "λ ≤ 0.1 é 中 \N{NO-BREAK SPACE}x\na\n"
