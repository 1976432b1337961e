"""What the graph shows is so: where it says that samples are apart, no gradient passes from one to another."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_samples import gram, relative_error
from torch import nn
from torch.nn import functional as F

from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.features.capture import layers
from modal_ntk.features.capture import recording as recordings
from modal_ntk.features.capture.graphs import apart
from modal_ntk.features.capture.routes import Routes
from modal_ntk.features.capture.watching import Watch, mark_samples
from modal_ntk.features.cotangents import Combined
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.kernels import empirical_ntk

N, T, D = 4, 4, 4

# One step of every kind on (n, t, d), all axes alike in length so that no shape gives a mistake away; and whether the
# graph is to show that samples are apart.
APART = {
    "relu": torch.relu,
    "scaled": lambda x: (2 * x - 1) / 3 + x**2,
    "gated": lambda x: x * torch.sigmoid(x.mean(2, keepdim=True)),
    "in place": lambda x: F.relu(x * 1, inplace=True),
    "softmax": lambda x: x.softmax(-1),
    "log-softmax": lambda x: x.log_softmax(1),
    "mean kept": lambda x: x - x.mean(-1, keepdim=True),
    "sum": lambda x: x.sum(2)[:, :, None] + x,
    "transposed": lambda x: x.transpose(1, 2),
    "permuted": lambda x: x.permute(0, 2, 1),
    "viewed": lambda x: x.reshape(N, 2, -1).relu().reshape(N, T, D),
    "flattened rows": lambda x: x.reshape(-1, D).tanh().reshape(x.shape),
    "selected": lambda x: x[:, 1:2].expand(-1, T, -1),
    "sliced": lambda x: torch.cat([x[:, :2], x[:, 2:].neg()], 1),
    "one token of each": lambda x: x + x[torch.arange(N), torch.tensor([2, 0, 3, 0])][:, None],
    "tokens of each": lambda x: x[torch.arange(N)[:, None], torch.tensor([[1, 0, 2, 2]] * 3 + [[3, 3, 1, 0]])],
    "one number of each": lambda x: x * x[torch.arange(N), torch.tensor([2, 0, 3, 0]), torch.arange(N)][:, None, None],
    "split": lambda x: torch.cat(x.split(2, -1), -1),
    "unbound": lambda x: torch.cat([part.reshape(N, 1, D) for part in x.unbind(1)], 1),
    "attention": lambda x: (x @ x.mT).softmax(-1) @ x,
    "attention by heads": lambda x: (
        F.scaled_dot_product_attention(*[x.reshape(N, T, 2, 2).transpose(1, 2)] * 3).transpose(1, 2).reshape(N, T, D)
    ),
    "layer norm": lambda x: F.layer_norm(x, (D,)),
    "layer norm, two axes": lambda x: F.layer_norm(x, (T, D)),
    "group norm": lambda x: F.group_norm(x, 2),
    "batch norm": lambda x: F.batch_norm(x, torch.ones(T).to(x), torch.ones(T).to(x)),
    "pooled": lambda x: F.avg_pool2d(x.reshape(N, 1, T, D), 3, 1, 1).reshape(x.shape),
    "maxima": lambda x: F.max_pool2d(x.reshape(N, 1, T, D), 3, 1, 1).reshape(x.shape),
    "maxima of windows": lambda x: F.max_pool2d(x.reshape(N, 1, T, D), 2).expand(-1, T, -1, -1).reshape(N, T, D),
    "pooled to one, channels last": lambda x: (
        x * F.adaptive_avg_pool2d(x.reshape(N, T, 2, 2).contiguous(memory_format=torch.channels_last), 1)[..., 0]
    ),
    "convolved": lambda x: F.conv1d(x, torch.ones(T, T, 3).to(x), padding=1),
}
MIXING = {
    "softmax over samples": lambda x: x.softmax(0),
    "mean over samples": lambda x: x - x.mean(0, keepdim=True),
    "mean over all": lambda x: x - x.mean(),
    "transposed": lambda x: x.transpose(0, 1),
    "transposed from behind": lambda x: x.transpose(-3, -1),
    "permuted": lambda x: x.permute(1, 0, 2),
    "permuted from behind": lambda x: x.permute(-1, -2, -3),
    "rolled": lambda x: x.roll(1, 0),
    "flipped": lambda x: x.flip(0),
    "halves exchanged": lambda x: torch.cat([x[2:], x[:2]]),
    "shifted": lambda x: torch.cat([x[1:], x[:1]]),
    "first for all": lambda x: x + x[:1],
    "first for all, by axes in front": lambda x: x + x[0],
    "parts exchanged": lambda x: torch.cat([x.unbind(0)[i][None] for i in (1, 0, 3, 2)]),
    "sizes along another axis": lambda x: x * x.mean((1, 2)),
    "half of the rows": lambda x: torch.cat([x.reshape(2 * N, -1)[:N]] * 2, 1).reshape(N, T, D),
    "tokens of the first": lambda x: x[0].reshape(N, 1, D).expand(-1, T, -1),
    "mean of all, by token": lambda x: x.mean(0).reshape(N, 1, D).expand(-1, T, -1),
    "multiplied by samples": lambda x: (x.reshape(-1, D) @ x.mean(1)).reshape(x.shape),
    "multiplied, and added": lambda x: torch.addmm(torch.zeros(D).to(x), x.reshape(-1, D), x.mean(1)).reshape(x.shape),
    "samples multiplied": lambda x: (x.new_ones(N, N) @ x.reshape(N, -1)).reshape(x.shape),
    "cumulated": lambda x: x.cumsum(0),
    "product of all": lambda x: (x.reshape(N, -1) @ x.reshape(N, -1).T @ x.reshape(N, -1)).reshape(x.shape),
    "layer norm over all": lambda x: F.layer_norm(x, x.shape),
    "batch norm of the batch": lambda x: F.batch_norm(x, None, None, training=True),
    "indexed": lambda x: x[torch.tensor([1, 0, 3, 2])],
    "a token of another": lambda x: x + x[torch.tensor([1, 0, 2, 3]), torch.arange(N)][:, None],
    "tokens of others": lambda x: x[torch.arange(N)[None], torch.tensor([[1, 0, 2, 2]] * 3 + [[3, 3, 1, 0]])],
    "a token of all": lambda x: x + x[:, torch.arange(N), torch.arange(N)][:, :, None].flip(0),
    "added": lambda x: x.index_add(0, torch.tensor([1, 0, 3, 2]), x),
}


class Steps(nn.Module):
    """Steps between two layers."""

    def __init__(self, *steps):
        super().__init__()
        self.steps, self.first, self.last = steps, nn.Linear(D, D), nn.Linear(D, 3)

    def forward(self, x):
        x = self.first(x)
        for step in self.steps:
            x = step(x)
        return self.last(x.sum(1))


def shown(module, x):
    """The parameters that the graph shows to be read by recorded calls alone, or None."""
    net = FunctionalNet(module)
    leaves = net.leaves()
    with net.evaluating(), torch.enable_grad():
        mark_samples(x)
        with Watch(leaves, len(x)) as watch:
            logits = net(leaves, x)
        return None if watch.hooked else apart(logits, len(x), watch.calls, leaves)


def mixes(module, x):
    """Whether the gradient of some sample's outputs reaches another sample."""
    x = x.clone().requires_grad_()
    rows = [torch.autograd.grad(out, x, retain_graph=True)[0].flatten(1).norm(dim=1) for out in module(x).sum(1)]
    reach = torch.stack(rows)
    return bool((reach - reach.diagonal().diag()).any())


