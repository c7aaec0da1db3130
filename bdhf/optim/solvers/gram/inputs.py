"""The linear algebra of the inputs a of a site, dense or one-hot.

Tensors of a weight are (g, f, d): groups, features of a group, entries; tensors of y are
(N, T, g, f), and cotangents (C, N, T, g, f).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bdhf.optim.products.site_samples import DenseInputs, Inputs, OneHotInputs


def row_length(a: Inputs) -> int:
    """D, the entries of a row."""
    return a.entries if isinstance(a, OneHotInputs) else a.values.shape[3]


def of_groups(a: Inputs, groups: slice, like: Tensor) -> Inputs:
    """The inputs of some groups, in the precision of `like`; a one-hot site has one group."""
    return a if isinstance(a, OneHotInputs) else DenseInputs(a.values[:, :, groups].to(like.dtype))


def of_samples(a: Inputs, samples: slice) -> Inputs:
    """The inputs of some samples."""
    if isinstance(a, OneHotInputs):
        return OneHotInputs(a.index[samples], a.entries)
    return DenseInputs(a.values[samples])


def inner(a: Inputs, b: Inputs, group: int, like: Tensor) -> Tensor:
    """⟨a_nt, b_n't'⟩ in one group, (N T, N' T')."""
    if isinstance(a, OneHotInputs):
        assert isinstance(b, OneHotInputs)  # the micro-batches of one site
        left, right = a.index.reshape(-1, 1), b.index.reshape(1, -1)
        return ((left == right) & (left >= 0)).to(like.dtype)
    assert isinstance(b, DenseInputs)
    left, right = (part.values[:, :, group].flatten(0, 1) for part in (a, b))
    return left @ right.T


def sample_rows(s: Tensor, a: Inputs) -> Tensor:
    """Σ_t s_cnt a_ntᵀ of every column and sample, (C, N, g, f, d)."""
    if isinstance(a, DenseInputs):
        return torch.einsum("cntgf,ntgd->cngfd", s, a.values)
    valid = a.index >= 0
    spread = (s * valid[None, :, :, None, None]).permute(0, 1, 3, 4, 2)
    out = s.new_zeros(*spread.shape[:-1], a.entries)
    index = a.index.clamp_min(0)[None, :, None, None, :].expand(spread.shape)
    return out.scatter_add_(-1, index, spread)


def push(v: Tensor, a: Inputs) -> Tensor:
    """V a of every position, (g, f, d) -> (N, T, g, f)."""
    if isinstance(a, DenseInputs):
        return torch.einsum("gfd,ntgd->ntgf", v, a.values)
    read = v[:, :, a.index.clamp_min(0)].permute(2, 3, 0, 1)
    return read * (a.index >= 0)[:, :, None, None]


def pull(u: Tensor, a: Inputs) -> Tensor:
    """Σ_nt u_nt a_ntᵀ, (N, T, g, f) -> (g, f, d)."""
    if isinstance(a, DenseInputs):
        return torch.einsum("ntgf,ntgd->gfd", u, a.values)
    masked = u * (a.index >= 0)[:, :, None, None]
    out = u.new_zeros(a.entries, *u.shape[2:])
    out.index_add_(0, a.index.clamp_min(0).reshape(-1), masked.flatten(0, 1))
    return out.permute(1, 2, 0)
