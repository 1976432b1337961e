"""Which versions of what we build on work together: the one place that knows, for doctor and for warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from modal_ntk.environment import repairs

PACKAGES = ("modal-ntk", "torch", "skorch", "scikit-learn", "modAL-python", "numpy", "backpack-for-pytorch")
"""Distributions whose versions matter, in the order in which they are shown."""

TRIED = {"modAL-python": "==0.4.1 || ==0.4.2.1", "scikit-learn": ">=1.5,<1.10", "skorch": ">=1.2,<1.5"}
"""Versions whose combinations were run in a loop of query, teach and score; alternatives are parted by ``||``."""


@dataclass(frozen=True)
class Clash:
    """A combination of versions that was run and does not work.

    Parameters
    ----------
    where : dict of str to str
        Specifier of each distribution that takes part.
    problem : str
        What does not work, as a sentence without its full stop.
    remedy : str
        What to do.
    """

    where: Mapping[str, str]
    problem: str
    remedy: str

    def __str__(self) -> str:
        """Return problem and remedy."""
        return f"{self.problem}. {self.remedy}"


MODAL_LEARNER = Clash(
    # Scikit-learn renamed check_X_y(force_all_finite=...) in 1.6 and dropped the old name in 1.8.
    {"modAL-python": "<0.5", "scikit-learn": ">=1.8"},
    "modAL's own learner cannot teach on scikit-learn 1.8 and later, which dropped an argument that modAL passes",
    f"Use modal_ntk.ActiveLearner in its place, or unset {repairs.VARIABLE} to have modAL repaired on import",
)
"""Mended by `modal_ntk.environment.repairs` where these fit the installed modAL and are not switched off."""

CLASHES = (
    MODAL_LEARNER,
    Clash(
        {"skorch": "<1.2"},
        "skorch before 1.2 cannot copy or unpickle a net on current torch",
        'Run: pip install "skorch>=1.2,<2"',
    ),
)
"""Everything known not to work."""


def installed_versions() -> dict[str, str | None]:
    """Return the version of each of `PACKAGES`.

    Returns
    -------
    dict of str to str or None
        None for what is not installed.

    Examples
    --------
    >>> list(installed_versions())[:2]
    ['modal-ntk', 'torch']
    """
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def clashes(versions: Mapping[str, str | None]) -> list[Clash]:
    """Return what is known not to work among some versions.

    Parameters
    ----------
    versions : dict of str to str or None
        Version of each distribution.

    Returns
    -------
    list of Clash
        Those of `CLASHES` that apply.

    Examples
    --------
    >>> clashes({"modAL-python": "0.4.1", "scikit-learn": "1.8.0", "skorch": "1.4.0"}) == [MODAL_LEARNER]
    True
    """
    return [c for c in CLASHES if all(_within(versions.get(n), spec) for n, spec in c.where.items())]


def was_tried(versions: Mapping[str, str | None]) -> bool:
    """Tell whether modAL, scikit-learn and skorch are all of versions that were run together.

    Parameters
    ----------
    versions : dict of str to str or None
        Version of each distribution.

    Returns
    -------
    bool
        Whether they are.

    Examples
    --------
    >>> was_tried({"modAL-python": "0.4.2.1", "scikit-learn": "1.5.0", "skorch": "1.2.0"})
    True
    """
    return all(_within(versions.get(name), spec) for name, spec in TRIED.items())


def _within(installed: str | None, alternatives: str) -> bool:
    return installed is not None and any(
        SpecifierSet(spec.strip()).contains(installed, prereleases=True) for spec in alternatives.split("||")
    )


def unmet_requirements(distribution: str = "modal-ntk") -> list[str]:
    """Compare what a distribution declares to need with what is installed.

    Parameters
    ----------
    distribution : str, default="modal-ntk"
        Its name.

    Returns
    -------
    list of str
        A sentence for each requirement that is not met, those of extras left out.
    """
    try:
        declared = requires(distribution) or ()
    except PackageNotFoundError:
        return [f"{distribution} is not installed, so its plugins cannot be found. Run: pip install {distribution}"]
    sentences = []
    for requirement in map(Requirement, declared):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            got = "nothing of it" if found is None else found
            sentences.append(f'{distribution} declares "{requirement}", and {got} is installed')
    return sentences


def modal_learner_runs() -> bool:
    """Tell whether modAL's own learner can teach here.

    Returns
    -------
    bool
        Whether `MODAL_LEARNER` does not apply, or is mended.
    """
    return not _modal_learner_clashes() or is_mended(MODAL_LEARNER)


def is_mended(clash: Clash) -> bool:
    """Tell whether a repair takes a clash away.

    Parameters
    ----------
    clash : Clash
        One of `CLASHES`.

    Returns
    -------
    bool
        Whether one is active.
    """
    return clash is MODAL_LEARNER and repairs.states()[repairs.CHECKS] == repairs.ACTIVE


@cache
def _modal_learner_clashes() -> bool:
    return MODAL_LEARNER in clashes(installed_versions())
