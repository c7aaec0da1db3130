"""Limits of specs: a short file that stands for much is refused in a line, at no cost."""

import os
from pathlib import Path

import pytest

from bdhf.experiments.errors import SpecError
from bdhf.experiments.spec import size_limits
from bdhf.experiments.spec.compose import read_spec
from bdhf.experiments.spec.load import variants
from bdhf.experiments.spec.value_words import in_short
from bdhf.experiments.spec.yaml_source import parse
from bdhf.tuning.study.study import open_study
from tests.experiments.specs import SMALL, changed

PAGE = Path(__file__).parents[3] / "docs" / "specs.md"


def refused(call, *arguments):
    """The lines with which a call refuses."""
    with pytest.raises(SpecError) as caught:
        call(*arguments)
    return caught.value.lines


#: A limit that is lowered -> a text that is at it, one that is beyond it, and the line for that.
DOCUMENTS = {
    "lists": ("DEPTH", 3, "[[[1]]]", "[[[[1]]]]", "f:1:4: nested deeper than 3 levels"),
    "mappings": ("DEPTH", 2, "a: {b: 1}", "a: {b: {c: 1}}", "f:1:8: nested deeper than 2 levels"),
    "values": ("VALUES", 5, "a: [1, 2]", "a: [1, 2, 3]", "f:1:11: more than 5 values, counting"),
    "aliases": ("VALUES", 12, "a: &a [1, 2]\nb: [*a]", "a: &a [1, 2]\nb: &b [*a]\nc: *b",
                "f:3:4: more than 12 values, counting what aliases stand for"),
    "merges": ("VALUES", 14, "a: &a {x: 1}\nb: {<<: *a}", "a: &a {x: 1}\nb: {<<: *a}\nc: {<<: *a}",
               "f:3:9: more than 14 values"),
    "scalars": ("VALUES", 6, "a: &a 1\nb: *a", "a: &a 1\nb: *a\nc: *a", "f:3:4: more than 6"),
    "digits": ("DIGITS", 3, "a: 123", "a: 1234", "f:1:4: a number of more than 3 digits"),
    "signs": ("DIGITS", 3, "a: -123", "a: -1234", "f:1:4: a number of more than 3 digits"),
}  # fmt: skip


@pytest.mark.parametrize("case", DOCUMENTS)
def test_a_document_is_read_up_to_a_limit_and_no_further(case, monkeypatch):
    """The limit itself is fine; beyond it one line names file, line, column and limit."""
    limit, value, fine, beyond, told = DOCUMENTS[case]
    monkeypatch.setattr(size_limits, limit, value)

    assert parse(fine, "f").data is not None
    (line,) = refused(parse, beyond, "f")

    assert line.startswith(told)


def test_an_alias_inside_of_its_anchor_is_refused():
    """What holds itself has no end."""
    (line,) = refused(parse, "a: &a [1, *a]", "f")

    assert line == "f:1:11: *a stands inside of what it stands for"


def test_a_value_of_the_command_line_is_bounded_too(tmp_path, monkeypatch):
    """`--set` is read by the same reader."""
    (tmp_path / "spec.yaml").write_text("a: 1")
    monkeypatch.setattr(size_limits, "DEPTH", 2)

    (line,) = refused(read_spec, tmp_path / "spec.yaml", ["a=[[[1]]]"])

    assert line.startswith("--set a=[[[1]]]:1:3: nested deeper than 2 levels")


@pytest.mark.parametrize("of", ["itself", "included"])
def test_a_file_is_regular_and_of_a_stated_size(tmp_path, monkeypatch, of):
    """Of a spec itself and of what it includes; a pipe is not waited for."""
    spec, base = tmp_path / "spec.yaml", tmp_path / "base.yaml"
    spec.write_text("include: base.yaml")
    base.write_text("a: 1")
    held = spec if of == "itself" else base
    size = held.stat().st_size
    monkeypatch.setattr(size_limits, "BYTES", max(spec.stat().st_size, size))
    read_spec(spec)

    held.write_text("a: 1" + " " * size_limits.BYTES)
    (long,) = refused(read_spec, spec)
    held.unlink()
    os.mkfifo(held)
    (pipe,) = refused(read_spec, spec)
    held.unlink()
    held.mkdir()
    (folder,) = refused(read_spec, spec)

    assert f"base.yaml: longer than {size_limits.BYTES} bytes" in long.replace("spec", "base")
    assert f"{held}: no regular file" in pipe
    assert f"{held}: no regular file" in folder


@pytest.mark.parametrize("name", ["loop.yaml", '"a\\0b.yaml"', "gone.yaml", "base.yaml/x.yaml"])
def test_an_included_name_that_leads_to_no_file_is_one_line(tmp_path, name):
    """A link to itself, a name that no system takes, nothing at all, a way through a file."""
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "base.yaml").write_text("a: 1")
    (tmp_path / "spec.yaml").write_text(f"include: {name}")

    (line,) = refused(read_spec, tmp_path / "spec.yaml")

    assert line.startswith(f"{tmp_path / 'spec.yaml'}:1:10: include: ")
    assert "cannot read the spec: " in line