ALL = {"first.weight", "first.bias", "last.weight", "last.bias"}


@pytest.mark.parametrize("name", APART)
def test_steps_that_keep_samples_apart_are_shown_to(name):
    """Ordinary layers, arithmetic, attention, pooling and views take nothing but the graph to be believed."""
    module, x = Steps(APART[name]).double(), torch.randn(N, T, D).double()
    assert shown(module, x) == ALL
    assert not mixes(module, x)


@pytest.mark.parametrize("name", MIXING)
def test_steps_that_mix_samples_are_not(name):
    """Whatever brings gradients from one sample to another, or may, is left to numbers."""
    module, x = Steps(MIXING[name]).double(), torch.randn(N, T, D).double()
    assert shown(module, x) is None
    assert mixes(module, x)


@settings(max_examples=60)
@given(st.lists(st.sampled_from([*APART.values(), *MIXING.values()]), min_size=1, max_size=5), st.integers(0, 99))
def test_what_is_shown_is_so(steps, seed):
    """In no row of steps is a graph believed in which gradients pass between samples."""
    torch.manual_seed(seed)
    module, x = Steps(*steps).double(), torch.randn(N, T, D).double()
    assert shown(module, x) is None or not mixes(module, x)


class Net(nn.Module):
    def __init__(self, forward, **parts):
        super().__init__()
        self.run, self.a, self.b = forward, nn.Linear(5, 5), nn.Linear(5, 3)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


