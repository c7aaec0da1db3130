"""The cost of one full GGN product, as a ratio to the gradient on the same batch.

    python -m asv_bench.product_cost

The deep autoencoder 784-1000-500-250-30 on 1,024 samples. `compare_libraries` has more
workloads, partitions and libraries, and whole updates.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from asv_bench.adapter import ours
from asv_bench.timing import Spread, interleaved
from asv_bench.workloads import autoencoder


def product_cost(batch_size: int, rounds: int) -> Spread:
    """Time of a product ÷ time of a gradient, in interleaved rounds."""
    workload = autoencoder(quick=False, samples=batch_size)
    product = ours(workload, "full", {}).set_up()
    draws = torch.Generator().manual_seed(0)
    v = torch.randn(sum(p.numel() for p in workload.parameters), generator=draws)
    pieces = {"product": lambda: product(v)}
    return interleaved(pieces, workload.gradient, most=rounds, budget=float("inf"))["product"]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the median ratio and its quartiles."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args(argv)
    cost = product_cost(arguments.batch, arguments.rounds)
    sys.stdout.write(
        f"one full GGN product costs {cost.median:.2f} gradients "
        f"(quartiles {cost.low:.2f} to {cost.high:.2f}, {cost.rounds} rounds, "
        f"batch {arguments.batch}, {torch.get_num_threads()} threads, torch {torch.__version__})\n"
    )


if __name__ == "__main__":
    main()
