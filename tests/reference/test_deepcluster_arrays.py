"""Our k-means and DeepCluster loss against a published epoch, on one process and on two."""

import pytest
import torch
import torch.nn.functional as F

from losses.deepcluster import IGNORED, deepcluster_loss
from losses.memory_bank import MemoryBank
from tests import reference_recipe as recipe
from tests.reference.two_ranks import clusters_of

FILE = "deepcluster.npz"
heads = pytest.mark.parametrize("head", [0, 1])


def assert_clusters(stored, case: str, head: int, centroids: torch.Tensor, assignments: torch.Tensor) -> None:
    """Rows are compared where their items are in the published table, in which items without a row have -100."""
    table = torch.full((stored[f"{case}_assignments"].shape[1],), IGNORED)
    table[torch.tensor(stored["index"])] = assignments
    assert table.tolist() == stored[f"{case}_assignments"][head].tolist()
    recipe.assert_float32(centroids, stored[f"{case}_centroids{head}"], FILE, f"centroids{head}")


@heads
@pytest.mark.parametrize("case", ["p1", "p2"])
def test_clusters_on_one_process(case, head):
    stored = recipe.load(FILE)
    assert_clusters(stored, case, head, *clusters_of(stored, case, head))


@heads
def test_clusters_on_two_processes(two, head):
    stored = recipe.load(FILE)
    centroids, assignments = zip(*(results["clusters"][head] for results in two))
    assert torch.equal(*centroids)
    assert_clusters(stored, "p2", head, centroids[0], torch.cat(assignments))


def epoch_embeddings(stored, dtype: torch.dtype) -> list[torch.Tensor]:
    """Of each view of all rows; at a learning rate of 0 nothing changes them."""
    rows, dim, _, _ = stored["n_D_size_batch"].tolist()
    views = [recipe.inputs(f"input/view{view}", int(stored["seed"]), (rows, 3, dim), dtype) for view in (1, 2)]
    return [F.normalize(view.mean(1), dim=1) for view in views]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_of_an_epoch(dtype):
    stored = recipe.load(FILE)
    embeddings = epoch_embeddings(stored, dtype)
    items, assigned = torch.tensor(stored["index"]), torch.tensor(stored["p1_assignments"])
    losses = []
    for rows in torch.tensor(stored["loader_order"]).split(int(stored["n_D_size_batch"][3])):
        scores, targets = [], []
        for head in range(len(stored["K"])):
            centroids = torch.tensor(stored[f"p1_centroids{head}"]).to(dtype)
            scores.append(torch.cat([crop[rows] for crop in embeddings]) @ centroids.T)
            targets.append(assigned[head, items[rows]].repeat(2))
        losses.append(deepcluster_loss(scores, targets).item())
    # centroids are stored in float32 alone
    wanted = stored["p1_losses" if dtype == torch.float32 else "p1_losses_f64"]
    recipe.assert_float32(losses, wanted, FILE, "losses")


def test_bank_after_an_epoch():
    stored = recipe.load(FILE)
    order, items = torch.tensor(stored["loader_order"]), torch.tensor(stored["index"])
    rows, dim, total, batch = stored["n_D_size_batch"].tolist()
    bank = MemoryBank(total, dim, dtype=torch.float32)
    for crop, embeddings in enumerate(epoch_embeddings(stored, torch.float32)):
        for chosen in order.split(batch):
            bank.write(crop, items[chosen], embeddings[chosen])
    after = torch.tensor(stored["p1_index_after"])
    assert len(after) == rows and bank.written.sum(1).tolist() == [rows, rows]
    recipe.assert_float32(bank.table[:, after], stored["p1_bank_after"], FILE, "bank_after")
