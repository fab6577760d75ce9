"""SwAV, Sinkhorn and clustering beside what the published training loops computed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from losses.deepcluster import deepcluster_loss
from losses.kmeans import kmeans_from
from losses.sinkhorn import sinkhorn
from losses.swav import EmbeddingQueue, swav_codes, swav_loss
from models.heads import Prototypes
from tests import reference_recipe as recipe

pytestmark = pytest.mark.skipif(not recipe.FOLDER.exists(), reason="the stored arrays are not here")


def close(ours, stored, share):
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
    assert ours.shape == stored.shape
    assert np.linalg.norm(ours - stored) <= share * np.linalg.norm(stored)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("kind", ["queue", "noqueue"])
def test_six_steps_of_swav_in_losses_codes_queue_and_prototypes(kind, dtype):
    stored = recipe.Stored("swav_loss")
    batch, slices, dim, clusters, steps, length = stored.arrays["B_N_D_K_iters_queue"].tolist()
    prototypes = Prototypes(dim, [clusters], scores="dot").to(dtype)
    weight = prototypes.heads[0]
    weight.data = recipe.tensor("prototypes.prototypes0.weight", stored.seed, weight)
    optimizer = torch.optim.SGD(prototypes.parameters(), lr=float(stored.arrays["lr"]), momentum=0.9, weight_decay=1e-6)
    queue = EmbeddingQueue(length if kind == "queue" else 0, dim)
    losses, codes, rows = [], [], []
    for step in range(steps):
        prototypes.normalize_()
        views = [recipe.inputs(f"input/view{view}/{step}", stored.seed, (batch, slices, dim), dtype) for view in (1, 2)]
        embeddings = [F.normalize(view.mean(1), dim=1) for view in views]
        scores = [prototypes(embedding)[0] for embedding in embeddings]
        # the published queue is used once its last row is filled, before this step's rows come in
        earlier = [prototypes(queue.share(view).to(dtype))[0] if queue.ready else None for view in (0, 1)]
        codes.append(torch.stack([swav_codes(of_view, old) for of_view, old in zip(scores, earlier)]))
        rows += [batch + (length if queue.ready else 0)] * 2
        loss = swav_loss(scores, codes[-1])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if step < int(stored.arrays["freeze_iters"]):
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(prototypes.parameters(), 2.0)
        optimizer.step()
        queue.push(embeddings)
    end = "f64" if dtype == torch.float64 else "f32"
    assert rows == stored.arrays[f"{kind}_rows_in_sinkhorn"].tolist()
    for name, ours in [("losses", losses), ("q", torch.stack(codes)), ("prototypes_after", weight)]:
        share = 1e-9 if dtype == torch.float64 else stored.tolerance(f"{kind}_{name}")
        close(ours, stored.arrays[f"{kind}_{name}_{end}"], share)
    if kind == "queue":
        close(queue.rows, stored.arrays[f"queue_queue_after_{end}"], 1e-9 if dtype == torch.float64 else 1e-6)


def cases(which):
    stored = recipe.Stored("sinkhorn") if recipe.FOLDER.exists() else None
    return [name for name in stored.arrays.files if name.startswith(which)] if stored else []


def scores_of(stored, name):
    _, rows, clusters, epsilon, iterations = name.split("_")
    rows, clusters = int(rows[1:]), int(clusters[1:])
    scores = np.clip(0.4 * recipe.draw(f"scores/{rows}x{clusters}", stored.seed, (rows, clusters)), -1, 1)
    return torch.from_numpy(scores.astype(np.float32)), float(epsilon[3:]), int(iterations[2:])


@pytest.mark.parametrize("name", cases("q1_"))
def test_sinkhorn_of_one_process(name):
    stored = recipe.Stored("sinkhorn")
    scores, epsilon, iterations = scores_of(stored, name)
    close(sinkhorn(scores, epsilon, iterations), stored.arrays[name], 3e-6)
    exact = sinkhorn(scores.double(), epsilon, iterations).numpy()
    dot, norm = stored.arrays["q1probe_" + name[3:]]
    assert abs(np.linalg.norm(exact) - norm) <= 1e-9 * norm
    probe = recipe.draw(f"probe/{name[3:]}", stored.seed, exact.size)
    assert abs(exact.ravel() @ probe - dot) <= 1e-9 * norm * np.sqrt(exact.size)


@pytest.mark.parametrize("name", cases("q2_"))
def test_sinkhorn_of_two_processes_is_that_of_one_also_where_the_published_one_is_not(name):
    """That ours is the same on two processes, tests/losses says; here, that the published one is not for unequal shares."""
    stored = recipe.Stored("sinkhorn")
    scores, epsilon, iterations = scores_of(stored, name)
    ours, theirs = sinkhorn(scores, epsilon, iterations).numpy(), stored.arrays[name]
    first, second = stored.arrays["split_" + name[3:]].tolist()
    if first == second:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=7.6e-6)
    else:
        assert 1e-5 < np.abs(ours - theirs).max() < 1e-2
        np.testing.assert_allclose(ours, stored.arrays[name.replace("q2_", "q1_")], rtol=0, atol=7.6e-6)


@pytest.mark.parametrize("processes", ["p1", "p2"])
@pytest.mark.parametrize("head", [0, 1])
def test_kmeans_from_the_same_rows(processes, head):
    stored = recipe.Stored("deepcluster").arrays
    bank = torch.from_numpy(stored["bank"][head % 2])
    start = torch.from_numpy(stored[f"{processes}_drawn_rows{head}"])
    for refill in (True, False):  # no cluster gets empty
        centroids, assigned = kmeans_from(bank, torch.arange(len(bank)), start, 10, refill)
        np.testing.assert_allclose(centroids, stored[f"{processes}_centroids{head}"], rtol=0, atol=3.4e-6)
        assert np.array_equal(assigned, stored[f"{processes}_assignments"][head, stored["index"]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_ten_losses_of_deepcluster(dtype):
    stored = recipe.Stored("deepcluster")
    arrays = stored.arrays
    rows, dim, _, batch = arrays["n_D_size_batch"].tolist()
    views = [recipe.inputs(f"input/view{view}", stored.seed, (rows, 3, dim), dtype) for view in (1, 2)]
    embeddings = [F.normalize(view.mean(1), dim=1) for view in views]
    centroids = [torch.from_numpy(arrays[f"p1_centroids{head}"]).to(dtype) for head in (0, 1)]
    order, losses = torch.from_numpy(arrays["loader_order"]), []
    for step in range(rows // batch):
        places = order[step * batch : (step + 1) * batch]
        both = torch.cat([embedding[places] for embedding in embeddings])
        index = torch.from_numpy(arrays["index"])[places]
        targets = [torch.from_numpy(arrays["p1_assignments"][head])[index].repeat(2) for head in (0, 1)]
        losses.append(deepcluster_loss([both @ c.T for c in centroids], targets, 0.1).item())
    np.testing.assert_allclose(losses, arrays["p1_losses" if dtype == torch.float32 else "p1_losses_f64"], rtol=1e-6)
