"""Specs from several texts: included files, and settings of the command line."""

import re

import pytest

from bdhf.experiments.errors import SpecError
from bdhf.experiments.plan.expand import expand
from bdhf.experiments.spec.compose import merged, read_spec
from bdhf.experiments.spec.load import load_spec, variants
from bdhf.experiments.spec.yaml_source import parse
from tests.experiments.specs import SMALL, planned
from tests.messages import naming


@pytest.fixture
def base(tmp_path):
    """The small spec as a file that others include."""
    (tmp_path / "base.yaml").write_text(SMALL)
    return tmp_path


def over(folder, text, *settings):
    """A spec with this text in the folder of the base, loaded."""
    (folder / "over.yaml").write_text(text)
    return load_spec(folder / "over.yaml", settings)


def faults(folder, text, *settings):
    """The lines of the error, without the folder."""
    with pytest.raises(SpecError) as caught:
        over(folder, text, *settings)
    return [line.replace(f"{folder}/", "") for line in caught.value.lines]


MERGED = {
    "keys": ({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
    "lists": ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    "another type": (
        {"problem": {"type": "mlp", "hidden": [3]}},
        {"problem": {"type": "resnet"}},
        {"problem": {"type": "resnet"}},
    ),
    "the same type": (
        {"arms": {"x": {"type": "block_hf", "lr": 1}}},
        {"arms": {"x": {"lr": 2}}},
        {"arms": {"x": {"type": "block_hf", "lr": 2}}},
    ),
    "a part by its name": (
        {"arms": {"x": {"solver": "cg"}}},
        {"arms": {"x": {"solver": {"max_iters": 3}}}},
        {"arms": {"x": {"solver": {"type": "cg", "max_iters": 3}}}},
    ),
    "the budget": ({"budget": {"updates": 3}}, {"budget": {"epochs": 1.5}},
                   {"budget": {"epochs": 1.5}}),
    "an arm taken out": ({"arms": {"x": 1, "y": 2}}, {"arms": {"x": None}}, {"arms": {"y": 2}}),
    "a key taken out": ({"grid": 1, "a": 2}, {"grid": None}, {"a": 2}),
    "null elsewhere": (
        {"safety": {"seconds": 3}},
        {"safety": {"seconds": None}},
        {"safety": {"seconds": None}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MERGED)
def test_mappings_merge_by_key_and_all_else_is_taken_whole(case):
    """The upper text wins, and parts of another type do not mix."""
    base, upper, expected = MERGED[case]

    assert merged(base, upper, ()) == expected


def test_an_included_spec_is_the_spec_written_out(base):
    """Ids and comparisons are those of one file with the same content."""
    composed, source = over(base, "include: base.yaml\nbudget: {updates: 9}\narms: {adam: null}\n")

    plan = expand(composed)

    written = planned(
        ("updates: 6", "updates: 9"), ("  adam: {type: torch.Adam, lr: 3.0e-3}\n", "")
    )
    assert [c.run_id for c in plan.cells] == [c.run_id for c in written.cells]
    assert plan.comparisons == written.comparisons
    assert [c.run_id for c in expand(variants(parse(source.text))).cells] == [
        c.run_id for c in plan.cells
    ]


def test_a_later_file_of_a_list_wins(base):
    """Files are merged in their order, then the spec itself."""
    (base / "seeds.yaml").write_text("seeds: {count: 3}\nname: seeds\n")

    composed, _ = over(base, "include: [base.yaml, seeds.yaml]\nname: top\n")

    assert (composed[0].spec.seeds.count, composed[0].spec.name) == (3, "top")


def test_includes_are_relative_to_the_file_that_says_them(base):
    """A file in a folder includes its neighbour; that may include another."""
    (base / "inner").mkdir()
    (base / "inner" / "middle.yaml").write_text("include: ../base.yaml\nname: middle\n")

    composed, source = over(base, "include: inner/middle.yaml\n")

    assert composed[0].spec.name == "middle"
    assert source.file == str(base / "over.yaml")


def test_settings_win_over_every_file(base):
    """The command line sets the value at a path, also in a list."""
    composed, source = over(
        base, "include: base.yaml\n", "arms.block_hf.lr=0.3", "targets.0.below=5e-2",
        "arms.full_hf.solver=cg", "arms.adam=null", "safety.seconds=7",
    )  # fmt: skip
    spec = composed[0].spec

    assert spec.arms["block_hf"]["lr"] == 0.3
    assert spec.targets[0].below == 0.05
    assert spec.arms["full_hf"]["solver"]["max_iters"] == 30
    assert list(spec.arms) == ["full_hf", "block_hf"]
    assert spec.safety.seconds == 7
    assert "# --set arms.block_hf.lr=0.3" in source.text


def test_a_fault_is_reported_where_its_value_is(base):
    """In the file, the included file, or on the command line; all are reported at once."""
    text = "include: base.yaml\narms: {adam: {lr: -1}}\nseedz: 3\n"

    lines = faults(base, text, "arms.full_hf.partition=ful")
    assert lines[0].startswith("over.yaml:2:19: arms.adam.lr: torch.Adam ")
    assert lines[1].startswith("over.yaml:3:1: seedz: ")
    assert lines[2].startswith("--set arms.full_hf.partition=ful: arms.full_hf.partition: ")
    assert all(name in line for name, line in zip(("-1", "'seedz'", "'ful'"), lines, strict=True))
    (base / "base.yaml").write_text(SMALL.replace("count: 2", "count: two"))
    assert faults(base, "include: base.yaml\n")[0].startswith("base.yaml:10:16: seeds.count: ")


#: A setting -> how its line begins, and what the line names.
SETTINGS = {
    "no value": ("arms.adam.lr", ": ", ("arms.block_hf.lr=0.3",)),
    "no path": ("=3", ": ", ("arms.block_hf.lr=0.3",)),
    "an arm": ("arms.adm.lr=3", ": ", ("'adm'", "adam", "full_hf", "block_hf")),
    "all arms": ("arms=null", ": ", ("arms.adam",)),
    "into nothing": ("arms.adam.x.y=3", ": ", ("arms.adam.x", "`type`")),
    "beyond a list": ("targets.1.below=3", ": ", ("targets", 1, 0)),
    "no YAML": ("name=[", ":1:", ()),
    "NaN": ("arms.adam.lr=.nan", ": arms.adam.lr: ", ("nan",)),
    "unknown key": ("sead=3", ": sead: ", ("'sead'", "'seeds'")),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_that_leads_nowhere_says_so(base, setting):
    """The line names the setting, not a position in a file."""
    text, start, names = SETTINGS[setting]

    line = faults(base, "include: base.yaml\n", text)[0]

    assert line.startswith(f"--set {text}{start}")
    assert re.match(naming(*names), line.removeprefix(f"--set {text}"))


INCLUDES = {
    "missing": ("include: gone.yaml", "over.yaml:1:10: include: ", "gone.yaml"),
    "itself": ("include: over.yaml", "over.yaml:1:10: include: ", "over.yaml"),
    "a number": ("include: 3", "over.yaml:1:10: include: ", "3"),
    "no mapping": ("include: [list.yaml]", "over.yaml:1:11: include.0: ", "list.yaml"),
    "malformed": ("include: bad.yaml", "bad.yaml:2:1: ", "YAML"),
}


@pytest.mark.parametrize("include", INCLUDES)
def test_an_include_that_cannot_be_read_says_where(base, include):
    """The position is that of the include, or that in the malformed file."""
    (base / "list.yaml").write_text("- 1\n")
    (base / "bad.yaml").write_text("a: [1,\n")
    text, start, name = INCLUDES[include]

    line = faults(base, text)[0]

    assert line.startswith(start)
    assert re.match(naming(name), line.removeprefix(start))


def test_one_file_alone_is_kept_as_it_is_written(base):
    """The results folder keeps comments and order of a spec without includes."""
    assert read_spec(base / "base.yaml").text == SMALL


def test_a_file_that_two_others_include_counts_once(base):
    """The second one does not reset what the first one sets on the same base."""
    (base / "fast.yaml").write_text("include: base.yaml\nseeds: {count: 3}\n")
    (base / "slow.yaml").write_text("include: base.yaml\nthreads: 2\n")

    composed, _ = over(base, "include: [fast.yaml, slow.yaml]\n")

    assert (composed[0].spec.seeds.count, composed[0].spec.threads) == (3, 2)


def test_a_setting_of_many_lines_is_kept_as_a_comment(base):
    """The composed text is YAML for any setting."""
    composed, source = over(
        base, "include: base.yaml\n", "targets=\n- {metric: val_loss, below: 0.5}"
    )

    assert variants(parse(source.text))[0].spec == composed[0].spec
