"""What one full GGN product costs, as a ratio to the gradient on the same batch.

    python -m asv_bench.product_cost

The deep autoencoder 784-1000-500-250-30 on 1,024 samples. Product and gradient are timed in turn
in one process, so that the ratio of each round compares like with like; the median round counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

import bdhf

SIZES = (784, 1000, 500, 250, 30)


def autoencoder() -> nn.Sequential:
    """Encoder and mirrored decoder, tanh, with a linear code."""
    widths = [*SIZES, *reversed(SIZES[:-1])]
    layers: list[nn.Module] = []
    for index, (n_in, n_out) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(n_in, n_out))
        if index not in (len(SIZES) - 2, len(widths) - 2):
            layers.append(nn.Tanh())
    return nn.Sequential(*layers)


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes, once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratios(batch_size: int, rounds: int) -> list[float]:
    """Time of a product ÷ time of a gradient, one per interleaved round."""
    torch.manual_seed(0)
    model = autoencoder()
    x = torch.rand(batch_size, SIZES[0])
    parameters = list(model.parameters())
    G = bdhf.block_curvature(model, nn.functional.mse_loss, (x, x))
    v = torch.randn(G.shape[0])

    def gradient() -> object:
        return torch.autograd.grad(nn.functional.mse_loss(model(x), x), parameters)

    def product() -> object:
        return G @ v

    for warm_up in (gradient, product, gradient, product):
        warm_up()
    return [seconds(product) / seconds(gradient) for _ in range(rounds)]


def main() -> None:
    """Print the median ratio and its quartiles."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    found = ratios(arguments.batch, arguments.rounds)
    low, median, high = statistics.quantiles(found, n=4)
    print(  # noqa: T201
        f"one full GGN product costs {median:.2f} gradients "
        f"(quartiles {low:.2f} to {high:.2f}, {len(found)} rounds, "
        f"batch {arguments.batch}, {torch.get_num_threads()} threads, torch {torch.__version__})"
    )


if __name__ == "__main__":
    main()
