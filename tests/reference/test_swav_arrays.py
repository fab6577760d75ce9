"""Six recorded steps of published SwAV training, by our codes, loss, queue and prototypes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from losses.swav import EmbeddingQueue, swav_codes, swav_loss
from models.heads import Prototypes
from tests import reference_recipe as recipe

FILE = "swav_loss.npz"
runs = pytest.mark.parametrize("queued", ["noqueue", "queue"])


def run(stored, queued: str, dtype: torch.dtype) -> tuple[dict[str, np.ndarray], list[int]]:
    """The arrays of a run by their stored names, and the rows in each Sinkhorn."""
    seed, (batch, slices, dim, count, steps, length) = int(stored["seed"]), stored["B_N_D_K_iters_queue"].tolist()
    prototypes = Prototypes(dim, [count], scores="dot").to(dtype)
    weight = prototypes.heads[0]
    weight.data = recipe.tensor("prototypes.prototypes0.weight", seed, weight)
    optimizer = torch.optim.SGD([weight], lr=float(stored["lr"]), momentum=0.9, weight_decay=1e-6)
    queue = EmbeddingQueue(length if queued == "queue" else 0, dim)
    losses, all_codes, rows = [], [], []
    for step in range(steps):
        prototypes.normalize_()
        views = [recipe.inputs(f"input/view{view}/{step}", seed, (batch, slices, dim), dtype) for view in (1, 2)]
        embeddings = [F.normalize(view.mean(1), dim=1) for view in views]
        scores = [prototypes(embedding)[0] for embedding in embeddings]
        codes = []
        for crop in (0, 1):
            earlier = prototypes(queue.share(crop))[0].detach() if queue.ready else None
            rows.append(batch + (0 if earlier is None else len(earlier)))
            codes.append(swav_codes(scores[crop].detach(), earlier))
        loss = swav_loss(scores, codes)
        queue.push(embeddings)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([weight], 2.0)
        if step < int(stored["freeze_iters"]):
            weight.grad = None
        optimizer.step()
        losses.append(loss.item())
        all_codes.append(torch.stack(codes))
    arrays = {"losses": losses, "q": torch.stack(all_codes), "prototypes_after": weight.detach()}
    if queued == "queue":
        arrays["queue_after"] = queue.rows
    return {f"{queued}_{name}": np.asarray(array) for name, array in arrays.items()}, rows


@runs
def test_float64(queued):
    stored = recipe.load(FILE)
    ours, rows = run(stored, queued, torch.float64)
    assert rows == stored[f"{queued}_rows_in_sinkhorn"].tolist()
    for name, array in ours.items():
        recipe.assert_float64(array, stored[f"{name}_f64"], name)


@runs
def test_float32(queued):
    stored = recipe.load(FILE)
    ours, _ = run(stored, queued, torch.float32)
    for name, array in ours.items():
        recipe.assert_float32(array, stored[f"{name}_f32"], FILE, name)
