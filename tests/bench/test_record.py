"""asv is called with the right settings, and a run that left no number is no success."""

import json
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bdhf.bench import record
from bdhf.cli import app
from bdhf.records import InputError
from tests.bench.clones import ROOT
from tests.bench.made_up import Repository

CONFIG = {
    "version": 1, "repo": ".", "benchmark_dir": "asv_bench/benchmarks",
    "results_dir": "asv_bench/results", "env_dir": ".asv/env", "html_dir": ".asv/html",
}  # fmt: skip


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a configuration, and a home folder of its own."""
    made = Repository(tmp_path / "repository")
    made.commit("main")
    (made.folder / "asv.conf.json").write_text("// a comment\n" + json.dumps(CONFIG))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(made.folder)
    return made


class Asv:
    """A stand-in for asv: what it was called with; it leaves a result file of these values."""

    def __init__(self, values, code=0):
        self.values, self.code, self.calls = values, code, []

    def __call__(self, command, **settings):
        arguments = [str(part) for part in command[3:]]
        self.calls.append((arguments, settings))
        if "run" in arguments:
            config = Path(arguments[arguments.index("--config") + 1])
            text = re.sub(r"(?m)^//.*$", "", config.read_text())
            self._leave(json.loads(text)["results_dir"])
        return subprocess.CompletedProcess(command, self.code)

    def _leave(self, results):
        folder = Path(results) / "lab"
        folder.mkdir(parents=True)
        (folder / "machine.json").write_text("{}")
        content = {"result_columns": ["result", "params"], "results": self.values}
        (folder / "12345678-env.json").write_text(json.dumps(content))


VALUES = {"a": [[1.0, None, math.nan], [["x", "y", "z"]]], "b": [[2.0]], "c": [None], "d": []}


def test_results_and_failures_are_counted(repository, monkeypatch):
    """A null is a failure, NaN is left out on purpose; what was there before does not count."""
    asv = Asv(VALUES)
    monkeypatch.setattr(subprocess, "run", asv)

    found = record.record(repository.checkout, "main", ["imports", "solvers"])

    assert (found.results, found.failed, found.exit_code) == (2, 3, 0)
    assert found.folder == repository.folder / "asv_bench/results"
    machine, (arguments, settings) = asv.calls
    assert machine[0][:2] == ["machine", "--yes"]
    assert arguments[2:5] == ["run", "--machine", record._this_machine()]
    assert arguments[-5:] == ["--bench", "imports", "--bench", "solvers", "main^!"]
    assert settings["env"]["OMP_NUM_THREADS"] == "1"
    assert "--quick" not in arguments
    assert record.count_since(found.folder, 4e9) == (0, 0)


def test_a_quick_run_keeps_nothing(repository, monkeypatch):
    """Quick results go to a folder that passes, by a configuration whose paths are absolute."""
    asv = Asv(VALUES)
    monkeypatch.setattr(subprocess, "run", asv)

    found = record.record(repository.checkout, quick=True, machine="lab")

    assert (found.results, found.folder) == (2, None)
    ((arguments, _),) = asv.calls
    assert "--quick" in arguments
    assert arguments[-1] == "HEAD^!"
    assert not (repository.folder / "asv_bench/results").exists()


@pytest.mark.parametrize(
    ("values", "code", "expected"),
    [
        ({"a": [[1.0]]}, 0, 0),
        ({"a": [[1.0]]}, 2, 1),
        (VALUES, 0, 1),
        ({"a": [[math.nan]]}, 0, 2),
        ({}, 1, 2),
    ],
)
def test_exit_codes(repository, monkeypatch, values, code, expected):
    """0 for numbers only, 1 for a failure among them, 2 for no number at all."""
    monkeypatch.setattr(subprocess, "run", Asv(values, code))

    assert CliRunner().invoke(app, ["bench", "--machine", "lab"]).exit_code == expected


def test_asv_that_is_missing_is_named(repository, monkeypatch):
    """Without asv nothing is started, and the message says how to install it."""
    monkeypatch.setattr(record, "find_spec", lambda name: None)

    with pytest.raises(InputError, match=r"pip install '\.\[bench\]'"):
        record.record(repository.checkout)


def configuration():
    """That of this repository."""
    return record._without_comments(ROOT / "asv.conf.json")


def test_asv_installs_what_the_package_depends_on():
    """The environment of asv has every dependency, since a commit is installed without them."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[<>=]", line)[0].strip().replace(".", "-") for line in dependencies}

    assert names == set(configuration()["matrix"]["req"])


def test_a_commit_brings_no_other_torch():
    """Neither building nor installing a commit touches what it depends on."""
    content = configuration()

    for command in (*content["build_command"], *content["install_command"]):
        assert "--no-deps" in command
    assert len(content["matrix"]["req"]["torch"]) == 1
    assert content["matrix"]["req"]["torch"][0] in json.loads(
        (ROOT / "asv_bench/expected_counts.json").read_text()
    )


def test_asv_finds_no_fault():
    """`asv check` imports every benchmark and finds that all take their parameters."""
    done = subprocess.run(
        [sys.executable, "-m", "asv", "check", "--python=same"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout
