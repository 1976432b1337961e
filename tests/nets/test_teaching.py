"""A teach that fails leaves the learner as it was: training set, weights, optimiser, coefficients."""

import numpy as np
import pytest
import skorch
import torch
import zoo
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from modal_ntk import ActiveLearner, Margin

X, y = zoo.blobs()


class TestFailedTeach:
    """After a teach that fails, the learner is as before, so that the retry doubles nothing."""

    @pytest.mark.parametrize("given", ["class", "instance", "pipeline", "forest"])
    def test_nothing_is_kept_of_it(self, given):
        """Training set, weights and answers are those of before the failure; the retry adds its samples once."""
        net = zoo.net(module=zoo.MLP() if given == "instance" else zoo.MLP)
        estimator = {"pipeline": make_pipeline(StandardScaler(), net), "forest": LogisticRegression()}.get(given, net)
        learner = ActiveLearner(estimator, Margin(), X[:12], y[:12])
        before = learner.predict_proba(X)
        with pytest.raises((ValueError, IndexError, TypeError)):
            learner.teach(X[12:15], y[12:15] + 7, nonsense=3)
        assert len(learner.X_training) == len(learner.y_training) == 12
        np.testing.assert_array_equal(learner.predict_proba(X), before)
        learner.teach(X[12:15], y[12:15])
        assert len(learner.X_training) == 15

    def test_lazy_layers_have_nothing_to_put_back(self):
        """A module whose weights are made by the first pass is taught, and a failure before leaves it unmade."""
        net = zoo.net(module=nn.LazyLinear(3))
        learner = ActiveLearner(net, Margin())
        with pytest.raises((TypeError, ValueError, IndexError)):
            learner.teach(X[:12], y[:12], nonsense=3)
        assert learner.X_training is None
        learner.teach(X[:12], y[:12])
        assert net.module_.in_features == 6

    def test_halfway_through_training(self):
        """Weights of a module that is trained in place come back, too."""
        module = zoo.MLP()
        learner = ActiveLearner(zoo.net(module=module), Margin(), X[:12], y[:12])
        before = {name: value.clone() for name, value in module.state_dict().items()}

        class Breaks(skorch.callbacks.Callback):
            def on_epoch_end(self, net, **kwargs):
                assert not torch.equal(module.head.weight, before["head.weight"])
                raise RuntimeError("the loader broke")

        learner.estimator.set_params(callbacks=[("breaks", Breaks())])
        with pytest.raises(RuntimeError, match="the loader broke"):
            learner.teach(X[12:15], y[12:15])
        assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
        assert len(learner.X_training) == 12

    @pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
    def test_training_that_goes_on_is_put_back(self, optimizer):
        """A net with warm_start keeps module and optimiser; after a failure it learns on as if there had been none."""

        class Breaks(skorch.callbacks.Callback):
            breaks = False

            def on_epoch_end(self, net, **kwargs):
                if Breaks.breaks:
                    raise RuntimeError("the loader broke")

        def taught(breaks):
            torch.manual_seed(0)
            net = zoo.net(warm_start=True, optimizer=optimizer, lr=0.01, max_epochs=3, callbacks=[Breaks])
            learner = ActiveLearner(net, Margin(), X[:12], y[:12])
            module = net.module_
            if breaks:
                Breaks.breaks = True
                with pytest.raises(RuntimeError, match="the loader broke"):
                    learner.teach(X[12:15], y[12:15])
                Breaks.breaks = False
                assert (len(learner.X_training), len(net.history)) == (12, 3)
                assert net.module_ is module
            learner.teach(X[12:15], y[12:15])
            assert len(net.history) == 6
            return net

        calm, broken = taught(False), taught(True)
        for name, value in calm.module_.state_dict().items():
            assert torch.equal(value, broken.module_.state_dict()[name])

    def test_classifiers_that_learn_on_are_put_back(self):
        """Coefficients that scikit-learn changes in place come back."""
        from sklearn.linear_model import SGDClassifier

        class Breaks(SGDClassifier):
            def fit(self, X, y, nonsense=0):
                super().fit(X, y)
                if nonsense:
                    raise RuntimeError("the loader broke")
                return self

        learner = ActiveLearner(Breaks(loss="log_loss", warm_start=True, random_state=0), Margin(), X[:12], y[:12])
        before = learner.predict_proba(X)
        with pytest.raises(RuntimeError, match="the loader broke"):
            learner.teach(X[12:], y[12:], nonsense=1)
        np.testing.assert_array_equal(learner.predict_proba(X), before)
