"""asv is called with the right settings, and a run without a number is no success."""

import json
import math
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bdhf.bench import record
from bdhf.cli import app
from bdhf.records import InputError
from tests.bench.clones import ROOT
from tests.bench.synthetic import Repository
from tests.messages import naming

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
    """A stand-in for asv: it records its arguments and writes a result file with these values."""

    def __init__(self, monkeypatch, values, code=0):
        self.values, self.code, self.calls = values, code, []
        monkeypatch.setattr(record, "_run", self)

    def __call__(self, command, environment):
        self.calls.append([str(part) for part in command[3:]])
        config = Path(self.calls[-1][1])
        settings = json.loads(re.sub(r"(?m)^//.*$", "", config.read_text()))
        leave(Path(settings["results_dir"]), self.values, time.time())
        return self.code


def leave(results, values, started):
    """A result file in the format of asv; a failed benchmark has null."""
    folder = results / "lab"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "machine.json").write_text('{"results": {}}')
    rows = {name: [value, [], "version", 1000 * started] for name, value in values.items()}
    columns = ["result", "params", "version", "started_at"]
    content = {"result_columns": columns, "results": rows}
    (folder / "12345678-env.json").write_text(json.dumps(content))


VALUES = {"a": [1.0, None, math.nan], "b": [2.0], "c": None}


def test_results_and_failures_are_counted(repository, monkeypatch):
    """A null is a failure, NaN was left out on purpose; older results do not count."""
    asv = Asv(monkeypatch, VALUES)

    recorded = record.run_asv(repository.checkout, "main", ["imports", "solvers"], machine="lab")

    assert (recorded.results, recorded.failed, recorded.exit_code) == (2, 2, 0)
    assert recorded.folder == repository.folder / "asv_bench/results"
    (arguments,) = asv.calls
    assert arguments[2:5] == ["run", "--machine", "lab"]
    assert arguments[-5:] == ["--bench", "imports", "--bench", "solvers", "main^!"]
    assert "--quick" not in arguments
    assert record.count_since(recorded.folder, time.time() + 1) == (0, 0)


def test_a_quick_run_keeps_nothing(repository, monkeypatch):
    """Quick results go to a temporary folder, by a configuration with absolute paths."""
    asv = Asv(monkeypatch, VALUES)

    recorded = record.run_asv(repository.checkout, quick=True, machine="lab")

    assert (recorded.results, recorded.folder) == (2, None)
    ((*_, last),) = asv.calls
    assert "--quick" in asv.calls[0]
    assert last == "HEAD^!"
    assert not (repository.folder / "asv_bench/results").exists()


def test_asv_is_asked_to_end(repository, tmp_path, monkeypatch):
    """An interruption is passed on to asv, which gets time to end its processes."""
    said = tmp_path / "said"
    code = (
        "import pathlib, signal, sys, time\n"
        f"said = pathlib.Path({str(said)!r})\n"
        "def end(*_):\n    time.sleep(0.5)\n    said.write_text('ended')\n    sys.exit(0)\n"
        "signal.signal(signal.SIGINT, end)\nsaid.write_text('started')\ntime.sleep(60)\n"
    )
    wait = subprocess.Popen.wait

    def interrupted(process, timeout=None):
        monkeypatch.setattr(subprocess.Popen, "wait", wait)
        while not said.exists() or not said.read_text():
            time.sleep(0.02)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record._run([sys.executable, "-c", code])

    assert said.read_text() == "ended"


def test_machines_of_asv(repository, monkeypatch):
    """A new machine is registered with asv once; the message names a torn file of machines."""
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: calls.append(command))
    machines = Path("~/.asv-machine.json").expanduser()

    name = record._this_machine()
    machines.write_text(json.dumps({name: {}}))
    assert record._this_machine() == name
    machines.write_text("")

    assert [call[3:5] for call in calls] == [["machine", "--yes"]]
    with pytest.raises(InputError, match=naming(machines)):
        record._this_machine()


@pytest.mark.parametrize(
    ("values", "code", "expected"),
    [
        ({"a": [1.0]}, 0, 0),
        ({"a": [1.0]}, 2, 1),
        (VALUES, 0, 1),
        ({"a": [math.nan]}, 0, 2),
        ({}, 1, 2),
    ],
)
def test_exit_codes(repository, monkeypatch, values, code, expected):
    """0 for numbers only, 1 with a failure, 2 without any number."""
    Asv(monkeypatch, values, code)
    leave(repository.folder / "asv_bench/results", {"old": [1.0, None]}, time.time() - 60)

    assert CliRunner().invoke(app, ["bench", "--machine", "lab"]).exit_code == expected


def test_a_commit_that_is_none(repository, monkeypatch):
    """A name that is no commit gives exit code 2 before asv starts: also a path or a range."""
    asv = Asv(monkeypatch, VALUES)

    for name in ("no-such-commit", "bdhf"):
        assert CliRunner().invoke(app, ["bench", name, "--machine", "lab"]).exit_code == 2
        assert CliRunner().invoke(app, ["bench", "--against", name]).exit_code == 2
    assert CliRunner().invoke(app, ["bench", "--against", "main..main"]).exit_code == 2
    assert not asv.calls


def test_asv_that_is_missing_is_named(repository, monkeypatch):
    """Without asv nothing is started, and the message has the command to install it."""
    monkeypatch.setattr(record, "find_spec", lambda name: None)

    with pytest.raises(InputError, match=r"pip install '\.\[bench\]'"):
        record.run_asv(repository.checkout)


def configuration():
    """The configuration of this repository."""
    return record._without_comments(ROOT / "asv.conf.json")


def test_asv_installs_what_the_package_depends_on():
    """The environment of asv has all dependencies, since a commit is installed without them."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[<>=]", line)[0].strip().replace(".", "-") for line in dependencies}

    assert names == set(configuration()["matrix"]["req"])


def test_a_commit_brings_no_other_torch():
    """Neither building nor installing a commit changes its dependencies."""
    content = configuration()

    for command in (*content["build_command"], *content["install_command"]):
        assert "--no-deps" in command
    assert len(content["matrix"]["req"]["torch"]) == 1
    assert content["matrix"]["req"]["torch"][0] in json.loads(
        (ROOT / "asv_bench/expected_counts.json").read_text()
    )


def test_asv_finds_no_fault():
    """`asv check` imports every benchmark and checks its parameters."""
    done = subprocess.run(
        [sys.executable, "-m", "asv", "check", "--python=same"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout
