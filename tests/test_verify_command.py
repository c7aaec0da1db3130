"""`bdhf verify` on the report of a real ablation, as a reviewer uses it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from bdhf.cli import app
from bdhf.records import load
from bdhf.report import build
from tests.commands import bdhf
from tests.experiments.specs import changed
from tests.experiments.synthetic import resealed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The small ablation with a run that diverges, and its report."""
    folder = tmp_path_factory.mktemp("verify")
    spec = changed(("count: 2", "count: 1"), ("torch.Adam, lr: 3.0e-3", "torch.SGD, lr: 1.0e+30"))
    (folder / "spec.yaml").write_text(spec)
    command = [sys.executable, "-m", "bdhf.cli", "run", "spec.yaml", "--out", "results"]
    subprocess.run([*command, "--workers", "1"], cwd=folder, check=True, timeout=300)
    return folder / "results"


@pytest.fixture
def results(finished, tmp_path, monkeypatch):
    """A copy of the results, in the working directory."""
    shutil.copytree(finished, tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return Path("results")


def verified(*arguments, code):
    """Run `bdhf verify`; its lines."""
    return bdhf("verify", *arguments, code=code)


def edit(path, old, new):
    """Change a piece of a file."""
    text = path.read_text(encoding="utf-8")
    assert re.search(old, text), old
    path.write_text(re.sub(old, new, text, count=1), encoding="utf-8")


def test_an_honest_report_agrees_in_everything(results):
    """Its page, its results folder, and every run repeated."""
    page = results / "report.html"

    done = verified(page, "--rerun", 9, "--seed", 5, "--against", results, code=0)

    first, second, third, *runs = done.stdout.splitlines()
    assert re.fullmatch(r"\d\d+ numbers of 3 runs and \d+ figures recomputed: all agree", first)
    assert second.startswith(f"12 files of {results} ")
    assert second.endswith(": all agree")
    assert third.startswith("drawn with --seed 5: ")
    assert len(runs) == 3
    assert all(line.endswith(": the same bits") for line in runs)
    assert sum(", diverged: " in line for line in runs) == 1


def test_a_page_that_was_mailed_needs_no_folder(results, tmp_path):
    """The file has everything that is needed; the same seed repeats the same run."""
    (tmp_path / "mail").mkdir()
    page = shutil.copy(results / "report.html", tmp_path / "mail" / "attachment.html")
    shutil.rmtree(results)

    first = verified(page, "--rerun", 1, code=0).stdout.splitlines()
    seed = first[1].split(":")[0].rpartition(" ")[2]
    second = verified(page, "--rerun", 1, "--seed", seed, code=0).stdout.splitlines()

    assert first == second


def test_a_changed_number_is_reported_with_its_line_and_exit_code_1(results):
    """The text of the file, and that of its records."""
    page = results / "report.html"
    edit(page, r"<h1>small</h1>", "<h1>large</h1>")

    lines = verified(page, code=1).stdout.splitlines()

    number = page.read_text().split("\n").index("<h1>large</h1>") + 1
    assert lines[0].startswith(f"{page}:{number}: ")
    assert all(side in lines[0] for side in ("`<h1>large</h1>`", "`<h1>small</h1>`"))
    assert lines[-1].endswith(": 1 line")


def test_as_json_it_is_all_there(results):
    """For a script that audits many reports."""
    page = results / "report.html"
    edit(page, r'<path d="M \d+', '<path d="M 1')

    content = json.loads(
        verified(page, "--json", "--rerun", 1, "--against", results, code=1).stdout
    )

    assert content["agrees"] is False
    assert content["page_agrees"] is False
    assert len(content["drawings"]) == 1
    assert content["differing_lines"] == 0
    assert content["against"] == {"files": 12, "differences": []}
    assert content["rerun"]["plan"] == []
    assert content["rerun"]["runs"][0]["differences"] == []


def test_changed_records_are_one_line_and_exit_code_2(results):
    """On stderr; nothing is computed from these records."""
    page = results / "report.html"
    edit(page, r'(id="records">\n.*\n.{100})..', r"\1zz")

    done = verified(page, code=2)

    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"{page}: ")


def test_a_seed_without_runs_to_draw_is_a_mistake(results):
    """It would have no effect."""
    assert "--rerun" in verified(results / "report.html", "--seed", 3, code=2).output


