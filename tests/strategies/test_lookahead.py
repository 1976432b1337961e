"""NTK look-ahead end to end, against Jacobians and a regression solved anew for every candidate."""

import numpy as np
import oracles_kernels
import oracles_lookahead
import pytest
import torch
import zoo
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.dataset import Dataset

from modal_ntk import LookAhead, lookahead, nets
from modal_ntk.errors import InvalidInputError, UnmetNeedError
from modal_ntk.testing import situations

X, y = zoo.blobs(n=40)
LABELED = {"X_labeled": X[:8], "y_labeled": y[:8]}


@pytest.fixture
def net():
    fitted = zoo.net(max_epochs=10).fit(X[:8], y[:8])
    fitted.module_.double()
    return fitted


@pytest.fixture
def seen(monkeypatch):
    """What the strategy hands to look-ahead, recorded on the way."""
    from modal_ntk import selection

    calls = {}
    real = selection.look_ahead

    def spy(kernel, targets, labeled, n_instances, **options):
        # The strategy gives its kernel away to be overwritten.
        calls.update(kernel=kernel.clone(), targets=targets, labeled=labeled, **options)
        return real(kernel, targets, labeled, n_instances, **options)

    monkeypatch.setattr(selection, "look_ahead", spy)
    return calls


def naive(kernel, f0, targets, reference, objective, jitter):
    """Objective of every pool sample, the 8 labelled ones first in the kernel."""
    labeled, one_hot = list(range(8)), np.eye(3)[targets]
    now = oracles_lookahead.trained(kernel, f0, labeled, one_hot, jitter=jitter)
    against = f0 if reference == "network" else now
    values = []
    for c in range(8, 40):
        after = oracles_lookahead.trained(kernel, f0, [*labeled, c], one_hot, jitter=[jitter] * 8 + [0.0])
        values.append(oracles_lookahead.objective_of(objective, after, against, targets, np.arange(8, 40)))
    return np.array(values)


@pytest.mark.parametrize("objective", ["output_change", "squared_change", "disagreement"])
@pytest.mark.parametrize("reference", ["network", "kernel"])
@pytest.mark.parametrize(("kind", "outputs"), [("pseudo", "auto"), ("trace", "logits"), ("pseudo", "logits")])
def test_the_whole_equals_a_naive_run(net, objective, reference, kind, outputs):
    """Scores are those of the kernel of Jacobians at the trained parameters and a solve for every candidate."""
    module, inputs = net.module_, torch.from_numpy(X).double()
    kernel = np.asarray(oracles_kernels.kernel_oracle(module, inputs, inputs, kind))
    f0 = np.asarray(oracles_kernels.logits64(module, inputs))
    if outputs == "auto":
        f0 = np.exp(f0) / np.exp(f0).sum(axis=1, keepdims=True)
    targets = np.concatenate([y[:8], f0[8:].argmax(1)])
    jitter = 1e-6 * np.mean(np.diag(kernel)[:8])
    expected = naive(kernel, f0, targets, reference, objective, jitter)
    strategy = LookAhead(objective=objective, reference=reference, kernel=kind, outputs=outputs, random_state=0)
    selected = strategy.select(net, X[8:], 32, **LABELED)
    np.testing.assert_allclose(selected.scores, expected[selected.indices], rtol=1e-4)
    assert (np.diff(selected.scores) <= 0).all()
    assert selected.info["pseudo_labels"] == targets[8:][selected.indices].tolist()


def test_sequential_picks_train_on_their_pseudo_labels(net, seen):
    """Each pick is the best after the earlier ones joined the training set with the network's prediction as label."""
    selected = LookAhead(sequential=True, reference="kernel", random_state=0).select(net, X[8:], 4, **LABELED)
    kernel, f0, targets = seen["kernel"].numpy(), seen["f0"].numpy(), seen["targets"]
    jitter, one_hot, trained = 1e-6 * np.mean(np.diag(kernel)[:8]), np.eye(3)[targets], list(range(8))
    diagonal = [jitter] * 8
    for pick in (8 + selected.indices).tolist():
        now = oracles_lookahead.trained(kernel, f0, trained, one_hot, jitter=diagonal)
        values = {}
        for c in set(range(8, 40)) - set(trained):
            after = oracles_lookahead.trained(kernel, f0, [*trained, c], one_hot, jitter=[*diagonal, 0.0])
            values[c] = oracles_lookahead.objective_of("output_change", after, now, targets, np.arange(8, 40))
        assert pick == max(values, key=values.get)
        trained.append(pick)
        diagonal.append(0.0)
    assert len(selected.info["risk"]) == 4


def test_outputs_are_what_the_criterion_compares_with_one_hot_labels(net, seen):
    """Probabilities for cross-entropy; the kernel stays that of the logits, which may be asked for."""
    LookAhead(outputs="logits", random_state=0).select(net, X[8:], 3, **LABELED)
    of_logits = dict(seen)
    for outputs in ("auto", "probabilities"):
        LookAhead(outputs=outputs, random_state=0).select(net, X[8:], 3, **LABELED)
        torch.testing.assert_close(seen["f0"], of_logits["f0"].softmax(dim=1))
        torch.testing.assert_close(seen["kernel"], of_logits["kernel"])


