"""Samples that are images, shown in a grid in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modal_ntk import checks
from modal_ntk.bench.reports.figures import as_shown


class ImagesDisplay:
    """Images of a batch, in a grid.

    Parameters
    ----------
    images : array (b, height, width), (b, channels, height, width) or (b, height, width, channels)
        With one channel or three, values of any range; each is scaled by itself.
    titles : sequence, optional
        What stands above each, such as its label.

    Attributes
    ----------
    axes_, figure_ : array of matplotlib axes, and figure
        Where they were plotted.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> display = ImagesDisplay.from_indices(digits.images, [3, 5, 7], titles=digits.target)
    >>> [axes.get_title() for axes in display.axes_.flat]
    ['3', '5', '7']
    """

    def __init__(self, images: Any, titles: Sequence[Any] | None = None) -> None:
        self.images = [as_shown(image) for image in np.asarray(images)]
        self.titles = None if titles is None else [str(title) for title in titles]

    @classmethod
    def from_indices(
        cls, X: Any, indices: Any, *, titles: Any = None, n_columns: int = 10, figure: Any = None
    ) -> ImagesDisplay:
        """Plot images of a pool.

        Parameters
        ----------
        X : array or tensor (n, ...)
            All images.
        indices : array-like (b,), int
            Which.
        titles : array-like (n,), optional
            What stands above each of `X`, such as labels.
        n_columns : int, default=10
            Images beside one another.
        figure : matplotlib figure, optional
            Where to; a new one by default.

        Returns
        -------
        ImagesDisplay
            Plotted.

        Raises
        ------
        InvalidInputError
            If they are no images, or a row is none of them.
        MissingExtraError
            If matplotlib is not installed.
        """
        rows = checks.check_rows("indices", indices, checks.n_rows(X))
        images = np.asarray(X.detach().cpu() if hasattr(X, "detach") else X)[rows]
        return cls(images, None if titles is None else np.asarray(titles)[rows]).plot(n_columns, figure)

    def plot(self, n_columns: int = 10, figure: Any = None) -> ImagesDisplay:
        """Plot the images.

        Parameters
        ----------
        n_columns : int, default=10
            Images beside one another.
        figure : matplotlib figure, optional
            Where to; a new one by default.

        Returns
        -------
        ImagesDisplay
            Itself.
        """
        n_columns = min(checks.check_integer("n_columns", n_columns), max(1, len(self.images)))
        n_rows = max(1, -(-len(self.images) // n_columns))
        high = 1.25 if self.titles else 1.0
        self.figure_ = pyplot().figure(figsize=(n_columns, high * n_rows)) if figure is None else figure
        self.axes_ = self.figure_.subplots(n_rows, n_columns, squeeze=False)
        for axes in self.axes_.flat:
            axes.axis("off")
        for i, (axes, image) in enumerate(zip(self.axes_.flat, self.images, strict=False)):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
            if self.titles:
                axes.set_title(self.titles[i], fontsize="small", parse_math=False)
        return self


def pyplot() -> Any:
    """Return the user's pyplot, or say what to install."""
    checks.check_installed("A display", ["matplotlib"], extra="bench")
    from matplotlib import pyplot as found

    return found
