"""Tables, recurrent layers, bare parameters and control flow: the second half of `families`."""

from __future__ import annotations

import functools

import torch
import torch.utils.checkpoint
from families_layers import N, Net, drawn, headed, parameter, tokens, vectors, words
from torch import nn
from torch.nn import functional as F


class Positioned(nn.Module):
    """Words and positions looked up, the positions once for all samples."""

    def __init__(self, expanded, tied=False):
        super().__init__()
        self.words, self.places, self.norm = nn.Embedding(9, 6), nn.Embedding(5, 6), nn.LayerNorm(6)
        self.register_buffer("numbers", torch.arange(5)[None])
        self.expanded, self.tied, self.head = expanded, tied, nn.Linear(6, 3)

    def forward(self, x):
        numbers = self.numbers.expand(len(x), -1) if self.expanded else self.numbers
        z = torch.tanh(self.norm(self.words(x) + self.places(numbers))).mean(1)
        return F.linear(z, self.words.weight) if self.tied else self.head(z)


def relative(s, x):
    near = torch.arange(4)[:, None] - torch.arange(4)[None] + 3
    bias = s.bias(near).permute(2, 0, 1)
    return s.head((torch.softmax((x @ x.mT)[:, None] + bias, -1) @ x[:, None]).mean((1, 2)))


def tables():
    return {
        "mean of words": lambda: (
            Net(lambda s, x: s.head(torch.tanh(s.t(x)).mean(1)), t=nn.Embedding(9, 6), head=nn.Linear(6, 3)),
            words(),
        ),
        "padding line": lambda: (
            Net(
                lambda s, x: s.head(torch.tanh(s.t(x)).mean(1)),
                t=nn.Embedding(9, 6, padding_idx=0),
                head=nn.Linear(6, 3),
            ),
            words(),
        ),
        "functional, padding": lambda: (
            Net(
                lambda s, x: s.head(torch.tanh(F.embedding(x, s.t, padding_idx=-1)).mean(1)),
                t=parameter(9, 6),
                head=nn.Linear(6, 3),
            ),
            words(),
        ),
        "sparse": lambda: (
            Net(
                lambda s, x: s.head(torch.tanh(s.t(x)).mean(1)), t=nn.Embedding(9, 6, sparse=True), head=nn.Linear(6, 3)
            ),
            words(),
        ),
        "bag": lambda: (
            Net(lambda s, x: s.head(torch.tanh(s.t(x))), t=nn.EmbeddingBag(9, 6), head=nn.Linear(6, 3)),
            words(),
        ),
        "largest norm": lambda: (
            Net(
                lambda s, x: s.head(torch.tanh(s.t(x)).mean(1)),
                t=nn.Embedding(9, 6, max_norm=0.5),
                head=nn.Linear(6, 3),
            ),
            words(),
        ),
        "by frequency": lambda: (
            Net(
                lambda s, x: s.head(torch.tanh(s.t(x)).mean(1)),
                t=nn.Embedding(9, 6, scale_grad_by_freq=True),
                head=nn.Linear(6, 3),
            ),
            torch.stack([torch.randperm(9)[:5] for _ in range(N)]),
        ),
        "positions (1, T)": lambda: (drawn(Positioned(False)), words()),
        "positions, expanded": lambda: (drawn(Positioned(True)), words()),
        "tied": lambda: (drawn(Positioned(False, tied=True)), words()),
        "relative positions": lambda: (Net(relative, bias=nn.Embedding(7, 2), head=nn.Linear(6, 3)), tokens()),
        "indexed by hand": lambda: (
            Net(lambda s, x: s.head(s.t[x].mean(1)), t=parameter(9, 6), head=nn.Linear(6, 3)),
            words(),
        ),
    }