def test_a_spec_is_made_of_a_limited_number_of_files(tmp_path, monkeypatch):
    """Beside each other, and each by the next, told where the file too many is named."""
    monkeypatch.setattr(size_limits, "MOST_FILES", 3)
    for name, text in {"a": "x: 1", "b": "include: a.yaml", "c": "include: b.yaml"}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    read_spec(tmp_path / "c.yaml")
    (tmp_path / "deep.yaml").write_text("include: c.yaml")
    (tmp_path / "d.yaml").write_text("x: 1")
    (tmp_path / "wide.yaml").write_text("include: [a.yaml, b.yaml, d.yaml]")

    (deep,) = refused(read_spec, tmp_path / "deep.yaml")
    (wide,) = refused(read_spec, tmp_path / "wide.yaml")

    assert deep.endswith("b.yaml:1:10: include: one spec is made of at most 3 files")
    assert wide.endswith("wide.yaml:1:27: include.2: one spec is made of at most 3 files")


GRID = "grid: {batch.gradient: [100, 200, 300], batch.curvature: [10, 20]}\nseeds"

CELLS = {
    "grid": (GRID, "6 combinations × 3 arms × 2 seeds are 36 cells, and a plan has at most 35"),
    "union": (
        "grid: [{batch.gradient: [100, 200]}, {arms.adam.lr: [0.1, 0.2, 0.3]}]\nseeds",
        "5 combinations × 3 arms × 2 seeds are 30 cells, and a plan has at most 29",
    ),
    "no grid": ("seeds", "3 arms × 2 seeds are 6 cells, and a plan has at most 5"),
}


@pytest.mark.parametrize("case", CELLS)
def test_cells_are_counted_before_they_are_made(case, monkeypatch):
    """As many as the limit are planned; one more is told with its factors, and none is made."""
    keys, told = CELLS[case]
    text = changed(("seeds", keys))
    most = int(told.rpartition(" ")[2])
    monkeypatch.setattr(size_limits, "CELLS", most + 1)
    assert variants(parse(text, "f"))

    monkeypatch.setattr(size_limits, "CELLS", most)
    monkeypatch.setattr("bdhf.experiments.spec.grid.product", None)
    (line,) = refused(variants, parse(text, "f"))

    assert told in line
    assert line.startswith("f:")
    assert "leave values out" in line


def test_a_product_of_long_lists_is_counted_and_never_made():
    """300 × 299 × 299 combinations are a number in a line."""
    axes = {"batch.gradient": 300, "budget.updates": 299, "threads": 299}
    grid = ", ".join(
        f"{path}: [{', '.join(map(str, range(1, n + 1)))}]" for path, n in axes.items()
    )

    (line,) = refused(variants, parse(changed(("seeds", f"grid: {{{grid}}}\nseeds")), "f"))

    assert "26,820,300 combinations × 3 arms × 2 seeds are 160,921,800 cells" in line
    assert "at most 100,000" in line


NUMBERS = {
    "seeds": ("seeds: {count: 2}", "seeds: {count: 10001}", "seeds.count", "10000"),
    "base": ("seeds: {count: 2}", "seeds: {count: 2, base: 9007199254740992}", "seeds.base",
             "9007199254730992"),
    "threads": ("stop: at_budget", "threads: 1025", "threads", "1024"),
}  # fmt: skip


@pytest.mark.parametrize("case", NUMBERS)
def test_a_number_beyond_its_limit_is_told_with_the_limit(case):
    """At its place, with what is allowed and what was given."""
    old, new, key, most = NUMBERS[case]

    (line,) = refused(variants, parse(changed((old, new)), "f"))

    assert f" {key}: input should be less than or equal to {most}; got " in line


def test_lists_of_a_spec_have_a_stated_length():
    """Targets, and what is compared."""
    targets = ", ".join(f"{{metric: val_loss, below: 0.{n:03}}}" for n in range(1, 102))

    (line,) = refused(variants, parse(changed(("{metric: val_loss, below: 0.08}", targets)), "f"))

    assert "targets" in line
    assert "at most 100 items" in line
    assert len(line) < size_limits.LINE + 100


def test_a_study_is_bounded_by_the_same_reader(tmp_path, monkeypatch):
    """Its file, its nesting, its seeds and its trials."""
    study = tmp_path / "study.yaml"
    text = (
        "schema: 1\nname: s\nablation: spec.yaml\nspaces: {adam: {lr: {log: [1.0e-4, 0.1]}}}\n"
        "trials: 2\nseeds: {count: 1, base: 50}\n"
    )
    (tmp_path / "spec.yaml").write_text(SMALL)
    study.write_text(text)
    open_study(study)

    study.write_text(text.replace("trials: 2", "trials: 100001"))
    (trials,) = refused(open_study, study)
    study.write_text(text.replace("count: 1", "count: 10001"))
    (seeds,) = refused(open_study, study)
    monkeypatch.setattr(size_limits, "DEPTH", 3)
    study.write_text(text)
    (depth,) = refused(open_study, study)

    assert "trials: input should be less than or equal to 100000" in trials
    assert "seeds.count: input should be less than or equal to 10000" in seeds
    assert depth.startswith(f"{study}:4:")
    assert "nested deeper than 3 levels" in depth


def test_words_of_a_long_axis_are_those_of_a_short_one():
    """A value that repeats in words is numbered."""
    values = [{"type": "cg", "tol": 0.1}, "cg", "x" * 50, "x" * 51, "x" * 52]

    assert in_short(values)[:2] == ["cg(tol=0.1)", "cg"]
    assert [words[-2:] for words in in_short(values)[3:]] == ["#2", "#3"]


@pytest.mark.parametrize("number", ["BYTES", "VALUES", "CELLS"])
def test_the_page_states_the_limits(number):
    """docs/specs.md has the numbers of the code."""
    assert f"{getattr(size_limits, number):,}" in PAGE.read_text(encoding="utf-8")