def hooked(s, x):
    z = s.a(x)
    z.register_hook(lambda g: 2 * g)
    return s.b(z)


def hooked_node(s, x):
    z = s.a(x)
    z.grad_fn.register_hook(lambda given, _out: tuple(None if g is None else g.flip(0) for g in given))
    return s.b(z)


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, x):
        return 2 * x

    @staticmethod
    def backward(_ctx, gradient):
        return 3 * gradient


UNSHOWN = {
    "weight in a product that is not watched": lambda s, x: s.b(s.a(x)) + torch.einsum("ni,oi->no", x, s.b.weight),
    "hook": hooked,
    "hook on a node": hooked_node,
    "function of one's own": lambda s, x: s.b(Twice.apply(s.a(x))),
}


@pytest.mark.parametrize("name", UNSHOWN)
def test_parameters_that_are_read_elsewhere_are_not_shown(name):
    """A use that no call stands for, what is made of a weight, and gradients changed on their way are not."""
    module, x = Net(UNSHOWN[name]), torch.randn(4, 5)
    assert shown(module, x) is None


class Words(nn.Module):
    """Words and places looked up, a class token, and the table again as the last layer."""

    def __init__(self, **options):
        super().__init__()
        self.words, self.places = nn.Embedding(9, 6, **options), nn.Embedding(7, 6)
        self.token, self.body = nn.Parameter(torch.randn(1, 1, 6)), nn.Linear(6, 6)

    def forward(self, x):
        places = torch.arange(x.shape[1])[None]
        z = torch.cat([self.token.expand(len(x), -1, -1), self.words(x) + self.places(places)], 1)
        return F.linear(torch.tanh(self.body(z)).mean(1), self.words.weight)


@pytest.mark.parametrize("options", [{}, {"padding_idx": 2}, {"sparse": True}])
@pytest.mark.parametrize("kind", ["pseudo", "full"])
def test_tables_are_shown_and_every_line_of_theirs_is_compared(options, kind):
    """Lookups of words, places that are there for every sample, tokens and tied weights; also of a padding line."""
    torch.manual_seed(1)
    module, x = Words(**options).double(), torch.randint(9, (12, 4))
    net = FunctionalNet(module)
    with net.evaluating():
        routes = Routes(net, x)
        found = routes.gradients(x, Combined(x, kind).weights).recording
    if not options.get("sparse"):
        assert found.is_plain
    rows = empirical_ntk(module, x, kind=kind)
    rows = rows if kind == "pseudo" else rows.sum((2, 3)) / rows.shape[2]
    assert relative_error(rows, gram(module, x)) < 1e-12


def test_a_line_that_its_rule_gets_wrong_is_found_out(monkeypatch):
    """A rule of tables that is right for two samples and wrong for a line that others read is not believed."""
    make = layers.LAYERS[F.embedding][1]

    def known(call, names):
        maker = make(call, names)

        def factor(data, gradient, joint, name):
            n, r, width = *gradient.shape[:2], gradient.shape[-1]
            flat = gradient.reshape(n, r, -1, width) * (data.reshape(n, 1, -1, 1) != 8)
            return maker.factor(data, flat, joint, name)

        return dataclasses.replace(maker, factor=factor)

    monkeypatch.setitem(layers.LAYERS, F.embedding, (layers.LAYERS[F.embedding][0], known))
    module, x = Words().double(), torch.randint(8, (40, 4))
    x[7, 2] = 8
    with pytest.warns(ModalNTKWarning, match=r"'factored' of words.weight is not right on every batch"):
        kernel, info = empirical_ntk(module, x, return_info=True)
    assert info["routes"]["words.weight"] == "torch.func"
    assert relative_error(kernel, gram(module, x)) < 1e-12


def test_what_is_made_of_parameters_alone_is_followed():
    """Weights turned, scaled or measured on their way count as operands of the call where samples meet them."""

    def forward(s, x):
        return F.linear(s.a(x), s.a.weight.T * 2) + F.linear(x, s.b.weight).sum(1, keepdim=True) * s.b.bias[0]

    module = Net(forward)
    module, x = module.double(), torch.randn(6, 5).double()
    assert shown(module, x) is not None
    assert relative_error(empirical_ntk(module, x), gram(module, x)) < 1e-12