def recurrent():
    def last(s, x):
        return s.head(s.cell(x)[0][:, -1])

    def stepwise(s, x):
        h = x.new_zeros(len(x), 5)
        for t in range(x.shape[1]):
            h = s.cell(x[:, t], h)
        return s.head(h)

    def packed(s, x, lengths):
        rows = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return s.head(s.cell(rows)[1][-1])

    return {
        "lstm": lambda: (Net(last, cell=nn.LSTM(6, 5, batch_first=True), head=nn.Linear(5, 3)), tokens()),
        "gru, both ways": lambda: (
            Net(last, cell=nn.GRU(6, 5, 2, batch_first=True, bidirectional=True), head=nn.Linear(10, 3)),
            tokens(),
        ),
        "plain": lambda: (Net(last, cell=nn.RNN(6, 5, batch_first=True), head=nn.Linear(5, 3)), tokens()),
        "cell, step by step": lambda: (Net(stepwise, cell=nn.GRUCell(6, 5), head=nn.Linear(5, 3)), tokens()),
        "packed": lambda: (
            Net(packed, cell=nn.GRU(6, 5, batch_first=True), head=nn.Linear(5, 3)),
            {"x": tokens(), "lengths": torch.tensor([4, 2, 3, 1, 4, 2])},
        ),
        "by hand": lambda: (
            Net(
                lambda s, x: s.head(
                    functools.reduce(lambda h, z: torch.tanh(s.u(h) + s.w(z)), x.unbind(1), x.new_zeros(len(x), 5))
                ),
                u=nn.Linear(5, 5),
                w=nn.Linear(6, 5),
                head=nn.Linear(5, 3),
            ),
            tokens(),
        ),
    }


def bare():
    return {
        "scalar gate": lambda: (
            Net(lambda s, x: s.layer(x) * s.scale, layer=nn.Linear(5, 3), scale=parameter()),
            vectors(),
        ),
        "temperature": lambda: (
            Net(lambda s, x: s.layer(x) / s.heat.exp(), layer=nn.Linear(5, 3), heat=parameter()),
            vectors(),
        ),
        "divided": lambda: (Net(lambda s, x: s.layer(x) / s.size, layer=nn.Linear(5, 3), size=parameter(3)), vectors()),
        "rezero": lambda: (
            Net(lambda s, x: x + s.alpha * torch.tanh(s.layer(x)), layer=nn.Linear(5, 5), alpha=parameter(1)),
            vectors(),
        ),
        "layer scale": lambda: (
            Net(
                lambda s, x: s.head((x + s.gamma * s.mix(x)).mean(1)),
                mix=nn.Linear(6, 6),
                gamma=parameter(6),
                head=nn.Linear(6, 3),
            ),
            tokens(),
        ),
        "matrix": lambda: (
            Net(lambda s, x: torch.tanh(x @ s.w + s.b) @ s.v, w=parameter(5, 4), b=parameter(4), v=parameter(4, 3)),
            vectors(),
        ),
        "matrix of tokens": lambda: (
            Net(lambda s, x: torch.matmul(x, s.w).tanh().mean(1), w=parameter(6, 3)),
            tokens(),
        ),
        "transposed conv1d of gpt": lambda: (
            Net(
                lambda s, x: torch.addmm(s.b, x.view(-1, 6), s.w).view(*x.shape[:2], 3).tanh().mean(1),
                w=parameter(6, 3),
                b=parameter(3),
            ),
            tokens(),
        ),
        "einsum": lambda: (
            Net(lambda s, x: torch.einsum("ni,ik,k->nk", x, s.w, s.v), w=parameter(5, 3), v=parameter(3)),
            vectors(),
        ),
        "mixture of layers": lambda: (
            Net(
                lambda s, x: s.head(
                    sum(w * layer(x) for w, layer in zip(torch.softmax(s.mix, 0), s.layers, strict=True))
                ),
                layers=nn.ModuleList([nn.Linear(5, 4), nn.Linear(5, 4)]),
                mix=parameter(2),
                head=nn.Linear(4, 3),
            ),
            vectors(),
        ),
        "low rank": lambda: (Net(lambda s, x: F.linear(x, s.a @ s.b), a=parameter(3, 2), b=parameter(2, 5)), vectors()),
        "shared thrice": lambda: (
            Net(
                lambda s, x: s.head(torch.tanh(s.a(torch.tanh(s.a(torch.tanh(s.a(x))))))),
                a=nn.Linear(5, 5),
                head=nn.Linear(5, 3),
            ),
            vectors(),
        ),
        "used beside its layer": lambda: (
            Net(lambda s, x: s.a(x) + 0.1 * x @ s.a.weight, a=nn.Linear(5, 5)),
            vectors(),
        ),
        "complex": lambda: (
            Net(
                lambda s, x: s.head(torch.view_as_real(x.to(s.w.dtype) @ s.w).flatten(1).tanh()),
                w=nn.Parameter(torch.randn(5, 3, dtype=torch.complex64)),
                head=nn.Linear(6, 3),
            ),
            vectors(),
        ),
        "unused": lambda: (Net(lambda s, x: s.a(x), a=nn.Linear(5, 3), spare=nn.Linear(4, 4)), vectors()),
        "frozen": lambda: (headed(nn.Linear(5, 6).requires_grad_(False)), vectors()),
    }


