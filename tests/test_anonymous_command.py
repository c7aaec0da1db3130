"""`bdhf report --anonymous`, and `bdhf verify` of its page, on real runs."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from bdhf.cli import app
from bdhf.experiments.run.execute import execute
from bdhf.experiments.run.provenance import run_environment
from bdhf.experiments.spec.schema import Safety
from bdhf.records import Status, collect
from bdhf.report.ablation.build import ANONYMOUS_PAGE, built_report
from bdhf.report.embedded.anonymous import LEFT_OUT
from bdhf.report.embedded.encoding import decode, encode
from bdhf.report.verify.verify import block_of
from tests.experiments.synthetic import begun, resealed
from tests.report.identifying import IDENTIFYING, PLACES, TRACE, unpacked

pytestmark = pytest.mark.slow

CHANGES = (
    ("schema: 1", "# of Ada Lovelace, /home/lovelace\nschema: 1  # on turing-7"),
    ("{type: autoencoder, encoder: [784, 12, 4]}", "{type: mlp, hidden: [8]}"),
    ('{type: groups, blocks: [["encoder.*"], ["decoder.*"]]}', "per_layer"),
    ("torch.Adam,", "tests.failing:Failing,"),
    ("count: 2", "count: 1"),
    ("compare:", "report: {figures: [forest]}\ncompare:"),
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two runs that are done and one with an error, on two machines, with names of a person."""
    folder = tmp_path_factory.mktemp("named") / "results"
    store, cells = begun(folder, *CHANGES)
    for i, cell in enumerate(cells):
        made = execute(cell.run, device="cpu", safety=Safety(seconds=600))
        if made.status == Status.ERROR:
            made = replace(made, reason=TRACE)
        there = {name: values[i % 2] for name, values in PLACES.items()}
        store.write(cell.run, made, {**run_environment("cpu", 1), **there}, {"wall_seconds": 1.0})
    collect(folder)
    assert CliRunner().invoke(app, ["report", str(folder)]).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def page(results):
    """The anonymous page, by the command."""
    before = (results / "report.html").read_bytes()
    done = CliRunner().invoke(app, ["report", str(results), "--anonymous"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == f"report: {results / ANONYMOUS_PAGE}"
    assert (results / "report.html").read_bytes() == before
    return results / ANONYMOUS_PAGE


def verified(*arguments):
    """Run `bdhf verify`."""
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def test_neither_the_page_nor_what_it_carries_names_a_place_or_a_person(results, page):
    """No identifying string is in it; the other page has all of them."""
    open_page = (results / "report.html").read_text(encoding="utf-8")
    html = page.read_text(encoding="utf-8")

    for text in (html, unpacked(html)):
        assert [word for word in IDENTIFYING if word in text.lower()] == []
    assert [word for word in IDENTIFYING if word in open_page.lower()] == list(IDENTIFYING)


def test_it_agrees_in_every_mode_and_says_what_was_left_out(results, page):
    """Its page, its folder, and every run repeated, also the one with the error."""
    done = verified(page, "--rerun", 9, "--seed", 1, "--against", results)

    lines = done.output.splitlines()
    assert done.exit_code == 0, done.output
    assert lines[0].startswith("anonymous: ")
    assert LEFT_OUT in lines[0]
    assert sum(line.endswith(": the same bits") for line in lines) == 3
    assert any("6 files of " in line and line.endswith("all agree") for line in lines)


def test_another_machine_or_another_loss_is_found_in_it(results, page, tmp_path):
    """Letters are compared, and curves to the last bit."""
    html = page.read_text(encoding="utf-8")
    honest = decode(block_of(html, "page"))
    changes = {
        "env.json: ": replace(
            honest.records, environments=honest.records.environments.assign(host="machine A")
        ),
        "val_loss": replace(
            honest.records,
            curves=honest.records.curves.assign(val_loss=honest.records.curves["val_loss"] * 2),
            runs=honest.records.runs.assign(val_loss=honest.records.runs["val_loss"] * 2),
        ),
    }
    for told, records in changes.items():
        block = encode(records, honest.files, anonymous=True)
        path = tmp_path / "forged.html"
        path.write_text(built_report(records, block, anonymous=True).report.html, encoding="utf-8")

        assert verified(path).exit_code == 0
        done = verified(path, "--against", results)
        assert done.exit_code == 1
        assert told in done.output


def test_what_was_left_out_explains_nothing_by_its_letter(page, tmp_path):
    """A run that differs is reported with the parts that cannot be compared, but no letter."""
    html = page.read_text(encoding="utf-8")
    honest = decode(block_of(html, "page"))
    curves = honest.records.curves.assign(grad_norm=honest.records.curves["grad_norm"] * 2)
    records = replace(honest.records, curves=curves)
    block = encode(records, honest.files, anonymous=True)
    path = tmp_path / "forged.html"
    path.write_text(built_report(records, block, anonymous=True).report.html, encoding="utf-8")

    done = verified(path, "--rerun", 9)

    assert done.exit_code == 1
    why = [line for line in done.output.splitlines() if line.startswith("  ")]
    assert why
    assert all("commit" in line for line in why)
    assert not any("processor A" in line or "machine" in line for line in why)


def test_a_spec_with_a_path_of_a_run_is_one_line(tmp_path):
    """Exit code 2, and no page is written."""
    store, cells = begun(tmp_path / "r", *CHANGES)
    made = execute(cells[0].run, device="cpu", safety=Safety(seconds=600))
    store.write(cells[0].run, made, run_environment("cpu", 1), {"wall_seconds": 1.0})
    spec = store.runs / cells[0].run_id / "spec.yaml"
    spec.write_text(spec.read_text() + "folder: /home/lovelace/cards\n")
    resealed(spec.parent)

    done = CliRunner().invoke(app, ["report", str(tmp_path / "r"), "--anonymous"])

    assert done.exit_code == 2
    assert "/home/lovelace/cards" in done.output
    assert not (tmp_path / "r" / ANONYMOUS_PAGE).exists()
