"""The process that measures a commit: its answers, and its replacement after a loss."""

import os
import sys
import time

import pytest

from bdhf.bench import process
from bdhf.bench.process import BenchmarkProcess, Failed, Skipped
from bdhf.records import InputError
from tests.bench.synthetic import Repository
from tests.messages import naming


@pytest.fixture
def repository(tmp_path):
    """A repository whose working tree is measured."""
    made = Repository(tmp_path / "repository")
    made.write()
    return made


@pytest.fixture
def worker(repository):
    """A process with its benchmarks."""
    with BenchmarkProcess(repository.folder, repository.benchmarks) as made:
        yield made


def case(worker, label):
    """The case of that label."""
    return next(case for case in worker.cases if case.label == label)


def test_cases_are_those_of_asv(worker):
    """Every benchmark with every combination of its parameters, units and marks included."""
    labels = {case.label for case in worker.cases}

    assert "suite.Suite.time_work(a, cuda)" in labels
    assert "suite.Cached.track_calls" in labels
    assert len(labels) == len(worker.cases) == 14
    steps = case(worker, "suite.Suite.track_steps(b, cpu)")
    assert (steps.kind, steps.unit, steps.exact, steps.timeout) == ("track", "steps", True, 20.0)
    assert not case(worker, "suite.Suite.track_held(b, cpu)").exact
    assert worker.versions["python"] == sys.version.split()[0]


def test_values_and_seconds(worker):
    """A number is what the benchmark returns; time grows with the number of calls."""
    assert worker.value(case(worker, "suite.Suite.track_steps(a, cpu)")) == 7
    timed = case(worker, "suite.Suite.time_work(a, cpu)")
    worker.prepare(timed)

    assert 0 < worker.seconds(timed, 1) < worker.seconds(timed, 200)


def test_a_cache_is_made_once(worker):
    """All benchmarks of a class use one result of `setup_cache`."""
    calls = [worker.value(c) for c in worker.cases if c.name.startswith("suite.Cached")]

    assert calls == [1, 1]


def test_what_is_left_out(worker):
    """A combination whose set-up raises NotImplementedError is skipped with its reason."""
    with pytest.raises(Skipped, match="no such device"):
        worker.value(case(worker, "suite.Suite.track_steps(a, cuda)"))


def test_a_process_that_dies_is_replaced(repository):
    """A benchmark that ends its process has failed; the next one is measured."""
    repository.write(steps="__import__('os').kill(__import__('os').getpid(), 9)")
    with BenchmarkProcess(repository.folder, repository.benchmarks) as worker:
        with pytest.raises(Failed, match=r" -9\b"):
            worker.value(case(worker, "suite.Suite.track_steps(a, cpu)"))

        assert worker.value(case(worker, "suite.Suite.track_held(a, cpu)")) == 1000


def test_a_benchmark_that_hangs_is_given_up(repository, monkeypatch):
    """After its time-out a benchmark has failed, and its process is replaced."""
    monkeypatch.setattr(process, "_GRACE", 0.0)
    repository.write(steps="time.sleep(60)")
    text = (repository.benchmarks / "suite.py").read_text()
    (repository.benchmarks / "suite.py").write_text(text.replace("timeout = 20.0", "timeout = 2.0"))
    with BenchmarkProcess(repository.folder, repository.benchmarks) as worker:
        start = time.monotonic()
        with pytest.raises(Failed, match=r"\b2 s\b"):
            worker.value(case(worker, "suite.Suite.track_steps(a, cpu)"))

        assert time.monotonic() - start < 30
        assert worker.value(case(worker, "suite.Suite.track_held(a, cpu)")) == 1000


def test_another_package_is_refused(tmp_path):
    """A tree without the package is refused: another package would be measured."""
    made = Repository(tmp_path / "repository")

    with pytest.raises(InputError, match=naming(made.folder / "bdhf")):
        BenchmarkProcess(made.folder, made.benchmarks)


def test_asv_that_is_missing_is_named(repository, tmp_path, monkeypatch):
    """Without asv the message has the command to install it."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))

    with pytest.raises(InputError, match=r"pip install '\.\[bench\]'"):
        BenchmarkProcess(repository.folder, repository.benchmarks)


def test_nothing_is_left_behind(repository, tmp_path, monkeypatch):
    """After closing, neither the process nor its folder exists."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    with BenchmarkProcess(repository.folder, repository.benchmarks) as worker:
        pid = worker._process.pid
        assert list(folder.iterdir())

    assert not list(folder.iterdir())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_benchmark_has_nothing_to_read(repository):
    """A benchmark that reads its stdin gets its end, not the next request."""
    repository.write(steps="len(__import__('sys').stdin.read())")
    with BenchmarkProcess(repository.folder, repository.benchmarks) as worker:
        label = "suite.Suite.track_steps({}, cpu)"

        assert worker.value(case(worker, label.format("a"))) == 0
        assert worker.value(case(worker, label.format("b"))) == 0


def test_a_cache_that_fails_is_made_once(repository, tmp_path):
    """The error of `setup_cache` is raised for every benchmark, without another attempt."""
    counter = tmp_path / "calls"
    text = (repository.benchmarks / "suite.py").read_text()
    failing = f"open({str(counter)!r}, 'a').write('x'); raise ValueError('no cache')"
    text = text.replace("        Cached.calls += 1\n", f"        {failing}\n")
    (repository.benchmarks / "suite.py").write_text(text)
    with BenchmarkProcess(repository.folder, repository.benchmarks) as worker:
        for cached in (c for c in worker.cases if c.name.startswith("suite.Cached")):
            with pytest.raises(Failed, match="no cache"):
                worker.value(cached)

    assert counter.read_text() == "x"


def test_counts_hang_on_no_kernel(repository):
    """With `exactly`, torch and MKL use kernels that every x86-64 has, and no GPU is visible."""
    repository.write(steps="len([1 for name, value in dict(ATEN_CPU_CAPABILITY='default', "
                     "MKL_CBWR='COMPATIBLE', ONEDNN_MAX_CPU_ISA='SSE41', CUDA_VISIBLE_DEVICES='')"
                     ".items() if __import__('os').environ.get(name) == value])")  # fmt: skip
    for exactly, expected in ((True, 4), (False, 0)):
        with BenchmarkProcess(repository.folder, repository.benchmarks, exactly=exactly) as worker:
            assert worker.value(case(worker, "suite.Suite.track_steps(a, cpu)")) == expected
