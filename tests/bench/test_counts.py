"""Counts are compared with the expected ones, which change only for a reason."""

import json
import re
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from bdhf.bench import counts
from bdhf.bench.checkout import Checkout
from bdhf.bench.process import BenchmarkProcess
from bdhf.cli import app
from bdhf.records import InputError
from tests.bench.clones import ROOT
from tests.bench.synthetic import Repository
from tests.messages import naming

TORCH = version("torch").partition("+")[0]
LABEL = "suite.Suite.track_steps(a, cpu)"


@pytest.fixture
def repository(tmp_path):
    """A repository with expected counts and their reason."""
    made = Repository(tmp_path / "repository")
    made.write()
    explained(made, counts.write_expected(made.checkout))
    return made


def explained(repository, counted):
    """Write the requested reason."""
    (line,) = counted.faults
    asked = line.split("`- Counts `")[1].split("`")[0]
    text = f"# Changelog\n\n- Counts `{asked}`: a better start.\n"
    (repository.folder / "CHANGELOG.md").write_text(text)


def expected(repository):
    """The content of the file."""
    return json.loads((repository.folder / counts.EXPECTED).read_text())


def test_the_same_counts_pass(repository):
    """An unchanged package has no fault; only exact numbers are counted, on the CPU."""
    counted = counts.check_counts(repository.checkout)

    assert counted.faults == ()
    assert counted.torch == TORCH
    assert counted.by_label == expected(repository)[TORCH]
    assert set(counted.by_label) == {
        LABEL, "suite.Suite.track_steps(b, cpu)", "suite.Cached.track_calls",
    }  # fmt: skip


@pytest.mark.parametrize("steps", ["8", "6", "7 + 1e-12"])
def test_another_count_is_a_fault(repository, steps):
    """More, fewer, and the least difference are reported with both numbers."""
    repository.write(steps=steps)

    faults = counts.check_counts(repository.checkout).faults

    assert len(faults) == 2
    assert faults[0].startswith(f"{LABEL}: {eval(steps)!r} ".replace(".0 ", " "))
    assert re.search(naming(7), faults[0].removeprefix(LABEL))


def test_a_count_that_fails_is_a_fault(repository):
    """A failing count is reported with its error, and the file is not changed."""
    before = expected(repository)
    repository.write(steps="1 / 0")

    faults = counts.check_counts(repository.checkout, lambda label: label == LABEL).faults

    failed, missing = faults
    assert re.search(naming(LABEL, "ZeroDivisionError: division by zero"), failed)
    assert re.search(naming(LABEL, 7), missing)
    with pytest.raises(InputError, match="division by zero"):
        counts.write_expected(repository.checkout)
    assert expected(repository) == before


def test_what_appears_or_goes_is_a_fault(repository):
    """An unexpected count and a missing one are both reported."""
    path = repository.folder / counts.EXPECTED
    content = expected(repository)
    content[TORCH]["suite.Gone.track_it"] = content[TORCH].pop(LABEL)
    path.write_text(json.dumps(content))

    faults = counts.check_counts(repository.checkout).faults

    for label in (LABEL, "suite.Gone.track_it"):
        assert [fault for fault in faults if re.match(f"{re.escape(label)}: .*\\b7\\b", fault)]


def test_a_change_without_a_reason_is_a_fault(repository):
    """The changelog must have the fingerprint of the file and at least two words."""
    changelog = repository.folder / "CHANGELOG.md"
    reason = changelog.read_text()
    changelog.write_text(reason.replace("a better start", "x"))

    (fault,) = counts.check_counts(repository.checkout).faults

    assert re.search(naming(changelog) + r".*`- Counts `[0-9a-f]{8}`: ", fault)
    changelog.unlink()
    assert counts.check_counts(repository.checkout).faults == (fault,)
    changelog.write_text(reason)
    assert not counts.check_counts(repository.checkout).faults


def test_nothing_checked_is_no_pass(repository, monkeypatch):
    """No benchmark, no counts for this torch, and a torn file give exit code 2 and the solution."""
    path = repository.folder / counts.EXPECTED
    monkeypatch.chdir(repository.folder)

    def run(*arguments):
        return CliRunner().invoke(app, ["bench", "--counts", *arguments])

    nothing = run("--bench", "no_such")
    path.write_text(json.dumps({"1.0.0": {}}))
    unknown = run()
    path.write_text("{")
    torn = run()

    assert [r.exit_code for r in (nothing, unknown, torn)] == [2, 2, 2]
    assert not nothing.stdout
    assert re.search(naming(counts.EXPECTED, TORCH, "1.0.0", "--counts --write"), unknown.stderr)
    assert re.search(naming(counts.EXPECTED, "`git checkout`"), torn.stderr)


def test_exit_codes_of_the_command(repository, monkeypatch):
    """0 for the expected counts, 1 for others; `--write` keeps other versions and cases."""
    monkeypatch.chdir(repository.folder)
    path = repository.folder / counts.EXPECTED
    same = CliRunner().invoke(app, ["bench", "--counts"])
    path.write_text(json.dumps({"1.0.0": {"x": 1.0}, **expected(repository)}))
    repository.write(steps="8")
    other = CliRunner().invoke(app, ["bench", "--counts", "--bench", "steps"])
    written = CliRunner().invoke(app, ["bench", "--counts", "--write", "--bench", "steps"])

    assert (same.exit_code, other.exit_code, written.exit_code) == (0, 1, 0)
    assert re.search(naming("verdict:", 3, TORCH), same.stdout)
    assert re.search(naming("CHANGELOG.md", TORCH) + r"[\s\S]*`- Counts `\w{8}`: ", written.stdout)
    after = expected(repository)
    assert after["1.0.0"] == {"x": 1.0}
    assert after[TORCH] == {
        "suite.Cached.track_calls": 1, LABEL: 8, "suite.Suite.track_steps(b, cpu)": 8,
    }  # fmt: skip


def test_the_counts_of_this_repository_have_a_reason():
    """CHANGELOG.md has the reason of the present expected_counts.json."""
    assert counts.unexplained(Checkout(ROOT)) is None


def test_every_benchmark_that_counts_is_expected():
    """The file has exactly the counting benchmarks of the CPU, for every version of torch."""
    checkout = Checkout(ROOT)
    with BenchmarkProcess(ROOT, checkout.benchmarks, exactly=True) as worker:
        labels = {case.label for case in worker.cases if case.exact}

    assert all(set(counted) == labels for counted in counts.read_expected(checkout).values())
    assert {label.split(".")[0] for label in labels} == {
        "convergence", "framework", "imports", "solvers", "updates",
    }  # fmt: skip
