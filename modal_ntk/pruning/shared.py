"""What pruning shares with the query strategy, under this package's name too."""

from __future__ import annotations

from modal_ntk.structure.farthest_point import FarthestPoints, farthest_point_clustering, redundant_samples

__all__ = ["FarthestPoints", "farthest_point_clustering", "redundant_samples"]