def test_shared_weights_are_shown():
    """A layer that is used several times has a call for each use."""
    module, x = Net(lambda s, x: s.b(s.a(torch.tanh(s.a(x))))), torch.randn(4, 5)
    assert shown(module, x) == {"a.weight", "a.bias", "b.weight", "b.bias"}


def plain_net():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def test_a_plain_net_is_differentiated_once_and_a_part_of_it_again(monkeypatch):
    """After the first two samples have shown the rules right, the whole batch takes no pass of random weights."""
    passes = []
    make = recordings.differentiated

    def counted(logits, targets, *args, **options):
        passes.append(len(logits))
        return make(logits, targets, *args, **options)

    monkeypatch.setattr(recordings, "differentiated", counted)
    module, x = plain_net(), torch.randn(64, 5).double()
    kernel = empirical_ntk(module, x)
    assert passes == [2, 2, 64, 8]
    assert relative_error(kernel, gram(module, x)) < 1e-12


def test_what_a_part_does_not_bear_out_is_proved_by_numbers(monkeypatch):
    """Where plain gradients of some samples alone are others than those held, the batch is compared as a whole."""
    make = recordings.Use.some

    def wrong(self, rows):
        part = make(self, rows)
        part.gradient[0] *= 1.01
        return part

    monkeypatch.setattr(recordings.Use, "some", wrong)
    module, x = plain_net(), torch.randn(30, 5).double()
    net = FunctionalNet(module)
    with net.evaluating():
        found = Routes(net, x).gradients(x, lambda f: torch.ones(len(f), 1, 3).double())
    assert not found.recording.is_plain
    assert set(found.recording.truth) == set(net.parameters)
    assert relative_error(empirical_ntk(module, x), gram(module, x)) < 1e-12


def test_inputs_overwritten_after_their_call_are_not_believed():
    """What a graph shows of a batch whose inputs are no longer what a layer saw is proved by numbers, or refused."""

    def overwritten(s, x):
        out = s.b(torch.tanh(s.a(x)))
        if len(x) > 2:
            x.add_(1)
        return out

    with pytest.raises(InvalidInputError, match="modified by an inplace operation"):
        empirical_ntk(Net(overwritten), torch.randn(6, 5))


def test_a_call_like_no_other_before_is_proved_by_numbers():
    """Rules are known by function, arguments and shapes; longer samples are others."""
    module = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()).double()
    net = FunctionalNet(module)
    ones = lambda f: torch.ones(len(f), 1, 3).double()  # noqa: E731
    with net.evaluating():
        routes = Routes(net, torch.randn(4, 2, 9).double())
        assert routes.gradients(torch.randn(4, 2, 9).double(), ones).recording.is_plain
        longer = torch.randn(4, 2, 11).double()
        assert not routes.gradients(longer, ones).recording.is_plain
        assert routes.gradients(longer, ones).recording.is_plain


def test_settings_of_a_call_are_part_of_its_key():
    """A layer that is called with other settings than before is another."""

    def twice(s, x):
        one, again, other = (F.conv1d(x, s.w, padding=padding) for padding in (1, 1, 2))
        return (one + again + other[..., 1:-1])[:, 0]

    net = FunctionalNet(Net(twice, w=nn.Parameter(torch.randn(3, 2, 3))))
    x, leaves = torch.randn(4, 2, 9), net.leaves()
    mark_samples(x)
    with net.evaluating(), Watch(leaves, 4) as watch:
        net(leaves, x)
    assert len(watch.calls) == 3
    assert len({call.key for call in watch.calls}) == 2


@pytest.mark.parametrize("batch", ["nan", "inf"])
def test_numbers_that_are_not_finite_are_refused_where_the_graph_is_believed(batch):
    """A gradient that overflows in a later batch is no kernel."""

    class Steep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(torch.sqrt(self.layer(x)))

    module = Steep().double()
    with torch.no_grad():
        module.layer.weight.copy_(torch.eye(3))
        module.layer.bias.zero_()
    x = torch.rand(8, 3).double() + 0.1
    x[3] = 0.0 if batch == "inf" else float("nan")
    with pytest.raises(Exception, match="finite"):
        empirical_ntk(module, x)
