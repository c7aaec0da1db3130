"""Small models of language, of pairs and of latent codes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import Case
from tests.zoo.entry import Entry, classes, regression

RANDOM = ("full", "per_layer", "random")


class Attention(nn.Module):
    """Projections and softmax by hand, perhaps causal, with rotated positions."""

    def __init__(self, width: int, causal: bool = False, rotated: bool = False) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.causal, self.rotated = causal, rotated

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).chunk(3, dim=2)
        if self.rotated:
            q, k = _rotate(q), _rotate(k)
        scores = q @ k.transpose(1, 2) / x.shape[2] ** 0.5
        if self.causal:
            above = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(above, float("-inf"))
        return self.out(scores.softmax(2) @ v)


def _rotate(x: Tensor) -> Tensor:
    """Turn every pair of features by an angle that grows with the position."""
    angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None]
    even, odd = x[..., ::2], x[..., 1::2]
    pairs = [even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()]
    return torch.stack(pairs, -1).flatten(2)


class Gpt(nn.Module):
    """Token and position, a causal block, a head that is tied to the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(4, 2), nn.Embedding(3, 2)
        self.norm1, self.norm2, self.norm = nn.LayerNorm(2), nn.LayerNorm(2), nn.LayerNorm(2)
        self.attention = Attention(2, causal=True)
        self.mlp = nn.Sequential(nn.Linear(2, 4), nn.GELU("tanh"), nn.Linear(4, 2))
        self.head = nn.Linear(2, 4, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        h = h + self.attention(self.norm1(h))
        h = h + self.mlp(self.norm2(h))
        return self.head(self.norm(h)).transpose(1, 2)


class Llama(nn.Module):
    """Root mean squares, rotated positions, a gated network."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.norm1, self.norm2 = nn.Embedding(4, 2), nn.RMSNorm(2), nn.RMSNorm(2)
        self.attention = Attention(2, causal=True, rotated=True)
        self.gate, self.up, self.down = nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(3, 2)
        self.head = nn.Linear(2, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.tokens(tokens)
        h = h + self.attention(self.norm1(h))
        normed = self.norm2(h)
        h = h + self.down(F.silu(self.gate(normed)) * self.up(normed))
        return self.head(h).transpose(1, 2)


class Bert(nn.Module):
    """Tokens, positions and segments; a dictionary of inputs; the first token is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(5, 4, padding_idx=0), nn.Embedding(3, 4)
        self.segments, self.norm = nn.Embedding(2, 4), nn.LayerNorm(4)
        self.block = nn.TransformerEncoderLayer(4, 2, 4, activation="gelu", batch_first=True)
        self.pool, self.head = nn.Linear(4, 2), nn.Linear(2, 2)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens, segments = inputs["tokens"], inputs["segments"]
        h = self.tokens(tokens) + self.segments(segments) + self.positions.weight
        h = self.block(self.norm(h), src_key_padding_mask=tokens == 0)
        return self.head(torch.tanh(self.pool(h[:, 0])))


class T5(nn.Module):
    """Encoder and decoder with biases of relative positions and shared tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.bias = nn.Embedding(4, 2), nn.Embedding(5, 1)
        self.encoder, self.decoder, self.cross = (nn.Linear(2, 6, bias=False) for _ in range(3))
        self.norm = nn.RMSNorm(2)

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        source, target = (self.tokens(tokens) for tokens in pair)
        memory = source + self._attend(self.encoder, source, source)
        h = target + self._attend(self.decoder, target, target)
        h = h + self._attend(self.cross, self.norm(h), memory)
        return F.linear(h, self.tokens.weight).transpose(1, 2)

    def _attend(self, project: nn.Module, x: Tensor, memory: Tensor) -> Tensor:
        q, (k, v) = project(x)[..., :2], project(memory)[..., 2:].chunk(2, dim=2)
        apart = torch.arange(x.shape[1])[:, None] - torch.arange(memory.shape[1]) + 2
        return (q @ k.transpose(1, 2) + self.bias(apart)[..., 0]).softmax(2) @ v


class Siamese(nn.Module):
    """One network on two inputs, and their distance."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        left, right = pair
        return (self.net(left) - self.net(right)).square().sum(1)


class Autoencoder(nn.Module):
    """Mean and variance of a code, and the reconstruction of its mean: all as one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.mean, self.log_variance = (
            nn.Linear(*w) for w in [(3, 3), (3, 2), (3, 2)]
        )
        self.decoder = nn.Linear(2, 3)
        self.register_buffer("noise", torch.randn(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.encoder(x))
        mean, log_variance = self.mean(h), self.log_variance(h)
        code = mean + (log_variance / 2).exp() * self.noise
        return torch.cat([self.decoder(code), mean, log_variance], 1)


def _elbo(outputs: Tensor, x: Tensor) -> Tensor:
    """Squared error and the distance of the code from a standard normal."""
    made, mean, log_variance = outputs.split([3, 2, 2], dim=1)
    apart = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)
    return (made - x).square().sum(1).mean() + apart.sum(1).mean()


def _autoencoder() -> Case:
    x = torch.randn(4, 3)
    return Case(Autoencoder(), _elbo, (x, x), recognised=False)


def _language(build: Callable[[], nn.Module]) -> Entry:
    def made() -> Case:
        return classes(build(), torch.randint(0, 4, (3, 3)))

    return Entry(made, partitions=RANDOM)


def _bert() -> Case:
    tokens = torch.tensor([[1, 2, 0], [3, 4, 2], [2, 0, 0]])
    return classes(Bert().eval(), {"tokens": tokens, "segments": tokens % 2})


def _t5() -> Case:
    return classes(T5(), (torch.randint(0, 4, (3, 3)), torch.randint(0, 4, (3, 2))))


def _siamese() -> Case:
    return regression(Siamese(), (torch.randn(4, 3), torch.randn(4, 3)))


ENTRIES: dict[str, Entry] = {
    "gpt": _language(Gpt),
    "llama": _language(Llama),
    "bert": Entry(_bert, partitions=RANDOM),
    "t5": Entry(_t5, partitions=RANDOM),
    "siamese": Entry(_siamese),
    "variational autoencoder": Entry(_autoencoder, {"fisher": (r"bdhf\.optim\.Likelihood",)}),
}
