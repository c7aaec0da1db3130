"""Models that other libraries build from a configuration: imported where they are built only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.cases import Case
from tests.zoo.entry import classes
from tests.zoo.graphs import NODES, edges


class Logits(nn.Module):
    """A model of transformers, as one tensor of scores."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, tokens: Tensor) -> Tensor:
        scores = self.model(tokens).logits
        return scores if scores.dim() == 2 else scores.transpose(1, 2)


class OnGraph(nn.Module):
    """A model of torch_geometric on one graph."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("edges", edges())

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, self.edges)


def gpt2() -> Case:
    """A language model with attention by the function of torch."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 4, "n_head": 2, "n_layer": 1, "vocab_size": 5, "n_positions": 3}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    return classes(Logits(model), torch.randint(0, 5, (2, 3)))


def bert() -> Case:
    """A classifier of sequences."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=5, hidden_size=4, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=4, max_position_embeddings=4,
    )  # fmt: skip
    return classes(Logits(BertForSequenceClassification(config)), torch.randint(1, 5, (3, 3)))


def graph(name: str) -> Case:
    """A graph network of two layers."""
    import torch_geometric.nn

    model = getattr(torch_geometric.nn, name)(3, 3, num_layers=2, out_channels=2)
    return classes(OnGraph(model).eval(), torch.randn(NODES, 3))


LIBRARIES: dict[str, Callable[[], Case]] = {
    "gpt2": gpt2,
    "bert": bert,
    **{name: lambda name=name: graph(name) for name in ("GCN", "GAT", "GIN", "GraphSAGE")},
}
