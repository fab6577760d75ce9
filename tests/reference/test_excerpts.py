"""Our functions beside small arrays that straight-line statements in numpy gave, and that lie in the repository."""

import numpy as np
import pytest
import torch

from engine.optimizers import make_optimizer
from engine.schedule import learning_rates
from losses.deepcluster import deepcluster_loss
from losses.kmeans import kmeans_from
from losses.masked import masked_slice_loss, published_mask_loss
from losses.sinkhorn import sinkhorn
from losses.swav import swav_loss
from models.attention import DeformableAttention
from tests.reference.make_excerpts import DIM, FILE, HEAD_DIM, HEADS, make


@pytest.fixture(scope="module")
def stored():
    torch.set_default_dtype(torch.float64)
    with np.load(FILE) as arrays:
        yield {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    torch.set_default_dtype(torch.float32)


def test_the_file_is_what_its_statements_give(stored):
    made = make()
    assert made.keys() == stored.keys() and FILE.stat().st_size < 300_000
    for name, value in made.items():
        np.testing.assert_allclose(stored[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("sampling", ["da018", "da020"])
def test_attention_and_its_input_gradient(stored, sampling):
    attention = DeformableAttention(DIM, HEADS, HEAD_DIM, sampling=sampling, least_keys=1)
    attention.load_state_dict({n.removeprefix("attention/weight/"): v for n, v in stored.items() if "/weight/" in n})
    x = stored["attention/x"].clone().requires_grad_()
    out = attention(x.T[None])[0].T
    (out**2).sum().backward()
    torch.testing.assert_close(out, stored[f"attention/{sampling}/out"], rtol=1e-9, atol=1e-12)
    # central differences are exact to about the square of their step
    torch.testing.assert_close(x.grad, stored[f"attention/{sampling}/grad_x"], rtol=1e-6, atol=1e-7)


def test_codes_and_losses_of_clusters(stored):
    scores, codes = stored["swav/scores"], stored["swav/codes"]
    for view, expected in zip(scores, codes):
        torch.testing.assert_close(sinkhorn(view, 0.05, 3), expected, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(swav_loss(list(scores), list(codes), 0.1), stored["swav/loss"], rtol=1e-12, atol=0)
    loss = deepcluster_loss([scores[0]], [stored["deepcluster/targets"]], 0.1)
    torch.testing.assert_close(loss, stored["deepcluster/loss"], rtol=1e-12, atol=0)


def test_clusters(stored):
    rows = stored["kmeans/rows"]
    centroids, assigned = kmeans_from(rows, torch.arange(len(rows)), stored["kmeans/start"], 10)
    assert torch.equal(assigned, stored["kmeans/assigned"])
    torch.testing.assert_close(centroids.double(), stored["kmeans/centroids"], rtol=0, atol=3e-7)


def test_steps_and_rates(stored):
    weight = torch.nn.Parameter(stored["larc/weight"].clone())
    optimizer = make_optimizer("larc", torch.nn.ParameterList([weight]), 0.3, 1e-2)
    for gradient in stored["larc/gradients"]:
        weight.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(weight.data, stored["larc/after"], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(learning_rates(5, 2, 7, 0.01, 0.0, 0.0), stored["schedule"], rtol=1e-12, atol=1e-18)


def test_losses_of_masked_slices(stored):
    predictions, targets, masked = (stored[f"masked/{name}"] for name in ("predictions", "targets", "masked"))
    torch.testing.assert_close(masked_slice_loss(predictions, targets, masked), stored["masked/loss"], rtol=1e-12, atol=0)
    torch.testing.assert_close(
        published_mask_loss(predictions, targets, 0.3), stored["masked/published_loss"], rtol=1e-12, atol=0
    )
