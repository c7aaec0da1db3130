"""Attention: by modules and by functions, with masks, over tokens and over the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.cases import Case
from tests.zoo.entry import Entry, classes, regression


class SelfAttention(nn.Module):
    """A module of torch between linear layers; masks as keywords."""

    def __init__(self, masks: dict[str, Tensor], **arguments: Any) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(2, 4), nn.Linear(4, 2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, **arguments)
        self.masks = masks

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.head(self.attention(h, h, h, need_weights=False, **self.masks)[0].mean(1))


class CrossAttention(nn.Module):
    """Queries of one sequence, keys and values of another width; the weights are outputs too."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, kdim=3, vdim=2, batch_first=True)
        self.keys, self.values = nn.Linear(2, 3), nn.Linear(2, 2)

    def forward(self, sequences: tuple[Tensor, Tensor]) -> Tensor:
        query, memory = sequences
        mixed, weights = self.attention(query, self.keys(memory), self.values(memory))
        return torch.cat([mixed.mean(1), weights.square().mean(1)], 1)


class Scaled(nn.Module):
    """The function of torch, with a way to mask."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.project, self.head, self.attend = nn.Linear(2, 12), nn.Linear(4, 2), attend

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).view(len(x), -1, 2, 6).transpose(1, 2).chunk(3, dim=-1)
        return self.head(self.attend(q, k, v).transpose(1, 2).flatten(2).mean(1))


class Encoder(nn.Module):
    """Layers of torch's transformer in eval mode, on padded sequences, and their mean."""

    def __init__(self, layers: int, **arguments: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 4, batch_first=True, **arguments)
        self.encoder = nn.TransformerEncoder(layer, layers)
        self.embed, self.head = nn.Linear(2, 4), nn.Linear(4, 2)
        self.register_buffer("padding", padding())

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(self.embed(x), src_key_padding_mask=self.padding)
        return self.head(h.mean(1))


class Decoder(nn.Module):
    """A causal decoder that attends to a padded memory."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(2, 1, 2, batch_first=True)
        self.decoder, self.embed = nn.TransformerDecoder(layer, 1), nn.Linear(2, 2)
        self.register_buffer("padding", padding())

    def forward(self, sequences: tuple[Tensor, Tensor]) -> Tensor:
        targets, memory = sequences
        causal = torch.ones(targets.shape[1], targets.shape[1], dtype=torch.bool).triu(1)
        return self.decoder(
            targets, self.embed(memory), tgt_mask=causal, memory_key_padding_mask=self.padding
        ).mean(1)


class Seq2Seq(nn.Module):
    """torch's whole transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Transformer(2, 2, 1, 1, 2, batch_first=True)

    def forward(self, sequences: tuple[Tensor, Tensor]) -> Tensor:
        return self.transformer(*sequences).mean(1)


class OverTheBatch(nn.Module):
    """Every sample attends to every other."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.head = nn.Linear(2, 9), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).chunk(3, dim=1)
        return self.head((q @ k.T).softmax(1) @ v)


class Checkpointed(Scaled):
    """Attention that the backward pass computes again."""

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(super().forward, x, use_reentrant=False)


def padding() -> Tensor:
    """Which of three tokens do not count, in each of three samples."""
    return torch.tensor([[False, False, True], [False, False, False], [False, True, True]])


def _self(masks: Callable[[], dict[str, Tensor]] = dict, **arguments: Any) -> Entry:
    return Entry(lambda: regression(SelfAttention(masks(), **arguments), torch.randn(3, 3, 2)))


def _scaled(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Entry:
    return Entry(lambda: regression(Scaled(attend), torch.randn(3, 3, 2)))


def _encoder(layers: int = 1, **arguments: Any) -> Entry:
    return Entry(lambda: classes(Encoder(layers, **arguments).eval(), torch.randn(3, 3, 2)))


def _two(build: Callable[[], nn.Module]) -> Entry:
    def made() -> Case:
        return regression(build().eval(), (torch.randn(3, 2, 2), torch.randn(3, 3, 2)))

    return Entry(made)


def _cross() -> Case:
    return regression(CrossAttention(), (torch.randn(3, 2, 4), torch.randn(3, 3, 2)))


def _additive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    bias = torch.arange(3, dtype=q.dtype) - torch.arange(3, dtype=q.dtype)[:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.5)


ENTRIES: dict[str, Entry] = {
    "attention": _self(),
    "attention, padded": _self(lambda: {"key_padding_mask": padding()}),
    "attention, causal": _self(lambda: {"attn_mask": torch.ones(3, 3).triu(1).bool()}),
    "attention, more keys": _self(add_bias_kv=True, add_zero_attn=True),
    "attention without bias": _self(bias=False),
    "cross attention": Entry(_cross),
    "scaled dot products": _scaled(F.scaled_dot_product_attention),
    "scaled dot products, causal": _scaled(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    ),
    "scaled dot products, biased": _scaled(_additive),
    "encoder, padded": _encoder(),
    "encoder, padded, norm first": _encoder(2, norm_first=True, activation="gelu"),
    "decoder, padded memory": _two(Decoder),
    "transformer": _two(Seq2Seq),
    "attention over the batch": Entry(lambda: classes(OverTheBatch(), torch.randn(5, 2))),
    "attention, checkpointed": Entry(
        lambda: regression(Checkpointed(F.scaled_dot_product_attention), torch.randn(3, 3, 2))
    ),
}
