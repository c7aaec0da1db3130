"""Parameters used by functions instead of modules, by views, in place, and through torch.func."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.zoo.entry import Entry, classes, regression


class Through(nn.Module):
    """A linear layer, a function of its outputs and of one parameter, and a linear layer."""

    def __init__(
        self, use: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...], width: int = 3
    ) -> None:
        super().__init__()
        self.front, self.head = nn.Linear(3, 4), nn.Linear(width, 2)
        self.weight, self.use = nn.Parameter(torch.randn(shape)), use

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.use(self.front(x), self.weight)))


class Images(nn.Module):
    """A convolution by the function, with a stride."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.front, self.weight = nn.Conv2d(1, 2, 1), nn.Parameter(torch.randn(2, 2, size, size))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(torch.tanh(self.front(x)), self.weight, stride=2).mean((2, 3))


class Mapped(nn.Module):
    """A network on one sample, mapped over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return vmap(self.net)(x)


class Called(nn.Module):
    """A network, called with half of its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        halves = {name: p / 2 for name, p in self.net.named_parameters()}
        return functional_call(self.net, halves, (x,))


class InPlace(nn.Module):
    """Outputs of a layer, changed where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.scale, self.head = nn.Linear(3, 4), nn.Linear(3, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.front(x)
        h[:, 1:3] += self.scale(x)
        h[:, 0] = self.scale(x)[:, 0].exp()
        h.mul_(0.5).tanh_()
        return self.head(h)


class Checkpointed(nn.Module):
    """A part that the backward pass computes again."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.head = nn.Linear(3, 3), nn.Linear(3, 2)
        self.middle = nn.Sequential(nn.Tanh(), nn.Linear(3, 3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.middle, self.front(x), use_reentrant=False))


class Experts(nn.Module):
    """Every sample goes to the expert with the highest score."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.gate, self.head = nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 2)
        self.experts = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.front(x))
        score, chosen = self.gate(h).softmax(1).max(1)
        mixed = torch.zeros_like(h)
        for index, expert in enumerate(self.experts):
            (rows,) = (chosen == index).nonzero(as_tuple=True)
            mixed = mixed.index_add(0, rows, score[rows, None] * expert(h[rows]))
        return self.head(mixed)


class Routed(nn.Module):
    """A narrow layer, after which some samples take a detour."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.head = nn.Linear(6, 2), nn.Linear(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.front(x)
        rows = (h[:, 0] > 0).nonzero()[:, 0]
        return self.head(h.index_add(0, rows, torch.tanh(h[rows])))


def _rows(h: Tensor, weight: Tensor) -> Tensor:
    return torch.index_select(weight, 0, torch.tensor([2, 0, 1])) @ h.T


def _picked(h: Tensor, weight: Tensor) -> Tensor:
    index = torch.tensor([[0, 2, 1]]).expand(len(h), -1)
    return torch.gather(h, 1, index) * weight


def _batched(h: Tensor, weight: Tensor) -> Tensor:
    return torch.bmm(h[:, None], weight.expand(len(h), -1, -1))[:, 0]


def _strided(h: Tensor, weight: Tensor) -> Tensor:
    return torch.as_strided(h, (len(h), 3), (4, 1)) * weight


def _masked(h: Tensor, weight: Tensor) -> Tensor:
    return torch.where(h[:, :3] > 0, h[:, :3] * weight, weight.square()).masked_fill(
        h[:, :3] > 1, 0
    )


def _sorted(h: Tensor, weight: Tensor) -> Tensor:
    return torch.sort(h, dim=1).values[:, :3].cumsum(1) * weight


def _solved(h: Tensor, weight: Tensor) -> Tensor:
    matrix = weight @ weight.T + torch.eye(len(weight), dtype=weight.dtype)
    return torch.linalg.solve(matrix, h.T).T[:, :3]


def _normal(h: Tensor, weight: Tensor) -> Tensor:
    return F.normalize(h, dim=1) @ F.normalize(weight, dim=0)


Use = Callable[[Tensor, Tensor], Tensor]
USES: dict[str, tuple[Use, tuple[int, ...]]] = {
    "linear by a view": (lambda h, w: F.linear(h, w.view(3, 4)), (12,)),
    "linear by a part": (lambda h, w: F.linear(h, w[1:]), (4, 4)),
    "linear by a transpose": (lambda h, w: F.linear(h, w.t()), (4, 3)),
    "matmul": (lambda h, w: torch.matmul(h, w), (4, 3)),
    "einsum": (lambda h, w: torch.einsum("ni,ij->nj", h, w), (4, 3)),
    "einsum of three": (lambda h, w: torch.einsum("ni,ijk,nj->nk", h, w, h), (4, 4, 3)),
    "addmm": (lambda h, w: torch.addmm(w[0], h, w[1:]), (5, 3)),
    "bmm": (_batched, (4, 3)),
    "gather": (_picked, (3,)),
    "as_strided": (_strided, (3,)),
    "where": (_masked, (3,)),
    "sort and cumsum": (_sorted, (3,)),
    "solve": (_solved, (4, 4)),
    "normalize": (_normal, (4, 3)),
    "cdist": (lambda h, w: torch.cdist(h, w), (3, 4)),
    "distances": (lambda h, w: (h[:, None] - w).square().sum(2), (3, 4)),
    "roll and flip": (lambda h, w: (h.roll(1, 1).flip(1) * w)[:, :3], (4,)),
    "logsumexp": (lambda h, w: torch.logsumexp(h[:, :, None] + w, 1), (4, 3)),
    "outer product": (lambda h, w: (h[:, :, None] * h[:, None, :]).flatten(1)[:, :3] * w, (3,)),
}


def _twice(distances: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Whether this release of torch differentiates an operator a second time."""
    rows = torch.eye(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(distances(rows, rows + 1).sum(), rows, create_graph=True)
    try:
        torch.autograd.grad(gradient.sum(), rows)
    except RuntimeError:
        return False
    return True


ENTRIES: dict[str, Entry] = {
    **{
        name: Entry(lambda use=use, shape=shape: regression(Through(use, shape), torch.randn(4, 3)))
        for name, (use, shape) in USES.items()
        if name != "cdist"
    },
    "cdist": Entry(
        lambda: regression(Through(*USES["cdist"]), torch.randn(4, 3)),
        {} if _twice(torch.cdist) else {"hessian": ("Through", "GGN")},
    ),
    "index_select": Entry(
        lambda: regression(Through(lambda h, w: _rows(h, w).T, (3, 4)), torch.randn(4, 3))
    ),
    "conv2d by the function": Entry(lambda: regression(Images(2), torch.randn(3, 1, 4, 4))),
    "conv2d of one pixel by the function": Entry(
        lambda: regression(Images(1), torch.randn(3, 1, 4, 4))
    ),
    "vmap": Entry(lambda: regression(Mapped(), torch.randn(4, 3))),
    "functional_call": Entry(lambda: regression(Called(), torch.randn(4, 3))),
    "in place": Entry(lambda: regression(InPlace(), torch.randn(4, 3))),
    "checkpoint": Entry(lambda: regression(Checkpointed(), torch.randn(4, 3))),
    "mixture of experts": Entry(lambda: classes(Experts(), torch.randn(5, 3))),
    "routed behind a narrow layer": Entry(lambda: regression(Routed(), torch.randn(5, 6))),
}
