"""Graph networks: the nodes are the samples, and each reads others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.entry import Entry, classes

NODES = 6


def edges() -> Tensor:
    """A ring with a chord: (2, E)."""
    ring = torch.arange(NODES)
    sources, ends = torch.cat([ring, torch.tensor([0])]), torch.cat([(ring + 1) % NODES, ring[3:4]])
    return torch.stack([torch.cat([sources, ends]), torch.cat([ends, sources])])


def adjacency() -> Tensor:
    """The mean over a node and its neighbours, (nodes, nodes)."""
    matrix = torch.eye(NODES)
    matrix[tuple(edges())] = 1
    return matrix / matrix.sum(1, keepdim=True)


class Convolved(nn.Module):
    """Two graph convolutions with a matrix of any layout (Kipf & Welling 2017)."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2)
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(torch.sparse.mm(self.matrix, self.first(x)))
        return torch.sparse.mm(self.matrix, self.second(h))


class Shifted(nn.Module):
    """A shift, a bottleneck, a dense mean over neighbours, and a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.encoder = nn.Parameter(torch.randn(6)), nn.Linear(6, 2)
        self.decoder = nn.Sequential(nn.Tanh(), nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
        self.register_buffer("matrix", adjacency())

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.matrix @ self.encoder(x + self.shift))


class Gathered(nn.Module):
    """A graph convolution by messages along edges, with its bias added after the sum."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(outputs) / 2)
        self.weight = nn.Linear(inputs, outputs, bias=False)
        self.register_buffer("edges", edges())

    def forward(self, x: Tensor) -> Tensor:
        (sources, ends), h = self.edges, self.weight(x)
        return h.index_add(0, ends, h[sources]) / 3 + self.bias


class Isomorphism(nn.Module):
    """Sums over neighbours with a learned weight of the node itself (Xu et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.tensor(0.3))
        self.mlp = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
        self.register_buffer("edges", edges())

    def forward(self, x: Tensor) -> Tensor:
        sources, ends = self.edges
        return self.mlp((1 + self.eps) * x + torch.zeros_like(x).index_add(0, ends, x[sources]))


class Sage(nn.Module):
    """The node and the mean of its neighbours, each with a weight (Hamilton et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.neighbours = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.head = nn.Linear(3, 2)
        self.register_buffer("edges", edges())

    def forward(self, x: Tensor) -> Tensor:
        sources, ends = self.edges
        index = ends[:, None].expand(-1, x.shape[1])
        mean = torch.zeros_like(x).scatter_reduce(0, index, x[sources], "mean", include_self=False)
        return self.head(F.normalize(torch.relu(self.own(x) + self.neighbours(mean)) + 0.1, dim=1))


class GraphAttention(nn.Module):
    """Weights by a softmax over the neighbours of each node (Veličković et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.head = nn.Linear(3, 3, bias=False), nn.Linear(3, 2)
        self.source, self.end = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))
        self.register_buffer("edges", edges())

    def forward(self, x: Tensor) -> Tensor:
        (sources, ends), h = self.edges, self.project(x)
        score = F.leaky_relu((h @ self.source)[sources] + (h @ self.end)[ends], 0.2).exp()
        total = torch.zeros_like(h[:, 0]).index_add(0, ends, score)
        mixed = (score / total[ends])[:, None] * h[sources]
        return self.head(F.elu(torch.zeros_like(h).index_add(0, ends, mixed)))


ENTRIES: dict[str, Entry] = {
    "graph convolution, coordinates": Entry(
        lambda: classes(Convolved(adjacency().to_sparse_coo()), torch.randn(NODES, 3))
    ),
    "graph convolution, rows": Entry(
        lambda: classes(Convolved(adjacency().to_sparse_csr()), torch.randn(NODES, 3))
    ),
    "graph behind a shift": Entry(lambda: classes(Shifted(), torch.randn(NODES, 6))),
    "graph convolution, bias behind": Entry(
        lambda: classes(
            nn.Sequential(Gathered(3, 3), nn.ReLU(), Gathered(3, 2)), torch.randn(NODES, 3)
        )
    ),
    "graph isomorphism": Entry(lambda: classes(Isomorphism(), torch.randn(NODES, 3))),
    "graph sage": Entry(lambda: classes(Sage(), torch.randn(NODES, 3))),
    "graph attention": Entry(lambda: classes(GraphAttention(), torch.randn(NODES, 3))),
}
