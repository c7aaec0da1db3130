"""Embeddings: padded, summed, tied, limited in norm, and with sparse gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import Case
from tests.zoo.entry import Entry, Words, classes

SCALED: Words = ("'table'", "scale_grad_by_freq|check=False|GGN|PyTorch")
SECOND: Words = (r"(?i)EmbeddingBag", "GGN|Fisher")


class Tokens(nn.Module):
    """The mean of looked-up vectors."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(6, 3, **arguments), nn.Linear(3, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.table(tokens).mean(1)))


class Bag(nn.Module):
    """Vectors that one operator looks up and reduces, perhaps weighted."""

    def __init__(self, weighted: bool = False, **arguments: Any) -> None:
        super().__init__()
        self.table, self.head = nn.EmbeddingBag(6, 3, **arguments), nn.Linear(3, 3)
        self.weights = nn.Parameter(torch.rand(1, 3)) if weighted else None

    def forward(self, tokens: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.expand(tokens.shape).contiguous()
        return self.head(torch.tanh(self.table(tokens, per_sample_weights=weights)))


class Looked(nn.Module):
    """A table and a head without modules."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({"table": torch.randn(5, 2), "head": torch.randn(2, 2)})

    def forward(self, tokens: Tensor) -> Tensor:
        vectors = F.embedding(tokens, self.weights["table"])
        return torch.tanh(vectors.sum(1)) @ self.weights["head"]


class Tied(nn.Module):
    """The head is the table, read the other way."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.hidden = nn.Embedding(5, 3), nn.Linear(3, 3)
        self.head = nn.Linear(3, 5)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(self.table(tokens)))).mean(1)


def _on_tokens(build: Callable[[], nn.Module], refused: dict[str, Words] | None = None) -> Entry:
    def made() -> Case:
        return classes(build(), torch.randint(0, 5, (4, 3)))

    return Entry(made, refused or {})


def _padded() -> Case:
    tokens = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 1], [2, 2, 0]])
    return classes(Tokens(padding_idx=0), tokens)


def _limited() -> Case:
    """Vectors that are shorter than the limit, also after an update."""
    case = classes(Tokens(max_norm=1.0), torch.randint(0, 5, (4, 3)))
    case.model.table.weight.detach().mul_(0.3)
    return case


ENTRIES: dict[str, Entry] = {
    "embedding": _on_tokens(Tokens),
    "embedding, pads reach the outputs": Entry(_padded),
    "embedding, limited norm": Entry(_limited),
    "embedding, scaled by frequency": Entry(
        lambda: classes(Tokens(scale_grad_by_freq=True), torch.randint(0, 5, (4, 3))),
        dict.fromkeys(("step", "ggn", "fisher"), SCALED),
        {"hessian": SCALED},
    ),
    "embedding, sparse gradients": _on_tokens(
        lambda: Tokens(sparse=True), {"all": ("'table'", "sparse=False")}
    ),
    "embedding, tied": _on_tokens(Tied),
    "embedding by the function": _on_tokens(Looked),
    "bag, sum": _on_tokens(lambda: Bag(mode="sum"), {"hessian": SECOND}),
    "bag, mean": _on_tokens(lambda: Bag(mode="mean"), {"hessian": SECOND}),
    "bag, max": _on_tokens(lambda: Bag(mode="max"), {"hessian": SECOND}),
    "bag, weighted": _on_tokens(lambda: Bag(weighted=True, mode="sum"), {"hessian": SECOND}),
}
