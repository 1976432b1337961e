"""Dense layers, convolutions, normalisations and attention: the first half of `families`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

N = 6


class Net(nn.Module):
    """A module by a function of itself and its input, with parts by name."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs, **named):
        return self.run(self, *inputs, **named)


def vectors(width=5):
    return torch.randn(N, width)


def pixels(channels=2, side=6):
    return torch.randn(N, channels, side, side)


def signals(channels=2, length=9):
    return torch.randn(N, channels, length)


def tokens(length=4, width=6):
    return torch.randn(N, length, width)


def words(length=5, n=9):
    return torch.randint(n, (N, length))


def parameter(*shape):
    return nn.Parameter(torch.randn(shape) / 2 + 0.1)


def drawn(module):
    """Give normalisations other than their first weights and statistics."""
    for part in module.modules():
        if getattr(part, "running_mean", None) is not None:
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
        if "Norm" in type(part).__name__ and getattr(part, "weight", None) is not None:
            nn.init.normal_(part.weight, 1, 0.3)
            if getattr(part, "bias", None) is not None:
                nn.init.normal_(part.bias)
    return module


def headed(*parts, width=6, pool=None):
    """Layers, a rectifier, and a linear head on what is left of their output when it is flattened or pooled."""
    middle = [nn.Flatten()] if pool is None else [pool, nn.Flatten()]
    return drawn(nn.Sequential(*parts, nn.Tanh(), *middle, nn.Linear(width, 3)))


def mlps():
    return {
        "linear": lambda: (nn.Linear(5, 3), vectors()),
        "no bias": lambda: (nn.Sequential(nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 3)), vectors()),
        "deep, in place": lambda: (
            nn.Sequential(*[p for _ in range(4) for p in (nn.Linear(5, 5), nn.ReLU(inplace=True))], nn.Linear(5, 3)),
            vectors(),
        ),
        "activations": lambda: (
            nn.Sequential(
                nn.Linear(5, 8),
                nn.GELU(),
                nn.Linear(8, 8),
                nn.GLU(),
                nn.Softplus(),
                nn.Linear(4, 4),
                nn.ELU(),
                nn.Mish(),
                nn.SiLU(),
                nn.Linear(4, 3),
            ),
            vectors(),
        ),
        "prelu": lambda: (nn.Sequential(nn.Linear(5, 4), nn.PReLU(), nn.Linear(4, 4), nn.PReLU(4)), vectors()),
        "dropout": lambda: (
            nn.Sequential(nn.Linear(5, 4), nn.Dropout(), nn.AlphaDropout(), nn.Linear(4, 3)),
            vectors(),
        ),
        "bilinear": lambda: (Net(lambda s, x: s.layer(x, x), layer=nn.Bilinear(5, 5, 3)), vectors()),
        "residual": lambda: (
            Net(lambda s, x: x + s.b(torch.tanh(s.a(x))), a=nn.Linear(5, 4), b=nn.Linear(4, 5)),
            vectors(),
        ),
        "one logit": lambda: (nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)), vectors()),
        "squeezed": lambda: (Net(lambda s, x: s.layer(x).squeeze(), layer=nn.Linear(5, 1)), vectors()),
        "two inputs": lambda: (
            Net(
                lambda s, a, b: s.head(torch.tanh(s.a(a) * s.b(b))),
                a=nn.Linear(3, 4),
                b=nn.Linear(2, 4),
                head=nn.Linear(4, 3),
            ),
            {"a": vectors(3), "b": vectors(2)},
        ),
    }


def convolutions():
    pool1, pool2 = nn.AdaptiveAvgPool1d(1), nn.AdaptiveAvgPool2d(1)
    return {
        "conv1d": lambda: (headed(nn.Conv1d(2, 4, 3, stride=2, padding=1), width=20), signals()),
        "conv2d": lambda: (headed(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), width=12), pixels()),
        "conv3d": lambda: (headed(nn.Conv3d(1, 2, 2), width=16), torch.randn(N, 1, 3, 3, 3)),
        "grouped": lambda: (headed(nn.Conv2d(4, 6, 3, groups=2, padding=1), pool=pool2), pixels(4)),
        "depthwise": lambda: (headed(nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 6, 1), pool=pool2), pixels(6)),
        "dilated": lambda: (headed(nn.Conv2d(2, 6, 3, dilation=2, padding=2), pool=pool2), pixels()),
        "same padding": lambda: (headed(nn.Conv2d(2, 6, (3, 5), padding="same"), pool=pool2), pixels()),
        "circular": lambda: (headed(nn.Conv1d(2, 6, 3, padding=1, padding_mode="circular"), pool=pool1), signals()),
        "reflected": lambda: (headed(nn.Conv2d(2, 6, 3, padding=1, padding_mode="reflect"), pool=pool2), pixels()),
        "transposed": lambda: (headed(nn.ConvTranspose2d(2, 6, 3, stride=2), pool=pool2), pixels(2, 3)),
        "unfolded": lambda: (
            Net(
                lambda s, x: s.head(torch.tanh(s.mix(F.unfold(x, 2).mT)).mean(1)),
                mix=nn.Linear(8, 6),
                head=nn.Linear(6, 3),
            ),
            pixels(),
        ),
        "channel gate": lambda: (
            Net(
                lambda s, x: s.head((x * torch.sigmoid(s.gate(x.mean((2, 3))))[..., None, None]).flatten(1)),
                gate=nn.Linear(2, 2),
                head=nn.Linear(72, 3),
            ),
            pixels(),
        ),
        "pixel shuffle": lambda: (headed(nn.Conv2d(2, 24, 1), nn.PixelShuffle(2), pool=pool2), pixels()),
    }


