"""What the two methods will cost, in gradients, before either runs.

With f_i the FLOPs of one forward pass through site i and F their sum, a gradient takes 3F - f_1,

    propagate:  for every block 2 f of its own sites, and 2 f of all sites behind its first
    layer_io:   2F for all blocks and the traffic of S; once C (F - f_1) for C columns, and S is new

per product. Where blocks cut through rows, layer_io also takes one sweep per block. Both are
counted for the expected number of products, with the start-up time of operators.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from bdhf.optim.products.layer_io.survey import Survey
from bdhf.optim.products.request import Request
from bdhf.optim.vectors.blocks import Blocks

#: FLOPs in the time of reading a byte from memory: 10 GB/s and 80 GFLOP/s on two cores of a CPU,
#: and fewer than on a GPU, so that the cost of a cache is never too low; and of writing new memory.
FLOPS_A_BYTE, FLOPS_A_NEW_BYTE = 8, 40

#: Cost of propagation's convolutions in channels-last, relative to channels first (`image_layout`).
CHANNELS_LAST = 0.75

#: FLOPs in the start-up time of an operator, about ten microseconds; and operators that each method
#: runs for a site in one sweep.
FLOPS_A_START = 500_000
PROPAGATE_STARTS, LAYER_IO_STARTS = 5, 8


@dataclass(frozen=True)
class Forecast:
    """The cost of each method in gradients: once, and for each product."""

    products: int  # the expected number
    propagate: float  # per product
    setup: float  # of layer_io
    layer_io: float  # per product
    cache: int  # bytes

    @property
    def method(self) -> str:
        """The cheaper one."""
        cached = self.setup + self.products * self.layer_io
        return "layer_io" if cached < self.products * self.propagate else "propagate"

    def __str__(self) -> str:
        """In words, for `explain`."""
        return (
            f"{self.method} is expected to be cheaper: layer_io takes {self.setup:.2g} + "
            f"{self.products} × {self.layer_io:.2g} gradients and {self.cache / 2**20:.3g} MiB, "
            f"propagate {self.products} × {self.propagate:.2g}"
        )


def forecast(request: Request, survey: Survey) -> Forecast:
    """Count both methods on the sites that a survey found."""
    forward = sum(flops for _, flops in survey.sites)
    back = forward - (survey.sites[0][1] if survey.sites else 0)  # not to the inputs
    gradient = max(1, 2 * forward + back)
    partitions = [request.blocks]
    if request.blocks.blend is not None:
        partitions.append(request.blocks.blend.inner)
    swept = sum(len(blocks.rows) for blocks in partitions) if survey.mixed else len(partitions)
    traffic = 2 * FLOPS_A_BYTE * survey.kept_bytes
    starts = LAYER_IO_STARTS * FLOPS_A_START * len(survey.sites)
    saved = CHANNELS_LAST if request.objective.run.applies(request.batch[0]) else 1.0
    product = swept * (2 * forward + traffic + starts + survey.swept * back)
    return Forecast(
        products=request.products,
        propagate=saved * sum(_sweeps(blocks, survey) for blocks in partitions) / gradient,
        setup=(survey.columns * back + FLOPS_A_NEW_BYTE * survey.kept_bytes) / gradient,
        layer_io=product / gradient,
        cache=survey.kept_bytes,
    )


def _sweeps(blocks: Blocks, survey: Survey) -> int:
    """FLOPs of a product with every block, by propagation."""
    total = 0
    for slots, count in Counter(block.slots for block in blocks.rows).items():
        own = [bool(set(slots) & set(touched)) for touched, _ in survey.sites]
        if not any(own):
            continue
        first = own.index(True)
        behind = sum(flops for _, flops in survey.sites[first:])
        later = (
            sum(flops for (_, flops), touches in zip(survey.sites, own, strict=True) if touches)
            - survey.sites[first][1]
        )  # a site behind the first adds its own tangent
        starts = PROPAGATE_STARTS * FLOPS_A_START * (len(survey.sites) - first)
        total += count * (2 * (behind + later) + starts)
    return total
