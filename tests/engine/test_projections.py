import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from engine.projections import principal_components, tsne_map


def far_groups(n=60):
    rng = np.random.default_rng(0)
    groups = np.arange(n) % 3
    return 10 * np.eye(8)[groups] + rng.normal(size=(n, 8)), groups


@pytest.mark.parametrize("project", [principal_components, tsne_map])
def test_groups_that_lie_far_apart_do_so_on_the_map(project):
    embeddings, groups = far_groups()
    points = project(embeddings)
    centres = np.array([points[groups == group].mean(0) for group in range(3)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(1)
    assert points.shape == (60, 2) and adjusted_rand_score(groups, nearest) == 1


@pytest.mark.parametrize("project", [principal_components, tsne_map])
def test_a_map_is_the_same_each_time_and_for_embeddings_of_any_length(project):
    embeddings, _ = far_groups(30)
    assert np.array_equal(project(embeddings), project(embeddings))
    assert np.array_equal(project(embeddings), project(4 * embeddings))  # a power of two: no rounding


@pytest.mark.parametrize("project", [principal_components, tsne_map])
@pytest.mark.parametrize("embeddings", [np.ones((20, 5)), np.ones((1, 5)), np.eye(3), np.ones((9, 1)), np.zeros((8, 2))])
def test_few_files_or_equal_ones_have_a_map_too(project, embeddings):
    points = project(embeddings)
    assert points.shape == (len(embeddings), 2) and np.isfinite(points).all()


def test_the_first_component_holds_most_of_the_variance():
    embeddings, _ = far_groups()
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    values = np.linalg.svd(unit - unit.mean(0), compute_uv=False)
    assert np.linalg.norm(principal_components(embeddings), axis=0) == pytest.approx(values[:2])