def normalisations():
    pool2 = nn.AdaptiveAvgPool2d(1)
    return {
        "batch norm": lambda: (headed(nn.Linear(5, 6), nn.BatchNorm1d(6)), vectors()),
        "batch norm, images": lambda: (headed(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), pool=pool2), pixels()),
        "batch norm, no weights": lambda: (
            headed(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6, affine=False), pool=pool2),
            pixels(),
        ),
        "layer norm": lambda: (headed(nn.Linear(5, 6), nn.LayerNorm(6)), vectors()),
        "layer norm, two axes": lambda: (headed(nn.Conv1d(2, 4, 3), nn.LayerNorm([4, 7]), width=28), signals()),
        "group norm": lambda: (headed(nn.Conv2d(2, 6, 3), nn.GroupNorm(3, 6), pool=pool2), pixels()),
        "instance norm": lambda: (
            headed(nn.Conv2d(2, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.ReLU(), pool=pool2),
            pixels(),
        ),
        "instance norm, tracked": lambda: (
            headed(nn.Conv2d(2, 6, 3), nn.InstanceNorm2d(6, affine=True, track_running_stats=True), pool=pool2),
            pixels(),
        ),
        "rms norm": lambda: (headed(nn.Linear(5, 6), rms_norm(6)), vectors()),
        "weight norm": lambda: (headed(nn.utils.parametrizations.weight_norm(nn.Linear(5, 6))), vectors()),
        "weight norm, images": lambda: (
            headed(nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 6, 3)), pool=pool2),
            pixels(),
        ),
        "spectral norm": lambda: (headed(nn.utils.parametrizations.spectral_norm(nn.Linear(5, 6)).eval()), vectors()),
        "orthogonal": lambda: (headed(nn.utils.parametrizations.orthogonal(nn.Linear(6, 6))), vectors(6)),
        "local response": lambda: (headed(nn.Conv2d(2, 6, 3), nn.LocalResponseNorm(2), pool=pool2), pixels()),
    }


def rms_norm(width):
    """The norm that later versions of torch have, by hand where it is missing."""
    if hasattr(nn, "RMSNorm"):
        return nn.RMSNorm(width)
    return Net(lambda s, x: s.weight * x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt(), weight=parameter(width))


def encoder(batch_first, **options):
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=batch_first, **options)
    return drawn(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


def scored(s, x):
    q, k, v = s.qkv(x).chunk(3, -1)
    return s.head((torch.softmax(q @ k.mT / 6**0.5, -1) @ v).mean(1))


def classed(s, x):
    x = torch.cat([s.token.expand(len(x), -1, -1), x], 1) + s.place
    return s.head(s.body(x)[:, 0])


def attention():
    return {
        "by hand": lambda: (Net(scored, qkv=nn.Linear(6, 18), head=nn.Linear(6, 3)), tokens()),
        "fused": lambda: (
            Net(
                lambda s, x: s.head(F.scaled_dot_product_attention(s.q(x), s.k(x), s.v(x)).mean(1)),
                q=nn.Linear(6, 6),
                k=nn.Linear(6, 6),
                v=nn.Linear(6, 6),
                head=nn.Linear(6, 3),
            ),
            tokens(),
        ),
        "multi-head": lambda: (
            Net(
                lambda s, x: s.head(s.mix(x, x, x)[0].mean(1)),
                mix=nn.MultiheadAttention(6, 2, batch_first=True),
                head=nn.Linear(6, 3),
            ),
            tokens(),
        ),
        "cross, other widths": lambda: (
            Net(
                lambda s, x: s.head(s.mix(x[:, :2], x[..., :4], x[..., :5])[0].mean(1)),
                mix=nn.MultiheadAttention(6, 2, kdim=4, vdim=5, batch_first=True),
                head=nn.Linear(6, 3),
            ),
            tokens(),
        ),
        "with added keys": lambda: (
            Net(
                lambda s, x: s.head(s.mix(x, x, x, need_weights=False)[0].mean(1)),
                mix=nn.MultiheadAttention(6, 2, add_bias_kv=True, add_zero_attn=True, batch_first=True),
                head=nn.Linear(6, 3),
            ),
            tokens(),
        ),
        "encoder": lambda: (
            Net(lambda s, x: s.head(s.body(x).mean(1)), body=encoder(True), head=nn.Linear(6, 3)),
            tokens(),
        ),
        "encoder, norm first": lambda: (
            Net(lambda s, x: s.head(s.body(x).mean(1)), body=encoder(True, norm_first=True), head=nn.Linear(6, 3)),
            tokens(),
        ),
        "encoder, positions first": lambda: (
            Net(lambda s, x: s.head(s.body(x.transpose(0, 1)).mean(0)), body=encoder(False), head=nn.Linear(6, 3)),
            tokens(N),
        ),
        "encoder with padding": lambda: (
            Net(
                lambda s, x, pad: s.head(s.body(x, src_key_padding_mask=pad).mean(1)),
                body=encoder(True),
                head=nn.Linear(6, 3),
            ),
            {"x": tokens(), "pad": torch.arange(4)[None] >= torch.tensor([4, 2, 3, 1, 4, 2])[:, None]},
        ),
        "transformer": lambda: (
            Net(
                lambda s, x: s.head(s.body(x, x[:, :2]).mean(1)),
                body=drawn(nn.Transformer(6, 2, 1, 1, 8, batch_first=True)),
                head=nn.Linear(6, 3),
            ),
            tokens(),
        ),
        "class token and places": lambda: (
            Net(classed, token=parameter(1, 1, 6), place=parameter(1, 5, 6), body=encoder(True), head=nn.Linear(6, 3)),
            tokens(),
        ),
    }
