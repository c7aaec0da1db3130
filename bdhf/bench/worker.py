"""The process that runs the benchmarks of one commit, on requests in lines of JSON.

It is started by path, with the tree of a commit on PYTHONPATH. It must not import its own package,
because that of the commit is another one. `process.py` is the client.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import itertools
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from asv_runner._aux import update_sys_path
from asv_runner.discovery import disc_benchmarks

#: Types of asv that are measured here; only asv measures the others (RSS, pickles of objects).
_KINDS = {"time": "time", "track": "track"}


class BenchmarkFolder:
    """The benchmarks of a folder, of which one is prepared."""

    def __init__(self, folder: str) -> None:
        update_sys_path(folder)
        self.broken = _broken(Path(folder))
        discovered = disc_benchmarks(folder, ignore_import_errors=True)
        self.benchmarks = {b.name: b for b in discovered if b.type in _KINDS}
        gc.freeze()  # imported objects stay, so collections need not visit them
        self._caches: dict[str, Any] = {}
        self._prepared: Any = None

    def begin(self) -> Mapping[str, Any]:
        """The imported package, the versions and the benchmarks."""
        package = importlib.util.find_spec("bdhf")
        origin = package.origin if package else None
        return {
            "package": str(Path(origin).resolve().parent) if origin else "",
            "versions": {"torch": _version("torch"), "python": sys.version.split()[0]},
            "broken": self.broken,
            "benchmarks": [_described(b) for b in self.benchmarks.values()],
        }

    def prepare(self, name: str, index: int) -> Mapping[str, Any]:
        """Set a benchmark up for one combination of its parameters."""
        benchmark = self.benchmarks[name]
        benchmark.set_param_idx(index)
        key = benchmark.setup_cache_key
        if key is not None and key not in self._caches:
            self._caches[key] = _kept(benchmark.do_setup_cache)
        cache = None if key is None else self._caches[key]
        if isinstance(cache, Exception):
            raise cache
        benchmark.set_cache(cache)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            skipped = benchmark.do_setup()
        if skipped:
            return {"skipped": _reason(output.getvalue())}
        self._prepared = benchmark
        gc.collect()
        return {"ready": True}

    def time(self, number: int) -> Mapping[str, Any]:
        """Seconds of `number` calls of the prepared benchmark, each after a set-up, as in asv."""
        benchmark = self._prepared
        parameters, timer = benchmark._build_params(), benchmark.timer
        taken = 0.0
        gc.disable()
        try:
            for _ in range(number):
                benchmark.redo_setup()
                start = timer()
                benchmark.func(*parameters)
                taken += timer() - start
        finally:
            gc.enable()
        return {"seconds": taken}

    def track(self) -> Mapping[str, Any]:
        """The number that the prepared benchmark returns."""
        value = self._prepared.do_run()
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"a tracked number must be finite; got {value!r}")
        return {"value": value}


def _kept(make: Callable[[], Any]) -> Any:
    """The result of a call that is made once, or its exception, which would occur again."""
    try:
        return make()
    except Exception as error:
        traceback.print_exc()
        return error


def _broken(folder: Path) -> Mapping[str, str]:
    """Modules that cannot be imported, with the reason; their benchmarks are missing."""
    reasons = {}
    for module in sorted(folder.glob("[!_]*.py")):
        try:
            importlib.import_module(f"{folder.name}.{module.stem}")
        except Exception as error:
            reasons[module.name] = _one_line(error)
    return reasons


def _reason(output: str) -> str:
    """The message of NotImplementedError, from the output of asv."""
    match = re.search(r"asv: skipped: NotImplementedError\((['\"])(.*)\1\)", output)
    return match[2] if match else output.strip() or "asv skips it"


def _one_line(error: Exception) -> str:
    return traceback.format_exception_only(error)[-1].strip().splitlines()[0]


def _described(benchmark: Any) -> Mapping[str, Any]:
    """A benchmark for the client; combinations in the order of their index."""
    return {
        "name": benchmark.name,
        "kind": _KINDS[benchmark.type],
        "unit": benchmark.unit,
        "exact": bool(getattr(benchmark.func, "exact", False)),
        "timeout": benchmark.timeout,
        "parameters": [str(name) for name in benchmark.param_names],
        "combinations": [list(c) for c in itertools.product(*_texts(benchmark._params))],
    }


def _texts(parameters: Sequence[Any]) -> list[list[str]]:
    listed = list(parameters)
    if listed and not isinstance(listed[0], (tuple, list)):
        listed = [listed]
    return [[str(value) for value in values] for values in listed]


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def serve(worker: BenchmarkFolder, requests: TextIO, replies: TextIO) -> None:
    """Answer one request after another; the error of a benchmark is an answer too."""
    for line in requests:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"failed": _one_line(error)}
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


def main() -> None:
    """Serve requests of stdin on stdout; benchmarks print to stderr and have an empty stdin."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    serve(BenchmarkFolder(sys.argv[1]), requests, replies)


if __name__ == "__main__":
    main()
