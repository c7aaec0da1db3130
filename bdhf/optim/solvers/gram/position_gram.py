"""A Aᵀ of a site from two smaller Gram matrices, of its inputs and of its cotangents.

    (A Aᵀ)[(c, n), (c', n')] = Σ_{t, t'} ⟨a_nt, a_n't'⟩ ⟨S_cnt, S_c'n't'⟩

With one position a sample this is an elementwise product, (a aᵀ) ∘ (S Sᵀ).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from bdhf.optim.solvers.gram import inputs
from bdhf.optim.solvers.gram.sample import Sample


def add_position_gram(gram: Tensor, samples: Sequence[Sample], max_bytes: int) -> None:
    """Add A Aᵀ in place, (R, R), over all pairs of micro-batches, by tiles of samples."""
    for i, left in enumerate(samples):
        for right in samples[i:]:
            _add_pair(gram, left, right, max_bytes)


def _add_pair(gram: Tensor, left: Sample, right: Sample, max_bytes: int) -> None:
    """Add the Gram matrix between two micro-batches, and its transpose."""
    shapes = [side.s.shape[:2] for side in (left, right)]
    target = gram[left.rows, right.rows].view(*shapes[0], *shapes[1])
    mirror = gram[right.rows, left.rows].view(*shapes[1], *shapes[0])
    for n, m in _tiles(left, right, max_bytes):
        if left is right and m.start < n.start:
            continue
        tile = _tile(left, right, n, m)
        target[:, n, :, m] += tile
        if left is not right or m.start > n.start:
            mirror[:, m, :, n] += tile.permute(2, 3, 0, 1)


def _tiles(left: Sample, right: Sample, max_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Samples of both micro-batches whose inner products, twice, fit below `max_bytes`."""
    per_pair = 2 * left.s.element_size()
    for side in (left, right):
        per_pair *= side.s.shape[0] * side.s.shape[2]
    step = max(1, math.isqrt(max_bytes // per_pair))
    for n in range(0, left.s.shape[1], step):
        for m in range(0, right.s.shape[1], step):
            yield slice(n, n + step), slice(m, m + step)


def _tile(left: Sample, right: Sample, n: slice, m: slice) -> Tensor:
    """(C, n, C', m), summed over groups and positions."""
    s, t = left.s[:, n], right.s[:, m]
    total: Tensor | None = None
    for group in range(s.shape[3]):
        first, second = (side[:, :, :, group].reshape(-1, side.shape[4]) for side in (s, t))
        product = (first @ second.T).view(
            len(s), s.shape[1] * s.shape[2], len(t), t.shape[1] * t.shape[2]
        )
        kernel = _kernel(left, right, n, m, group)
        if kernel is not None:
            product.mul_(kernel[None, :, None, :])
        by_position = product.view(*s.shape[:3], *t.shape[:3])
        single = s.shape[2] == t.shape[2] == 1
        summed = by_position[:, :, 0, :, :, 0] if single else by_position.sum((2, 5))
        total = summed if total is None else total.add_(summed)
    assert total is not None  # a site has a group
    return total


def _kernel(left: Sample, right: Sample, n: slice, m: slice, group: int) -> Tensor | None:
    """⟨a_nt, a_mt'⟩, with the 1 of a bias, (n T, m T'); None: it is 1."""
    if left.a is None or right.a is None:
        return None
    a, b = inputs.of_samples(left.a, n), inputs.of_samples(right.a, m)
    kernel = inputs.inner(a, b, group, left.s)
    return kernel.add_(1) if left.bias else kernel
