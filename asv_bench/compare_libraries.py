"""bdhf and other libraries: the cost of products and updates, in gradients on the same batch.

    python -m asv_bench.compare_libraries
    python -m asv_bench.compare_libraries --workloads lstm --options propagate bfloat16

Every number is a ratio to one gradient, the median of interleaved rounds in one process with the
quartiles in brackets; memory is a ratio of peak bytes. Set-up computes the loss, the gradient and
the inputs of products; the first set-up of bdhf also selects methods, checks them, and compiles
what torch has not cached on disk. The product is of all blocks of the partition. An update, not the
first of a run, has 30 iterations of CG on every block; bdhf evaluates the loss once more than the
others, for its reduction ratio.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from asv_bench.adapter import Adapter, NotApplicable, Product, ours
from asv_bench.baselines import BASELINES, ggnmp
from asv_bench.benchmarks.memory import peak_bytes
from asv_bench.timing import Piece, Spread, interleaved
from asv_bench.workloads import WORKLOADS, Workload

#: Name of a row -> its arguments of bdhf. A new line here adds a row for every partition.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "propagate": {"method": "propagate"},
    "layer_io": {"method": "layer_io"},
    "bfloat16": {"product_dtype": torch.bfloat16},
    "compile": {"compile": True},
}

#: Timed operation -> heading of its column.
TIMED: Mapping[str, str] = {
    "first": "first set-up",
    "set_up": "set-up",
    "product": "product",
    "update": "update",
}


@dataclass
class Row:
    """One line of the table: a library, a partition, and its results or the reason for none."""

    workload: str
    library: str
    partition: str
    method: str = ""
    blocks: int = 0
    reason: str = ""  # why it is not applicable
    times: dict[str, Spread] = field(default_factory=dict)
    memory: float | None = None  # peak of an update ÷ peak of a gradient

    def cells(self) -> list[str]:
        """The line as text; a library that does not apply gives its reason."""
        head = [self.library, self.partition]
        if self.reason:
            return [*head, "", f"not applicable: {self.reason}", *[""] * len(TIMED), ""]
        times = [str(self.times[name]) if name in self.times else "" for name in TIMED]
        memory = "" if self.memory is None else f"{self.memory:.3g}"
        return [*head, str(self.blocks), self.method, *times, memory]


HEAD = ["library", "partition", "blocks", "method", *TIMED.values(), "memory"]


def adapters(
    workload: Workload, options: Sequence[str]
) -> Iterator[tuple[Row, Callable[[], Adapter]]]:
    """A row for bdhf, for its options and for every baseline, under every partition.

    Only GGNMP is compared on blocks of single tensors.
    """
    for partition in workload.partitions:
        own: dict[str, Mapping[str, Any]] = {"bdhf": {}}
        own |= {f"bdhf {name}": OPTIONS[name] for name in options}
        for library, arguments in own.items():
            yield (
                Row(workload.name, library, partition),
                partial(ours, workload, partition, arguments),
            )
        for library, baseline in BASELINES.items():
            if (baseline is ggnmp) == (partition == "tensors"):
                yield Row(workload.name, library, partition), partial(baseline, workload, partition)
    if "tensors" not in workload.partitions:
        yield Row(workload.name, "BackPACK GGNMP", "tensors"), partial(ggnmp, workload, "tensors")


def measure(workload: Workload, options: Sequence[str], rounds: int, budget: float) -> list[Row]:
    """All rows of one workload; `budget` is in seconds for the rounds of one operation."""
    rows: list[Row] = []
    pieces: dict[tuple[int, str], Piece] = {}
    applicable: dict[int, Adapter] = {}
    for row, make in adapters(workload, options):
        rows.append(row)
        try:
            adapter = make()
        except (NotApplicable, NotImplementedError, RuntimeError, ValueError) as refusal:
            row.reason = str(refusal).splitlines()[0]
            continue
        row.method, row.blocks = adapter.method, adapter.blocks
        applicable[len(rows) - 1] = adapter
        pieces |= {(len(rows) - 1, name): piece for name, piece in _pieces(workload, adapter)}
    spreads = interleaved(pieces, workload.gradient, most=rounds, budget=budget)
    for (index, name), spread in spreads.items():
        rows[index].times[name] = spread
    unit = peak_bytes(workload.gradient, workload.device)
    for index, adapter in applicable.items():
        rows[index].memory = peak_bytes(adapter.probe, workload.device) / unit
    return rows


def _pieces(workload: Workload, adapter: Adapter) -> Iterator[tuple[str, Piece]]:
    """The timed operations of an adapter; its product has the same vector in every round."""
    generator = torch.Generator().manual_seed(0)
    parameters = sum(parameter.numel() for parameter in workload.parameters)
    v = torch.randn(parameters, generator=generator).to(workload.device)
    product: Product = adapter.set_up()
    for _ in range(2):  # bdhf counts the operators of the first, and may compile the second
        product(v)
    if adapter.first is not adapter.set_up:
        yield "first", adapter.first
    yield "set_up", adapter.set_up
    yield "product", lambda: product(v)
    yield "update", adapter.update


def table(rows: Sequence[Row], markdown: bool) -> str:
    """The rows under their headings, with aligned columns, or as a table of Markdown."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    bar = " | " if markdown else "  "
    text = [
        bar.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]
    text.insert(1, bar.join("-" * width for width in widths))
    return "\n".join(f"| {line} |" if markdown else line.rstrip() for line in text)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--options", nargs="+", choices=list(OPTIONS), default=[])
    parser.add_argument("--rounds", type=int, default=9, help="at most, for one operation")
    parser.add_argument(
        "--budget", type=float, default=2.0, help="seconds for the rounds of one operation"
    )
    parser.add_argument("--quick", action="store_true", help="tiny models, as a test")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--markdown", action="store_true")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print a table for every workload."""
    arguments = _arguments(argv)
    torch.set_num_threads(arguments.threads)
    rows: list[Row] = []
    write = sys.stdout.write
    write(f"torch {torch.__version__}, {arguments.device}, {torch.get_num_threads()} threads\n")
    for name in arguments.workloads:
        workload = WORKLOADS[name](arguments.quick).to(arguments.device)
        measured = measure(workload, arguments.options, arguments.rounds, arguments.budget)
        write(f"\n{name}\n\n{table(measured, arguments.markdown)}\n")
        sys.stdout.flush()
        rows += measured
    if arguments.json:
        text = json.dumps([asdict(row) for row in rows], indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
