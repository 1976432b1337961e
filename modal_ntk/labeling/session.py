"""Ask for samples and be told their labels, over a log that outlives the process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from sklearn.base import clone

from modal_ntk import checks, nets, progress
from modal_ntk.labeling import exchange, studio
from modal_ntk.labeling.record import Record
from modal_ntk.labeling.state import State
from modal_ntk.labeling.studio import Synced
from modal_ntk.strategies.wrappers.wrapping import seeded_copy

RANDOM = "random"


class LabelingSession(Record):
    """Label a pool, sample by sample, for as many days as it takes.

    Every question and answer is added to an SQLite file before the call returns, and what the session knows is what
    the file says: a process that is killed loses nothing, another one goes on with the same file and pool, on this
    machine or another, and several may work on one file at a time.

    Parameters
    ----------
    path : str or path
        The file; made if it is not there.
    X_pool : array, tensor, frame, sparse matrix, list, or dict of these
        The samples, by whose positions everything is named. A file of another pool is refused.
    estimator : estimator, optional
        What `query_strategy` asks with; cloned, never fitted itself.
    query_strategy : callable, optional
        A strategy of this library or any modAL strategy; without one samples are drawn at random.
    classes : sequence of str, int, float or bool, optional
        The labels there may be; without them any of one kind.
    names : sequence of str, optional
        Names of the samples, such as files or keys, for import and export; distinct.
    initial : {"random", "query"}, default="random"
        Who asks while there are fewer than two classes: chance, or the strategy, which must then be one that
        starts without labels.
    random_state : int, default=0
        Seed of fits, draws, and of a strategy whose own ``random_state`` is None; together with the log it settles
        what is asked next. Kept in the file.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Raises
    ------
    InvalidInputError
        If the file belongs to another pool, classes or seed, or is something else.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.linear_model import LogisticRegression
    >>> from modal_ntk import Margin
    >>> pool = np.array([[0.0], [1.0], [2.1], [5.0], [9.0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     session = LabelingSession(f"{folder}/labels.sqlite", pool, LogisticRegression(), Margin())
    ...     session.tell(0, "small")
    ...     session.tell(4, "large")
    ...     session.ask(2)
    array([3, 2])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        X_pool: Any,
        estimator: Any = None,
        query_strategy: Any = None,
        *,
        classes: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        initial: Literal["random", "query"] = "random",
        random_state: int = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.query_strategy = query_strategy
        self.initial = checks.check_choice("initial", initial, ("random", "query"))
        self.verbose = verbose
        if query_strategy is not None:
            checks.check_query_strategy(query_strategy)
        if query_strategy is not None and estimator is None:
            raise checks.expected("an estimator for query_strategy to ask with", "None", "Pass estimator=.")
        super().__init__(path, X_pool, classes=classes, names=names, random_state=random_state)

    def __repr__(self) -> str:
        state = self._now()
        counts = f"{len(state.labels)} labelled, {len(state.skipped)} skipped, {len(state.pending)} pending"
        return f"LabelingSession({str(self._log.path)!r}: {counts} of {state.n_rows})"

    def ask(self, n_instances: int = 1) -> np.ndarray:
        """Choose samples to label, among those neither labelled, skipped nor asked for already.

        Parameters
        ----------
        n_instances : int, default=1
            How many.

        Returns
        -------
        numpy.ndarray (n_instances,), int64
            Their rows; they are `pending` until they are answered.

        Raises
        ------
        InvalidInputError
            If there are not so many left.
        """
        while True:
            state = self._now()
            taken = [*state.labels, *state.skipped, *state.asked]
            free = np.setdiff1d(np.arange(state.n_rows), np.array(taken, np.int64))
            checks.check_n_instances(n_instances, len(free))
            with progress.work(type(self).__name__, self.verbose):
                chosen, chooser = self._choose(state, free, int(n_instances))
            if self._add(partial(self._question, chosen, chooser)):
                return chosen

    def _question(self, chosen: np.ndarray, chooser: str) -> tuple[str, None, Any] | None:
        # Another process may have asked for the same rows, or labelled them, while this one was choosing.
        state = self._state
        if any(state.answered(row) or row in state.asked for row in chosen.tolist()):
            return None
        return "ask", None, {"rows": chosen.tolist(), "by": chooser}

    def _choose(self, state: State, free: np.ndarray, n_instances: int) -> tuple[np.ndarray, str]:
        seeds = np.random.SeedSequence([self.random_state, state.n_asks]).generate_state(2)
        known = len(set(state.labels.values())) > 1
        if self.query_strategy is None or (not known and self.initial == RANDOM):
            return np.random.default_rng(seeds[0]).choice(free, n_instances, replace=False), RANDOM
        strategy = seeded_copy(self.query_strategy, int(seeds[0]) % 2**31)
        learner = nets.ActiveLearner(clone(self.estimator), strategy)
        if known:
            learner.X_training, learner.y_training = self._training_set(state)
            learner.estimator = self._fitted(state, int(seeds[1]))
        with progress.stage("query"):
            indices = learner.query(nets.take_rows(self.X_pool, free), n_instances=n_instances)[0]
        name = getattr(strategy, "__name__", type(strategy).__name__)
        chosen = free[checks.check_picks(name, indices, n_instances, len(free))]
        return chosen, " ".join(repr(self.query_strategy).split())

    def fit(self) -> Any:
        """Fit a clone of the estimator to the labels so far.

        Returns
        -------
        estimator
            Fitted; the same for the same log.

        Raises
        ------
        InvalidInputError
            If there is no estimator, or there are no labels.
        """
        state = self._now()
        if self.estimator is None or not state.labels:
            got = "none" if self.estimator is None else "no labels"
            raise checks.expected("an estimator and labels to fit it to", got, "Pass estimator=, and tell labels.")
        return self._fitted(state, int(np.random.SeedSequence([self.random_state, state.n_asks]).generate_state(2)[1]))

    def _training_set(self, state: State) -> tuple[Any, np.ndarray]:
        rows = np.array(list(state.labels), np.int64)
        return nets.take_rows(self.X_pool, rows), checks.check_labels(list(state.labels.values()), len(rows))

    def _fitted(self, state: State, seed: int) -> Any:
        with nets.seeded(seed), progress.stage("fit"):
            X, y = self._training_set(state)
            estimator = nets.for_labels(clone(self.estimator), y, self.classes)
            return nets.train(estimator, X, y)

    def export_csv(self, path: str | os.PathLike[str]) -> None:
        """Write every row that was asked for, labelled or skipped as CSV.

        Parameters
        ----------
        path : str or path
            The file, with columns row, name, status and label.
        """
        exchange.export_csv(self, path)

    def import_csv(self, path: str | os.PathLike[str]) -> int:
        """Read labels and skips from CSV.

        Parameters
        ----------
        path : str or path
            A file with columns row or name, and label, separated by commas, semicolons or tabs; maybe status, of which
            only "skipped" is read. A label is the class that its cell can be read as: white space around it, 1.0 for
            the class 1, or TRUE do no harm.

        Returns
        -------
        int
            How many answers were new; those that say what is known already are passed over, those that differ are
            corrections.

        Raises
        ------
        InvalidInputError
            If a line is unusable, or two differ on a row; nothing is told then.
        """
        return exchange.import_answers(self, exchange.read_csv(self, path))

    def export_label_studio(
        self,
        path: str | os.PathLike[str],
        data: Callable[[int], Mapping[str, Any]],
        *,
        rows: Sequence[int] | np.ndarray | None = None,
        from_name: str = "label",
        to_name: str = "item",
    ) -> None:
        """Write tasks for Label Studio.

        Parameters
        ----------
        path : str or path
            The JSON file.
        data : callable
            Given a row, returns what its task shows, such as ``{"image": "https://..."}``.
        rows : sequence of int, optional
            Of the pool; by default all that are pending, labelled or skipped.
        from_name, to_name : str, default="label" and "item"
            Names of the Choices tag and of what it labels in the project's labelling interface.
        """
        exchange.export_label_studio(self, path, data, rows, from_name, to_name)

    def import_label_studio(self, path: str | os.PathLike[str], *, from_name: str = "label") -> int:
        """Read what was labelled in Label Studio.

        Parameters
        ----------
        path : str or path
            An export in JSON or JSON_MIN, of tasks that `export_label_studio` has written.
        from_name : str, default="label"
            Name of the Choices tag.

        Returns
        -------
        int
            As for `import_csv`; cancelled annotations are skips, and of several annotations the last counts.

        Raises
        ------
        InvalidInputError
            If the file is no such export, of another pool, has answers under other tags alone, or several choices for a
            task; nothing is told then.
        """
        return exchange.import_answers(self, exchange.read_label_studio(self, path, from_name))

    def sync(
        self,
        client: Any,
        project: int,
        data: Callable[[int], Mapping[str, Any]],
        *,
        n_annotators: int = 1,
        predictions: bool = True,
        from_name: str = "label",
        to_name: str = "item",
    ) -> Synced:
        """Exchange questions and answers with a project of Label Studio.

        First what was annotated there is told to the session, then what is pending is made a task, unless it is one.
        Call it again whenever there may be something new: nothing is made or told twice. Where the project says
        otherwise than the session, the project counts.

        Parameters
        ----------
        client : label_studio_sdk.LabelStudio
            Of the extra ``labelstudio``.
        project : int
            Its number; the labelling interface has a Choices tag.
        data : callable
            Given a row, returns what its task shows, such as ``{"image": "https://..."}``.
        n_annotators : int, default=1
            Annotators that a task needs before it counts. Of several answers the most frequent is told; a tie is told
            to nobody and stays pending, until one of them or another annotator decides it.
        predictions : bool, default=True
            Whether tasks come with the class and the probability that the estimator, fitted to the labels so far, gives
            them; once there are labels of two classes.
        from_name, to_name : str, default="label" and "item"
            As for `export_label_studio`.

        Returns
        -------
        Synced
            What was exchanged, everybody's answers, and the rows on which they disagree.

        Raises
        ------
        InvalidInputError
            If an annotation of a task of this pool cannot be used; nothing is told then.
        """
        known = predictions and self.estimator is not None and len(set(self.labels.tolist())) > 1
        estimator = self.fit() if known else None
        return studio.sync(
            self, client, project, data,
            estimator=estimator, n_annotators=n_annotators, from_name=from_name, to_name=to_name,
        )  # fmt: skip
