"""The client of `worker.py`: a process with the benchmarks of a commit, used by JSON lines."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from bdhf.records import InputError

#: Seconds for importing all benchmarks of a commit.
_START = 300.0

#: Seconds for the set-up of a benchmark, in addition to its time-out.
_GRACE = 900.0

#: Kernels that every x86-64 has. Wider kernels round sums differently, which changes CG's stop.
_PLAIN_KERNELS = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}

_WORKER = Path(__file__).with_name("worker.py")


class Failed(Exception):  # noqa: N818 - an answer: why this could not be measured
    """The error of a benchmark, or the end of its process; one line."""


class Skipped(Exception):  # noqa: N818 - an answer too
    """Why a benchmark omits this combination, or this machine."""


@dataclass(frozen=True)
class Case:
    """One benchmark with one combination of its parameters."""

    name: str
    combination: tuple[str, ...]
    index: int
    kind: str  # "time" or "track"
    unit: str
    exact: bool  # a count; never on a GPU, where the order of sums varies
    timeout: float

    @property
    def label(self) -> str:
        """`products.Product.time_product(autoencoder, ggn, full, propagate, cpu)`."""
        return f"{self.name}({', '.join(self.combination)})" if self.combination else self.name


class BenchmarkProcess:
    """A process that measures one commit. It ends with its `with` block."""

    def __init__(self, tree: Path, benchmarks: Path, *, exactly: bool = False) -> None:
        """Start it; `tree` holds the package `bdhf` of the commit.

        `exactly`: on the CPU, by kernels with the same rounding on every x86-64.

        Raises InputError where asv is not installed or the benchmarks cannot be imported.
        """
        self._tree, self._benchmarks, self._exactly = tree, benchmarks, exactly
        self._is_closing = False
        self._folder = tempfile.TemporaryDirectory(prefix="bdhf-bench-")
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by `close`
        try:
            begun = self._start()
        except BaseException:
            self.close()
            raise
        self.versions: Mapping[str, str] = begun["versions"]
        self.broken: Mapping[str, str] = begun["broken"]  # module -> why it cannot be imported
        self.cases = tuple(case for entry in begun["benchmarks"] for case in _cases(entry))
        self._indices = {case.label: case.index for case in self.cases}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def prepare(self, case: Case) -> None:
        """Set a case up. Raises Skipped or Failed."""
        answer = self._ask(
            case.timeout + _GRACE, do="prepare", name=case.name, index=self._indices[case.label]
        )
        if "skipped" in answer:
            raise Skipped(answer["skipped"])

    def seconds(self, case: Case, number: int) -> float:
        """Seconds of `number` calls of the prepared case, within the time-out of one call.

        Raises Failed.
        """
        return float(self._ask(case.timeout, do="time", number=number)["seconds"])

    def value(self, case: Case) -> float:
        """Prepare and take a tracked number. Raises Skipped or Failed."""
        self.prepare(case)
        return float(self._ask(case.timeout, do="track")["value"])

    def kill(self) -> None:
        """End the process now, from any thread; a pending request raises Failed."""
        self._is_closing = True
        self._kill()

    def close(self) -> None:
        """End the process and remove its files."""
        self.kill()
        self._end()
        self._errors.close()
        self._folder.cleanup()

    def _start(self) -> Mapping[str, Any]:
        """Start the process, and check that it imports the package of `tree`."""
        environment = os.environ | {"PYTHONPATH": str(self._tree), "OMP_NUM_THREADS": "1"}
        if self._exactly:
            environment |= {**_PLAIN_KERNELS, "CUDA_VISIBLE_DEVICES": ""}
        self._errors.seek(0)
        self._errors.truncate()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER), str(self._benchmarks)],
            env=environment, cwd=self._folder.name, encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._lines: queue.Queue[str] = queue.Queue()
        reading = threading.Thread(
            target=_read, args=(self._process.stdout, self._lines), daemon=True
        )
        reading.start()
        try:
            begun = self._answer(_START, {"do": "begin"})
            if Path(begun["package"]).parent != self._tree.resolve():
                raise Failed(f"{begun['package']} was imported instead of {self._tree / 'bdhf'}")
        except (Failed, _Lost) as error:
            raise InputError([f"cannot measure {self._tree}: {error}"]) from None
        return begun

    def _kill(self) -> None:
        """End the process and all processes that it started, which form one session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _end(self) -> None:
        self._kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _ask(self, seconds: float, **request: Any) -> Mapping[str, Any]:
        """Send a request and wait for its answer; replace a lost process."""
        try:
            return self._answer(seconds, request)
        except _Lost as lost:
            if not self._is_closing:
                self._end()
                self._start()
            raise Failed(str(lost)) from None

    def _answer(self, seconds: float, request: Mapping[str, Any]) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise _Lost(f"no answer within {seconds:.0f} s") from None
        except BrokenPipeError:
            line = ""
        if not line:
            raise _Lost(self._failure())
        answer: Mapping[str, Any] = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def _failure(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        if "No module named 'asv_runner'" in "".join(lines[-1:]):
            return "asv is not installed here: pip install '.[bench]'"
        return f"its process ended with {code}: {lines[-1] if lines else 'no output'}"


class _Lost(Exception):  # noqa: N818 - the process, not the benchmark
    """The process has ended, or does not respond."""


def _read(stream: IO[str], lines: queue.Queue[str]) -> None:
    """Put every line into a queue, and an empty one at the end."""
    with contextlib.suppress(ValueError):  # closed while it is read
        for line in iter(stream.readline, ""):
            lines.put(line)
    lines.put("")


def _cases(entry: Mapping[str, Any]) -> list[Case]:
    return [
        Case(
            name=entry["name"], combination=tuple(combination), index=index, kind=entry["kind"],
            unit=entry["unit"], exact=entry["exact"] and "cuda" not in combination,
            timeout=float(entry["timeout"] or 60.0),
        )
        for index, combination in enumerate(entry["combinations"])
    ]  # fmt: skip
