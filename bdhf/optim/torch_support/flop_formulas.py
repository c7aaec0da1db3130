"""FLOPs of operators that torch's own table lacks: fused layers, attention, linear algebra.

A product of (m, k) with (k, n) is 2 m n k, as in torch's table. Decompositions are those of Golub
and Van Loan, Matrix Computations (4th ed., 2013), for real matrices: the leading terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

#: FLOPs of a call, from its arguments and its result `out_val`.
Formula = Callable[..., float]


def _entries(x: Tensor) -> int:
    """The number of stored entries: without the zeros of a sparse matrix."""
    if x.layout == torch.strided:
        return x.numel()
    return int((x._values() if x.layout == torch.sparse_coo else x.values()).numel())


def _product(a: Tensor, b: Tensor) -> float:
    """The product of matrices, or of batches of them; b may be a vector, each may be sparse."""
    inner, columns = a.shape[-1], b.shape[-1] if b.dim() > 1 else 1
    if b.layout == torch.strided:
        return 2 * _entries(a) * columns
    return 2 * _entries(a) * _entries(b) / max(inner, 1)  # each entry of a meets a row of b


def _matmul(a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    return _product(a, b)


def _added(_: Tensor, a: Tensor, b: Tensor, *__: Any, **___: Any) -> float:
    """A product that is added to the first argument."""
    return _product(a, b)


def _grouped(a: Tensor, b: Tensor, *_: Any, out_val: Tensor, **__: Any) -> float:
    """Groups of rows, each with its own matrix, or groups of the inner dimension."""
    flat = a.dim() == b.dim() == 2
    return 2 * a.numel() * b.shape[-1] if flat else 2 * out_val.numel() * a.shape[-1]


def _recurrent(inputs: Tensor, matrices: Iterable[Tensor]) -> float:
    """Every weight matrix multiplies every position once; inputs are (..., features)."""
    positions = inputs.numel() // max(inputs.shape[-1], 1)
    return 2 * positions * sum(matrix.numel() for matrix in matrices if matrix.dim() == 2)


def _onednn_rnn(inputs: Tensor, of_input: Tensor, of_hidden: Tensor, *_: Any, **__: Any) -> float:
    """One layer in one direction."""
    return _recurrent(inputs, (of_input, of_hidden))


def _cudnn_rnn(inputs: Tensor, weights: Sequence[Tensor], *_: Any, **__: Any) -> float:
    """All layers and directions; a list of the weights, matrices and biases."""
    return _recurrent(inputs, weights)


def _twice(forward: Formula) -> Formula:
    """The backward pass of matrix products: one for the data and one for the weights."""
    return lambda *args, **kwargs: 2 * forward(*args, **kwargs)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> float:
    """Scores, and values by their weights; a causal mask saves nothing, as in torch's table."""
    pairs = math.prod(query.shape[:-1]) * key.shape[-2]
    return 2 * pairs * (query.shape[-1] + value.shape[-1])


def _attention_back(
    _: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any
) -> float:
    """The scores again, and a product for each argument, the weights and the scores."""
    pairs = math.prod(query.shape[:-1]) * key.shape[-2]
    return 2 * pairs * (3 * query.shape[-1] + 2 * value.shape[-1])


def _trilinear(
    a: Tensor, b: Tensor, c: Tensor,
    without_a: Sequence[int], without_b: Sequence[int], without_c: Sequence[int],
    summed: Sequence[int], *_: Any, **__: Any,
) -> float:  # fmt: skip
    """Σ a b c over some dimensions: a with b first, and the result with c.

    The numbering of dimensions includes those that an argument lacks (`without_`).
    """
    lengths: dict[int, int] = {}
    dims = a.dim() + len(without_a)
    own = [[d for d in range(dims) if d not in without] for without in (without_a, without_b)]
    third = [d for d in range(dims) if d not in without_c]
    for tensor, axes in zip((a, b, c), (*own, third), strict=True):
        for axis, length in zip(axes, tensor.shape, strict=True):
            lengths[axis] = max(length, lengths.get(axis, 1))
    first = {*own[0], *own[1]}
    second = {d for d in first if d not in summed or d in third} | set(third)
    return 2 * sum(math.prod(lengths[d] for d in axes) for axes in (first, second))