class SquaredError(NeuralNetClassifier):
    """Trained as the paper trains: one-hot labels, squared error."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return super().get_loss(y_pred, torch.eye(3)[torch.as_tensor(y_true)], *args, **kwargs)


@pytest.mark.parametrize("ending", [torch.nn.Identity(), torch.nn.Softmax(dim=1)], ids=["values", "probabilities"])
def test_a_net_of_squared_error_is_read_as_it_is(ending, seen):
    """Its outputs, probabilities or not, are compared as they are, and the kernel of plain values is theirs."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3), ending)
    net = SquaredError(
        module, criterion=torch.nn.MSELoss, lr=0.1, max_epochs=5, train_split=None, classes=[0, 1, 2], verbose=0
    ).fit(X[:8], y[:8])
    selected = LookAhead(random_state=0).select(net, X[8:], 5, **LABELED)
    outputs = net.module_(torch.from_numpy(X)).detach()
    torch.testing.assert_close(seen["f0"].float(), outputs)
    np.testing.assert_array_equal(selected.info["pseudo_labels"], outputs[8:].argmax(1)[selected.indices])
    if isinstance(ending, torch.nn.Identity):
        inputs = torch.from_numpy(X)
        expected = np.asarray(oracles_kernels.kernel_oracle(net.module_, inputs, inputs, "pseudo"))
        np.testing.assert_allclose(seen["kernel"], expected, rtol=1e-4, atol=1e-5)


def test_the_initial_variant_is_ntkcpls_baseline(seen):
    """A fresh head's kernel and outputs, the learner's predictions as pseudo-labels, change from the kernel's own."""
    forest = RandomForestClassifier(5, random_state=0).fit(X[:8], y[:8])
    selected = LookAhead(variant="initial", n_hidden=7, random_state=0).select(forest, X[8:], 5, **LABELED)
    np.testing.assert_array_equal(seen["targets"], np.concatenate([y[:8], forest.predict(X[8:])]))
    kernel, f0, targets = seen["kernel"].numpy(), seen["f0"].numpy(), seen["targets"]
    expected = naive(kernel, f0, targets, "kernel", "output_change", 1e-6 * np.mean(np.diag(kernel)[:8]))
    np.testing.assert_allclose(selected.scores, np.sort(expected)[::-1][:5], rtol=1e-4)
    LookAhead(variant="initial", use_f0=False, random_state=0).select(forest, X[8:], 5, **LABELED)
    assert seen["f0"] is None


def test_candidates_are_a_seeded_subset_and_the_evaluation_set(net, seen):
    """The kernel covers the labelled rows and n_candidates pool rows, which alone are summed over; the seed decides."""
    first = LookAhead(n_candidates=12, random_state=1).select(net, X[8:], 5, **LABELED)
    assert seen["kernel"].shape == (20, 20)
    np.testing.assert_array_equal(seen["evaluation"], np.arange(8, 20))
    assert first.info["n_candidates"] == 12
    again = LookAhead(n_candidates=12, random_state=1).select(net, X[8:], 5, **LABELED)
    other = LookAhead(n_candidates=12, random_state=2).select(net, X[8:], 5, **LABELED)
    np.testing.assert_array_equal(first.indices, again.indices)
    assert set(first.indices.tolist()) != set(other.indices.tolist())
    assert len(LookAhead(n_candidates=2, random_state=0).select(net, X[8:], 5, **LABELED).indices) == 5


def test_permuting_the_pool_permutes_the_picks(net):
    """Positions carry no meaning."""
    order = np.random.default_rng(0).permutation(32)
    straight = LookAhead(random_state=0).select(net, X[8:], 6, **LABELED)
    permuted = LookAhead(random_state=0).select(net, X[8:][order], 6, **LABELED)
    np.testing.assert_array_equal(order[permuted.indices], straight.indices)