def forged(results, change):
    """Change the curve of a run in the folder, and build the report, which agrees with itself."""
    runs = load(results).runs.set_index("arm")
    home = results / "runs" / runs["run_id"]["block_hf"]
    curve = pd.read_parquet(home / "curve.parquet")
    change(curve)
    curve.to_parquet(home / "curve.parquet", index=False)
    resealed(home)
    done = CliRunner().invoke(app, ["report", str(results)])
    assert done.exit_code == 0, done.output
    return results / "report.html", home.name


def test_a_run_that_was_made_up_is_caught_by_making_it_again(results):
    """Its page follows from its records, but its records from no run."""

    def better(curve):
        curve["val_loss"] *= 0.5

    page, run_id = forged(results, better)

    assert "all agree" in verified(page, "--against", results, code=0).stdout
    lines = verified(page, "--rerun", 3, code=1).stdout.splitlines()
    assert f"{run_id} (block_hf seed 0): evaluation 0 (update 0), val_loss: " in "\n".join(lines)
    assert sum(line.startswith("  ") for line in lines) == 1  # the possible causes
    assert sum(line.endswith(": the same bits") for line in lines) == 2
    assert sum(line.endswith(": differs") for line in lines) == 1


def test_files_that_changed_since_are_named(results):
    """Another curve, a lost environment, another spec, a run that ended otherwise."""
    page = results / "report.html"
    runs = load(results).runs.set_index("arm")["run_id"]
    homes = {arm: results / "runs" / run_id for arm, run_id in runs.items()}
    curve = pd.read_parquet(homes["full_hf"] / "curve.parquet")
    curve.loc[1, "val_loss"] = 0.25
    curve.to_parquet(homes["full_hf"] / "curve.parquet", index=False)
    (homes["full_hf"] / "env.json").unlink()
    edit(homes["adam"] / "status.json", '"diverged"', '"error"')
    edit(results / "spec.yaml", "name: small", "name: tiny")

    lines = verified(page, "--against", results, code=1).stdout.splitlines()[1:]
    told = [line.removeprefix(f"{results}: ") for line in lines]

    differences = (
        ("spec.yaml", "name", "'small'", "'tiny'"),
        ("spec.yaml", "spec_text"),
        (runs["adam"], "adam seed 0", "'diverged'"),
        (f"runs/{runs['adam']}/status.json",),
        (f"runs/{runs['full_hf']}/env.json",),
        (f"runs/{runs['full_hf']}/curve.parquet",),
        ("val_loss", "evaluation 1", "0.25"),
    )
    for facts in differences:
        assert any(all(fact in line for fact in facts) for line in told), facts
    assert told[-1].endswith(f": {len(differences)} differences")


def test_a_report_is_held_against_what_a_folder_holds_and_not_only_against_its_sums(results):
    """Changed numbers with unchanged sums are found too."""
    from bdhf.report.ablation.build import built_report
    from bdhf.report.embedded.encoding import decode, encode
    from bdhf.report.verify.verify import block_of

    page = results / "report.html"
    carried = decode(block_of(page.read_text(encoding="utf-8"), "page"))
    carried.records.curves["test_loss"] *= 2
    carried.records.runs["test_loss"] *= 2
    carried.records.environments["cpu"] = "Z80"
    block = encode(carried.records, carried.files)
    page.write_text(built_report(decode(block).records, block).report.html, encoding="utf-8")

    told = verified(page, "--against", results, code=1).stdout

    assert "test_loss of evaluation 0 " in told
    assert "env.json: " in told
    assert "curve.parquet: " not in told


def test_a_folder_of_something_else_is_exit_code_2(results, tmp_path):
    """It is no ablation."""
    assert "spec.yaml" in verified(results / "report.html", "--against", tmp_path, code=2).stderr


def test_building_twice_gives_the_same_bytes(results):
    """Also with the records in it."""
    build(results)
    before = (results / "report.html").read_bytes()
    build(results)

    assert (results / "report.html").read_bytes() == before


def test_the_records_of_a_page_can_be_read_without_bdhf(results, monkeypatch):
    """The Python of docs/verify.md gives the tables of the folder."""
    monkeypatch.chdir(results)
    text = (Path(__file__).parent.parent / "docs/verify.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names = {}

    exec(compile(block, "docs/verify.md", "exec"), names)

    for name in ("runs", "curves"):
        there = pd.read_parquet(f"{name}.parquet").sort_values("arm", kind="stable")
        there = there.reset_index(drop=True)
        pd.testing.assert_frame_equal(names[name], there, check_exact=True)