def _pairs(a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    """Distances of all rows to all rows: like a product with the transposed."""
    return 2 * a.numel() * b.shape[-2]


def _pairs_back(_: Tensor, a: Tensor, b: Tensor, *__: Any, **___: Any) -> float:
    return _pairs(a, b)


def _euclidean(a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    """A product, with two columns more for the squared lengths."""
    return 2 * math.prod(a.shape[:-1]) * (a.shape[-1] + 2) * b.shape[-2]


def _within(a: Tensor, *_: Any, **__: Any) -> float:
    """Distances of the rows of one matrix to each other, each pair once."""
    return a.numel() * (a.shape[-2] - 1)


def _within_back(_: Tensor, a: Tensor, *__: Any, **___: Any) -> float:
    return _within(a)


def _affine_grid(theta: Tensor, *_: Any, out_val: Tensor, **__: Any) -> float:
    return 2 * out_val.numel() * theta.shape[-1]


def _fft(_: Tensor, dims: Sequence[int], *__: Any, out_val: Tensor, **___: Any) -> float:
    """5 n log₂ n, by convention."""
    n = math.prod(out_val.shape[d] for d in dims)
    return 5 * out_val.numel() * math.log2(n) if n > 1 else 0


def _decomposed(count: Callable[[int, int], float], argument: int = 0) -> Formula:
    """`count(long, short)` for every matrix of an argument."""

    def flops(*args: Any, **_: Any) -> float:
        a = args[argument]
        long, short = max(a.shape[-2:]), min(a.shape[-2:])
        return float(math.prod(a.shape[:-2]) * count(long, short))

    return flops


def _solved(factor: float, each: float, matrix: int, right: int) -> Formula:
    """`factor` n³ to decompose and `each` n² per right-hand side, by positions of arguments.

    A right-hand side that is a vector has one column.
    """

    def flops(*args: Any, **_: Any) -> float:
        n, many = args[matrix].shape[-1], args[matrix].shape[:-2]
        columns = args[right].numel() / max(n * math.prod(many), 1)
        return float(math.prod(many) * (factor * n**3 + each * n**2 * columns))

    return flops


def _triangular(a: Tensor, b: Tensor, *_: Any, left: bool = True, **__: Any) -> float:
    return b.numel() * a.shape[-1]


def _eigen(a: Tensor, uplo: str = "L", compute_v: bool = True) -> float:
    """Symmetric: tridiagonal form and QR steps, with or without the vectors."""
    return float(math.prod(a.shape[:-2]) * (9 if compute_v else 4 / 3) * a.shape[-1] ** 3)


def _svd(a: Tensor, full_matrices: bool = False, compute_uv: bool = True, **_: Any) -> float:
    long, short = max(a.shape[-2:]), min(a.shape[-2:])
    values = 4 * long * short**2 - 4 / 3 * short**3
    both = 14 * long * short**2 + 8 * short**3
    return float(math.prod(a.shape[:-2]) * (both if compute_uv else values))


def _least_squares(a: Tensor, b: Tensor, *_: Any, **__: Any) -> float:
    """By QR: Qᵀb and a triangular solve for every column."""
    m, n = a.shape[-2:]
    columns = b.numel() / max(math.prod(a.shape[:-1]), 1)
    qr = _householder(max(m, n), min(m, n))
    return float(math.prod(a.shape[:-2]) * (qr + columns * (4 * m * n - n**2)))


def _householder(m: int, n: int) -> float:
    return float(2 * m * n**2 - 2 / 3 * n**3)


_CUBE = {"cholesky": 1 / 3, "lu": 2 / 3, "inverse": 2.0, "exponential": 10.0, "eigenvalues": 10.0}


def _cube(name: str) -> Formula:
    return _decomposed(lambda m, n: _CUBE[name] * n**3)


#: Operator -> formula. Those of matrix products are torch's, repeated here for sparse matrices.
FORMULAS: Mapping[str, Formula] = {
    **dict.fromkeys(("mm", "bmm", "mv", "_sparse_mm", "_int_mm", "matmul"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addbmm", "_sparse_addmm"), _added),
    "sparse_sampled_addmm": lambda s, a, b, **_: 2 * _entries(s) * a.shape[-1],
    "_sparse_mm_reduce_impl": _matmul,
    "linear": lambda x, weight, *_, **__: 2 * x.numel() * weight.shape[0],
    **dict.fromkeys(("_grouped_mm", "_scaled_grouped_mm"), _grouped),
    "mkldnn_rnn_layer": _onednn_rnn,
    "mkldnn_rnn_layer_backward": _twice(_onednn_rnn),
    **dict.fromkeys(("_cudnn_rnn", "miopen_rnn"), _cudnn_rnn),
    **dict.fromkeys(("_cudnn_rnn_backward", "miopen_rnn_backward"), _twice(_cudnn_rnn)),
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_back,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "_scaled_dot_product_fused_attention_overrideable_backward": _attention_back,
    "_trilinear": _trilinear,
    "_cdist_forward": _pairs,
    "_cdist_backward": _pairs_back,
    "_euclidean_dist": _euclidean,
    "_pdist_forward": _within,
    "_pdist_backward": _within_back,
    "affine_grid_generator": _affine_grid,
    **dict.fromkeys(("_fft_c2c", "_fft_r2c", "_fft_c2r"), _fft),
    **dict.fromkeys(("linalg_cholesky_ex", "linalg_ldl_factor_ex"), _cube("cholesky")),
    "cholesky_inverse": _decomposed(lambda m, n: 2 / 3 * n**3),
    "cholesky_solve": _solved(0, 2, 1, 0),
    "linalg_inv_ex": _cube("inverse"),
    **dict.fromkeys(("_linalg_det", "_linalg_slogdet"), _cube("lu")),
    **dict.fromkeys(
        ("linalg_lu", "linalg_lu_factor_ex"), _decomposed(lambda m, n: m * n**2 - n**3 / 3)
    ),
    "linalg_lu_solve": _solved(0, 2, 0, 2),
    "linalg_ldl_solve": _solved(0, 2, 0, 2),
    "_linalg_solve_ex": _solved(2 / 3, 2, 0, 1),
    "linalg_solve_triangular": _triangular,
    "triangular_solve": lambda b, a, *_, **__: _triangular(a, b),
    "linalg_qr": _decomposed(lambda m, n: 2 * _householder(m, n)),
    **dict.fromkeys(("geqrf", "linalg_householder_product"), _decomposed(_householder)),
    "ormqr": lambda a, tau, other, *_, **__: 4 * other.numel() * tau.shape[-1],
    "linalg_lstsq": _least_squares,
    "linalg_pinv": _decomposed(lambda m, n: 16 * m * n**2 + 8 * n**3),
    "_linalg_svd": _svd,
    "_linalg_eigh": lambda *args, out_val, **kwargs: _eigen(*args, **kwargs),
    "linalg_eig": _decomposed(lambda m, n: 25 * n**3),
    "_linalg_eigvals": _cube("eigenvalues"),
    "linalg_matrix_exp": _cube("exponential"),  # a polynomial of degree 18 by five products
}