def test_string_labels_find_their_outputs(active_learner):
    """Labels of any kind are matched to the net's outputs by the learner's classes; modAL's query works."""
    names = np.array(["ant", "bee", "cat"])[y]
    learner = active_learner(LogisticRegression(), LookAhead(variant="initial", random_state=0), X[:8], names[:8])
    indices, samples = learner.query(X[8:], n_instances=4)
    np.testing.assert_array_equal(samples, X[8:][indices])
    numbers = active_learner(LogisticRegression(), LookAhead(variant="initial", random_state=0), X[:8], y[:8])
    np.testing.assert_array_equal(numbers.query(X[8:], n_instances=4)[0], indices)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_images_and_one_logit_nets(dtype):
    """A conv net with BatchNorm and Dropout, and a net with one logit for two classes, in either precision."""
    images = X.reshape(40, 1, 2, 3)
    conv = zoo.net(zoo.ConvNet).fit(images[:8], y[:8])
    given = {"X_labeled": images[:8], "y_labeled": y[:8]}
    before = zoo.state_of(conv.module_)
    assert len(LookAhead(dtype=dtype, random_state=0).select(conv, images[8:], 5, **given).indices) == 5
    zoo.assert_same_state(before, zoo.state_of(conv.module_))
    halves = y % 2
    single = NeuralNetBinaryClassifier(zoo.OneLogit, train_split=None, max_epochs=2, verbose=0)
    single.fit(X[:8], halves[:8].astype(np.float32))
    selected = LookAhead(dtype=dtype, random_state=0).select(single, X[8:], 5, X_labeled=X[:8], y_labeled=halves[:8])
    assert len(set(selected.indices.tolist())) == 5
    np.testing.assert_array_equal(selected.info["pseudo_labels"], single.predict(X[8:])[selected.indices])


def test_a_kernel_beyond_the_budget_is_refused_before_any_work(net, monkeypatch):
    """The error says how many rows and bytes, and what to do, before the net is asked anything."""
    monkeypatch.setattr("modal_ntk.nets.NetView.logits", None)
    with pytest.raises(InvalidInputError, match="a kernel of at most 1000 bytes, got 40 rows, 12800 bytes"):
        LookAhead(memory_budget=1000).select(net, X[8:], 5, **LABELED)


def test_what_it_cannot_do_without_is_named(net):
    """No labels, or no net for the trained variant, is an error with what would do."""
    with pytest.raises(UnmetNeedError, match="LookAhead expected a learner with labels"):
        LookAhead().select(net, X[8:], 5)
    forest = RandomForestClassifier(5, random_state=0).fit(X[:8], y[:8])
    with pytest.raises(UnmetNeedError, match=r"LookAhead expected a learner with gradients .*RandomForestClassifier"):
        LookAhead().select(forest, X[8:], 5, **LABELED)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"variant": "both"}, "variant to be one of 'initial', 'trained', got 'both'"),
        ({"objective": "risk"}, "objective to be one of"),
        ({"reference": "start"}, "reference to be one of"),
        ({"outputs": "embedding"}, "outputs to be one of"),
        ({"n_candidates": 0}, "n_candidates to be an integer of at least 1 or None"),
        ({"time": -1}, "time to be a finite number above zero"),
        ({"dtype": "float16"}, "dtype to be one of"),
        ({"memory_budget": 0}, "memory_budget to be an integer of at least 1"),
    ],
)
def test_bad_parameters_are_refused_before_any_work(net, parameters, message, monkeypatch):
    """Each wrong parameter is an error naming it, raised before anything is computed."""
    monkeypatch.setattr("modal_ntk.nets.NetView.logits", None)
    with pytest.raises(InvalidInputError, match=message):
        LookAhead(**parameters).select(net, X[8:], 3, **LABELED)


def test_a_finite_time_moves_the_outputs_less(net):
    """After a short time outputs have moved less than in the limit, from the kernel's own prediction."""
    scores = [
        LookAhead(time=t, reference="network", random_state=0).select(net, X[8:], 3, **LABELED).scores
        for t in (1e-4, 1e-3, None)
    ]
    assert scores[0].max() < scores[1].max() < scores[2].max()


def test_the_instance_has_the_papers_defaults():
    """The trained network, the sum of lengths, the best of the first scores, 6000 candidates."""
    assert lookahead.get_params() == LookAhead().get_params()
    assert (lookahead.variant, lookahead.objective, lookahead.sequential) == ("trained", "output_change", False)
    assert lookahead.n_candidates == 6000


@pytest.mark.parametrize("held", ["array", "dict", "data set"])
def test_the_subset_is_taken_from_whatever_holds_the_pool(held):
    """A dict of inputs and a torch data set are cut as an array is, for the same picks."""
    net = situations.skorch_net(situations.DictNet if held == "dict" else situations.MLP)
    holders = {
        "array": lambda rows: rows,
        "dict": lambda rows: {"a": rows[:, :3], "b": rows[:, 3:]},
        "data set": lambda rows: Dataset(rows),
    }
    hold = holders[held]
    with nets.seeded(0):
        net.fit({"a": X[:8, :3], "b": X[:8, 3:]} if held == "dict" else X[:8], y[:8])
    strategy = LookAhead(n_candidates=12, random_state=0)
    selected = strategy.select(net, hold(X[8:]), 5, X_labeled=hold(X[:8]), y_labeled=y[:8])
    subset = np.sort(np.random.default_rng(0).choice(32, 12, replace=False))
    whole = LookAhead(n_candidates=None, random_state=0).select(
        net, hold(X[8:][subset]), 5, X_labeled=hold(X[:8]), y_labeled=y[:8]
    )
    np.testing.assert_array_equal(selected.indices, subset[whole.indices])
    np.testing.assert_allclose(selected.scores, whole.scores)
