"""Embeddings as points in a plane, to be looked at: directions, for all scores are of cosines."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from .neighbours import unit_rows

PERPLEXITY = 30  # of t-SNE, about how many neighbours a point should keep; at most a third of the others
COMPONENTS = 50  # that t-SNE starts from, as van der Maaten and Hinton (2008) do


def principal_components(embeddings: np.ndarray, components: int = 2) -> np.ndarray:
    """(n, D) → (n, components): coordinates along the axes of most variance, zeros beyond those that there are."""
    unit, points = unit_rows(embeddings), np.zeros((len(embeddings), components))
    if np.ptp(unit, axis=0).max() > 1e-9:
        found = PCA(min(components, *unit.shape), random_state=0).fit_transform(unit)
        points[:, : found.shape[1]] = found
    return points


def tsne_map(embeddings: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n, D) → (n, 2): t-SNE, the same each time. Zeros where there is nothing to spread: under four files, or equal ones."""
    points = principal_components(embeddings, COMPONENTS)
    if len(points) < 4 or not points.any():
        return np.zeros((len(points), 2))
    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