def routed(s, x):
    which, out = (x[:, 0] > 0).long(), x.new_zeros(len(x), 4)
    for number, part in enumerate(s.parts):
        if (which == number).any():
            out[which == number] = part(x[which == number])
    return s.head(torch.tanh(out))


def kept(s, x, keep):
    out = x.new_zeros(*x.shape[:2], 4)
    out[keep] = torch.tanh(s.token(x[keep]))
    return s.head(out.sum(1))


def branched(s, x):
    out, large = s.a(x), x[:, :1] > 0.3
    return out + s.b(x) * large if large.any() else out


def teacher(s, x):
    with torch.no_grad():
        z = torch.relu(s.body(x))
    return s.head(z)


def reversed_rows(s, x):
    return s.head(torch.tanh(s.body(x.flip(0)))).flip(0)


def kept_in_attributes(s, x):
    s.seen = torch.softmax(s.body(x), 1)
    return s.head(s.seen)


def steered():
    two = {"a": nn.Linear, "b": nn.Linear}

    def pair(forward):
        return lambda: (Net(forward, **{name: kind(5, 3) for name, kind in two.items()}), vectors())

    def body(forward):
        return lambda: (Net(forward, body=nn.Linear(5, 4), head=nn.Linear(4, 3)), vectors())

    return {
        "experts": lambda: (
            Net(routed, parts=nn.ModuleList([nn.Linear(5, 4), nn.Linear(5, 4)]), head=nn.Linear(4, 3)),
            vectors(),
        ),
        "valid tokens": lambda: (
            Net(kept, token=nn.Linear(6, 4), head=nn.Linear(4, 3)),
            {"x": tokens(), "keep": torch.arange(4)[None] < torch.tensor([3, 2, 4, 3, 1, 4])[:, None]},
        ),
        "branch": pair(branched),
        "chosen by sample": pair(lambda s, x: torch.where(x[:, :1] > 0, s.a(x), s.b(x))),
        "under no_grad": body(teacher),
        "detached": body(lambda s, x: s.head(torch.tanh(s.body(x)) + torch.sigmoid(s.body(x)).detach())),
        "rows reversed": body(reversed_rows),
        "rows sorted": body(lambda s, x: s.head(torch.tanh(s.body(x[x[:, 0].argsort()])))[x[:, 0].argsort().argsort()]),
        "sample by sample": body(lambda s, x: torch.stack([s.head(torch.tanh(s.body(row))) for row in x])),
        "checkpoint": body(
            lambda s, x: s.head(torch.utils.checkpoint.checkpoint(s.body, x, use_reentrant=False).tanh())
        ),
        "checkpoint, reentrant": body(
            lambda s, x: s.head(torch.utils.checkpoint.checkpoint(s.body, x, use_reentrant=True).tanh())
        ),
        "attributes set": body(kept_in_attributes),
        "data parallel": lambda: (
            nn.DataParallel(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))),
            vectors(),
        ),
        "topk and sort": body(lambda s, x: s.head(torch.sort(s.body(x), 1).values) + s.body(x).topk(3, 1).values),
        "input in place": body(lambda s, x: s.head(torch.tanh(s.body(x.mul_(2))))),
    }
