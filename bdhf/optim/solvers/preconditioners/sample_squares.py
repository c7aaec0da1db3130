"""D = Σ_n (Q_Sᵀ G_n Q_A)², entry by entry, of the gradients G_n = Σ_t s_nt a_ntᵀ of samples.

t are the positions of a sample. The coordinates of s and a in the bases are computed first, since

    Q_Sᵀ G_n Q_A = Σ_t (Q_Sᵀ s_nt)(Q_Aᵀ a_nt)ᵀ
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bdhf.optim.products.per_sample import MAX_ENTRIES
from bdhf.optim.products.site_samples import OneHotInputs


def gradient_squares(s: Tensor, a: Tensor) -> Tensor:
    """D of k columns s (k, N, T, groups, r) and inputs a (N, T, groups or 1, m): (groups, r, m)."""
    groups = s.shape[3]
    a = a.expand(-1, -1, groups, -1)
    if s.shape[2] == 1:
        return s.square().sum((0, 2)).permute(1, 2, 0) @ a.square().sum(1).transpose(0, 1)
    total = s.new_zeros(groups, s.shape[4], a.shape[3])
    for few in _chunks(s.shape[1], total.numel()):
        by_position = a[few].transpose(1, 2)  # (n, groups, T, m)
        for column in s:
            gradients = column[few].permute(0, 2, 3, 1) @ by_position
            total += gradients.square_().sum(0)
    return total


def one_hot_squares(s: Tensor, inputs: OneHotInputs) -> Tensor:
    """D of k columns s (k, N, T, 1, r) and one-hot inputs of E entries: (1, r, E).

    Positions of one sample with the same entry are added before they are squared.
    """
    n = len(inputs.index)
    samples = torch.arange(n, device=s.device)[:, None] * inputs.entries
    index, active = inputs.index, inputs.index >= 0
    pairs, position = (samples + index)[active].unique(return_inverse=True)
    sums = s.new_zeros(len(s), len(pairs), s.shape[4])
    sums.index_add_(1, position, s[:, :, :, 0][:, active])
    total = s.new_zeros(s.shape[4], inputs.entries)
    total.index_add_(1, pairs % inputs.entries, sums.square_().sum(0).t())
    return total[None]


def _chunks(samples: int, entries: int) -> Iterator[slice]:
    """Slices of the samples, each with at most MAX_ENTRIES entries of gradients."""
    size = max(1, MAX_ENTRIES // max(1, entries))
    for start in range(0, samples, size):
        yield slice(start, start + size)
