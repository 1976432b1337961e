from .active_learner import ActiveLearner as ActiveLearner
from .learners import estimator_of as estimator_of
from .learners import labeled_set_of as labeled_set_of
from .learners import wants_metrics as wants_metrics
from .learners import warn_if_it_cannot_teach as warn_if_it_cannot_teach
from .traceless import no_trace as no_trace
from .traceless import seeded as seeded
from .view import NetView as NetView
