"""Embeddings as points in a plane, to be looked at: directions, for all scores are of cosines."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from .neighbours import unit_rows

PERPLEXITY = 30  # of t-SNE, about how many neighbours a point should keep; at most a third of the others
COMPONENTS = 50  # that t-SNE starts from, as van der Maaten and Hinton (2008) do


def principal_components(embeddings: np.ndarray, components: int = 2) -> np.ndarray:
    """(n, D) → (n, components): coordinates along the axes of most variance; fewer where there are no more."""
    unit = unit_rows(embeddings)
    return PCA(min(components, *unit.shape), random_state=0).fit_transform(unit)


def pca_map(embeddings: np.ndarray) -> np.ndarray:
    """(n, D) → (n, 2): the first two principal components."""
    points = principal_components(embeddings)
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))


def tsne_map(embeddings: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n, D) → (n, 2): t-SNE, the same each time. Zeros where there is nothing to spread: under four points, or equal ones."""
    points = principal_components(embeddings, COMPONENTS)
    if len(points) < 4 or points.shape[1] < 2 or np.ptp(points, axis=0).max() < 1e-9:
        return np.zeros((len(points), 2))
    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
