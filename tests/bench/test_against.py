"""Comparison of two commits: what is worse is found, and what is unchanged is not reported."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from bdhf.bench import against as module
from bdhf.bench.against import TimingSettings, compare_commits
from bdhf.bench.checkout import Checkout
from bdhf.bench.table import as_json, table_lines
from bdhf.bench.verdict import CaseVerdict, Missing
from bdhf.cli import app
from bdhf.records import InputError
from tests.bench.clones import ROOT, git
from tests.bench.synthetic import Repository
from tests.messages import naming

QUICK = TimingSettings(budget=0.3, pairs=3)


@pytest.fixture
def repository(tmp_path):
    """A repository with a commit `before`."""
    made = Repository(tmp_path / "repository")
    made.commit("before")
    return made


def compared(repository, now="now", wanted=lambda label: True, settings=QUICK, **observe):
    """`now` against `before`."""
    checkout = repository.checkout
    commits = checkout.commit("before"), checkout.commit(now)
    return compare_commits(checkout, *commits, wanted, settings, **observe)


def verdicts(comparison):
    """The verdict of every benchmark, by its name without the module and the device."""
    return {
        re.sub(r"^suite\.\w+\.|, cpu", "", finding.case.label): finding.verdict
        for finding in comparison.findings
    }


def test_an_unchanged_commit_is_as_before(repository):
    """Counts and amounts are equal, no time is slower, and cases left out are counted."""
    repository.commit("now")

    comparison = compared(repository)

    assert not comparison.regressions
    assert {v for name, v in verdicts(comparison).items() if "work" not in name} == {
        CaseVerdict.SAME
    }
    assert comparison.left_out == {"no such device": 6}
    assert comparison.measured == len(comparison.findings) == 8


def test_twice_the_work_is_slower(repository):
    """A benchmark with twice the work is slower in every pair of processes, by about two."""
    repository.commit("now", work="sum(range(2000)) + sum(range(2000))")

    comparison = compared(repository, wanted=lambda label: "time" in label)

    assert verdicts(comparison) == {
        "time_work(a)": CaseVerdict.SLOWER,
        "time_work(b)": CaseVerdict.SLOWER,
    }
    for finding in comparison.findings:
        assert len(finding.ratios) == QUICK.pairs
        assert all(1.4 < ratio.middle < 2.8 for ratio in finding.ratios)


def test_half_the_work_is_faster(repository):
    """A benchmark with half the work is faster, which is no regression."""
    repository.commit("now", work="sum(range(1000))")

    comparison = compared(repository, wanted=lambda label: "time" in label)

    assert set(verdicts(comparison).values()) == {CaseVerdict.FASTER}
    assert not comparison.regressions


@pytest.mark.parametrize(
    ("code", "name", "verdict"),
    [
        ({"steps": "8"}, "track_steps(a)", CaseVerdict.MORE),
        ({"steps": "7.0000001"}, "track_steps(a)", CaseVerdict.MORE),
        ({"steps": "6"}, "track_steps(a)", CaseVerdict.LESS),
        ({"held": "1005.0"}, "track_held(b)", CaseVerdict.SAME),
        ({"held": "1020.0"}, "track_held(b)", CaseVerdict.MORE),
        ({"held": "900.0"}, "track_held(b)", CaseVerdict.LESS),
        ({"steps": "1 / 0"}, "track_steps(b)", CaseVerdict.FAILS),
        ({"steps": "float('nan')"}, "track_steps(b)", CaseVerdict.FAILS),
        ({"steps": "__import__('os')._exit(3)"}, "track_steps(a)", CaseVerdict.FAILS),
        ({"work": "1 / 0"}, "time_work(a)", CaseVerdict.FAILS),
        (
            {"more": "def work(): raise NotImplementedError('gone')"},
            "time_work(a)",
            CaseVerdict.FAILS,
        ),
    ],
)
def test_what_changed_is_reported(repository, code, name, verdict):
    """Counts are compared exactly, amounts to 1 %, and a new failure is a regression."""
    repository.commit("now", **code)

    comparison = compared(repository, wanted=lambda label: "track_calls" not in label)

    assert verdicts(comparison)[name] is verdict
    others = {v for n, v in verdicts(comparison).items() if n.split("(")[0] != name.split("(")[0]}
    assert not any(v.is_regression for v in others)


def test_what_failed_before_is_no_regression(repository):
    """A benchmark that fails in the baseline is measured now, or not measured at all."""
    repository.commit("before2", steps="1 / 0", work="1 / 0")
    repository.commit("now", work="1 / 0")
    checkout = repository.checkout

    comparison = compare_commits(
        checkout, checkout.commit("before2"), checkout.commit("now"), lambda label: True, QUICK
    )

    assert verdicts(comparison)["track_steps(a)"] is CaseVerdict.NEW
    assert verdicts(comparison)["time_work(a)"] is CaseVerdict.NOT_MEASURED
    assert not comparison.regressions
    assert "ZeroDivisionError" in next(
        f.before.reason for f in comparison.findings if isinstance(f.before, Missing)
    )


def test_a_module_that_one_commit_cannot_import(repository):
    """Its benchmarks fail now, or are new; a module that neither commit can import is refused."""
    (repository.benchmarks / "more.py").write_text(
        "from bdhf import extra\n\ndef track_extra(): return extra()\n"
    )
    repository.commit("now", more="def extra(): return 3")
    checkout = repository.checkout
    before, now = checkout.commit("before"), checkout.commit("now")

    forth = compare_commits(checkout, before, now, lambda label: "extra" in label, QUICK)
    back = compare_commits(checkout, now, before, lambda label: "extra" in label, QUICK)

    assert [f.verdict for f in forth.findings] == [CaseVerdict.NEW]
    assert [f.verdict for f in back.findings] == [CaseVerdict.FAILS]
    with pytest.raises(InputError, match=naming("more.py", "ImportError")):
        compare_commits(checkout, before, before, lambda label: True, QUICK)


def test_what_showed_in_one_pair_only_is_no_change(repository, monkeypatch):
    """A time that is slower in a first pair of processes, and not in the next, is undecided."""
    repository.commit("now")
    turns = []

    def slower_once(baseline, candidate, budget):
        turns.append(1)
        before = [1.0] * 9
        return module_ratio(before, [1.5] * 9 if len(turns) == 1 else [1.0, 1.2] * 4 + [1.0])

    from bdhf.bench.rounds import of_rounds as module_ratio

    monkeypatch.setattr(module, "timed_ratio", slower_once)
    seen = []
    comparison = compared(
        repository,
        wanted=lambda label: label.startswith("suite.Suite.time_work(a, cpu"),
        observe=lambda done, of, case, pair: seen.append(pair),
    )

    assert [f.verdict for f in comparison.findings] == [CaseVerdict.UNDECIDED]
    assert seen == [1, 2]


def test_the_order_of_starting_changes(repository, monkeypatch):
    """Every second pair starts the candidate first, and each pair has new processes."""
    repository.commit("now", work="sum(range(20000))")
    started = []
    worker = module.BenchmarkProcess

    def noted(tree, benchmarks):
        made = worker(tree, benchmarks)
        started.append((tree.name, made._process.pid))
        return made

    monkeypatch.setattr(module, "BenchmarkProcess", noted)
    compared(repository, wanted=lambda label: label.startswith("suite.Suite.time_work(a, cpu"))

    assert [tree for tree, _ in started] == ["0", "1", "1", "0", "0", "1"]
    assert len({pid for _, pid in started}) == 6


def test_the_table_in_words(repository):
    """Regressions come first, unchanged cases take one line per file, then comes the verdict."""
    repository.commit("now", steps="8", held="900.0")

    comparison = compared(repository, wanted=lambda label: "time" not in label)
    told = list(table_lines(comparison))

    assert told[0].startswith("now ")
    assert '"Commit now" against before ' in told[0]
    rows = [line for line in told if line.startswith("suite.Suite")]
    assert [row.split()[-1] for row in rows[:2]] == ["more", "more"]
    assert "7 steps" in rows[0]
    assert "8 steps" in rows[0]
    assert rows[2].endswith("less: 90 % of before")
    assert {"suite: 1 counts as before", "suite: 1 amounts as before"} <= set(told)
    assert told[-1] == "verdict: 2 regressions, of 6 measured: 2 more"
    everything = list(table_lines(comparison, everything=True))
    assert sum("as before" in line for line in everything) == 2
    content = json.loads(json.dumps(as_json(comparison)))
    assert len(content["regressions"]) == 2
    assert content["measured"] == 6


def bench(repository, monkeypatch, *arguments):
    """`bdhf bench` in the repository."""
    monkeypatch.chdir(repository.folder)
    return CliRunner().invoke(app, ["bench", *arguments])


def test_exit_codes(repository, monkeypatch):
    """0 without a regression, 1 with one, 2 if nothing was or can be measured."""
    repository.commit("now", steps="8")
    call = ["--against", "before", "--bench"]

    same = bench(repository, monkeypatch, "before", *call, "track_steps")
    worse = bench(repository, monkeypatch, *call, "track_steps")
    nothing = bench(repository, monkeypatch, *call, "no_such_benchmark")
    unknown = bench(repository, monkeypatch, "--against", "no-such-commit")
    pattern = bench(repository, monkeypatch, *call, "(")

    codes = [r.exit_code for r in (same, worse, nothing, unknown, pattern)]
    assert codes == [0, 1, 2, 2, 2]
    assert nothing.stdout.splitlines()[-1].startswith("verdict: ")
    assert "'no-such-commit'" in unknown.stderr


@pytest.mark.parametrize("file", ["", "bdhf/stats.py"])
def test_a_commit_without_a_package_is_named(repository, monkeypatch, file):
    """The message names a commit that has no package, or only a part of it."""
    folder = repository.folder
    git(folder, "checkout", "--quiet", "--orphan", "empty")
    git(folder, "rm", "--quiet", "-r", "--cached", ".")
    if file:
        (folder / file).touch()
        git(folder, "add", "--force", file)
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "Begin")
    root = git(folder, "rev-parse", "HEAD")
    git(folder, "checkout", "--quiet", "--force", "main")

    done = bench(repository, monkeypatch, "--against", root)

    assert done.exit_code == 2
    assert re.search(naming(f'{root[:8]} "Begin"', "bdhf/__init__.py"), done.stderr)


def test_a_shallow_clone_says_that_it_is_one(repository, tmp_path):
    """The message about a commit that was not fetched names the command to fetch it."""
    repository.commit("now")
    there, url = tmp_path / "shallow", repository.folder.as_uri()
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", url, there], check=True)

    with pytest.raises(InputError, match=naming("'HEAD~1'", "`git fetch --unshallow`")):
        Checkout(there).commit("HEAD~1")
    with pytest.raises(InputError) as whole:
        repository.checkout.commit("HEAD~9")
    assert "--unshallow" not in str(whole.value)


def test_what_is_not_committed_is_warned_of(repository, monkeypatch):
    """Uncommitted changes of the package are not measured, and a warning counts the files."""
    repository.commit("now")
    repository.write(steps="9")

    done = bench(repository, monkeypatch, "--against", "before", "--bench", "track_steps")

    assert done.exit_code == 0
    assert re.search(naming("warning:", "1 file", '"Commit now"'), done.stderr)


def test_outside_of_a_clone(tmp_path, monkeypatch):
    """The message names the folder and the missing configuration."""
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(app, ["bench"])

    assert done.exit_code == 2
    assert re.search(naming(tmp_path, "asv.conf.json"), done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--against", "before", "--counts"],
        ["--write"],
        ["--margin", "0.9"],
        ["--margin", "1.2"],
        ["--all"],
        ["--json", "--counts"],
        ["before", "--counts"],
        ["--quick", "--counts"],
        ["--machine", "lab", "--against", "before"],
    ],
)
def test_options_that_contradict(repository, monkeypatch, arguments):
    """Contradictory options are refused."""
    assert bench(repository, monkeypatch, *arguments).exit_code == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing(repository, tmp_path, number):
    """A signal during a benchmark ends it at once: no verdict, process or folder remains."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    (folder / "pid").write_text("")
    repository.commit("now", steps=f"(open({str(folder / 'pid')!r}, 'w').write(str(__import__("
                      "'os').getpid())), time.sleep(60))")  # fmt: skip
    started = subprocess.Popen(
        [sys.executable, "-m", "bdhf.cli", "bench", "--against", "before", "--bench", "steps"],
        cwd=repository.folder, env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (folder / "pid").read_text():
        assert started.poll() is None, started.stderr.read()
        time.sleep(0.05)
    pid = int((folder / "pid").read_text())
    start = time.monotonic()
    started.send_signal(number)
    out, err = started.communicate(timeout=40)

    assert started.returncode == 130
    assert err
    assert "verdict:" not in out
    assert time.monotonic() - start < 30
    assert [path.name for path in folder.iterdir()] == ["pid"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
