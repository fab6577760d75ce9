"""What one process, and each of two with unequal shares, computes for the tests of `losses/`.

All data are drawn in full on every process; `share` takes a rank's rows.
"""

from functools import partial

import torch
import torch.distributed as dist

from losses import memory_bank
from losses.collapse import CollapseGuard
from losses.deepcluster import deepcluster_loss
from losses.distributed import all_max, all_sum, gather_rows, global_mean, rank, world_size
from losses.errors import ClusteringError
from losses.kmeans import spherical_kmeans
from losses.masked import MaskedScore, masked_slice_loss
from losses.memory_bank import MemoryBank
from losses.sinkhorn import sinkhorn
from losses.swav import EmbeddingQueue, swav_codes, swav_loss

# rows of rank 0, of 23: unequal shares, and a rank without any
SHARES = {"unequal": 17, "none": 0}
ROWS = 23


def run(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    torch.save(compute(number, 2), f"{folder}/{number}.pt")
    dist.destroy_process_group()


def compute(number: int, world: int) -> dict:
    results = {"world": (rank(), world_size()), "gathered": gathered(number)}
    for name, cut in SHARES.items():
        share = partial(share_of, number=number, world=world, cut=cut)
        for part in (reduced, codes, losses, queue, clusters, bank, score, guard):
            results[part.__name__, name] = part(share)
    return results


def share_of(rows: torch.Tensor, number: int, world: int, cut: int, axis: int = 0) -> torch.Tensor:
    if world == 1:
        return rows
    sizes = (cut, rows.shape[axis] - cut)
    return rows.split(sizes, axis)[number]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gathered(number: int) -> dict:
    """Shapes and dtypes that backends do not know, a rank without rows among them."""
    own = torch.arange(3 * number) + 10 * number
    return {
        "whole": gather_rows(own),
        "half": gather_rows(torch.full((2 - number, 2, 3), number + 0.5, dtype=torch.bfloat16)),
        "bool": gather_rows(torch.ones(number, 5, dtype=torch.bool)),
        "nothing": gather_rows(torch.zeros(0, 4)),
    }


def reduced(share) -> dict:
    values = share(draw(ROWS)).requires_grad_()
    mean = global_mean(values)
    mean.backward()
    nothing = torch.zeros(0, requires_grad=True)
    empty = global_mean(nothing)
    empty.backward()
    top = all_max(torch.cat([values.detach(), values.new_tensor([-9.0])]).max())
    return {"mean": mean.detach(), "gradient": values.grad, "empty": empty.detach(), "sum": all_sum(values.sum()), "max": top}


def codes(share) -> dict:
    scores = (0.4 * draw(ROWS, 7)).clamp(-1, 1)
    return {
        "double": sinkhorn(share(scores)),
        "single": sinkhorn(share(scores.float()), 0.03, 10),
        "log": sinkhorn(share(1e4 * scores)),
        "nobody": sinkhorn(torch.zeros(0, 7)),
    }


def losses(share) -> dict:
    """Values, and gradients of a shared weight as DistributedDataParallel averages them."""
    inputs = [draw(ROWS, 6, seed=crop) for crop in range(3)]
    target = torch.arange(ROWS) % 5
    target[::4] = -100
    masked = torch.arange(ROWS * 4).view(ROWS, 4) % 3 == 0
    volumes = draw(ROWS, 4, 6, seed=9)

    def scores(weight):
        return [share(crop) @ weight for crop in inputs]

    def swav(weight):
        of_crops = scores(weight)
        queued = share(draw(ROWS, 5, seed=5))
        return swav_loss(of_crops, [swav_codes(crop.detach(), queued) for crop in of_crops[:2]])

    def deepcluster(weight, target=target):
        return deepcluster_loss(scores(weight)[:2], [share(target), share(target.flip(0))])

    def masking(weight):
        return masked_slice_loss(share(volumes) @ weight, share(volumes)[..., :5], share(masked))

    parts = {"swav": swav, "deepcluster": deepcluster, "masked": masking}
    parts["nothing valid"] = partial(deepcluster, target=torch.full((ROWS,), -100))
    return {name: value_and_gradient(function) for name, function in parts.items()}


def value_and_gradient(function) -> tuple[torch.Tensor, torch.Tensor]:
    weight = draw(6, 5, seed=77).requires_grad_()
    value = function(weight)
    value.backward()
    return all_sum(value) / world_size(), all_sum(weight.grad) / world_size()


def queue(share) -> dict:
    queue = EmbeddingQueue(30, 3)
    history = []
    for step in range(3):
        queue.push(share(draw(2, ROWS, 3, seed=step), axis=1))
        history.append((queue.ready, queue.rows.shape[1]))
    return {"rows": queue.rows, "history": history, "share": queue.share(1), "state": queue.state_dict()}


def clusters(share) -> dict:
    """Rows dealt in any way: global numbers are a permutation. Duplicated rows leave clusters empty at the start."""
    index = share((torch.arange(ROWS) * 7) % ROWS)
    rows = draw(ROWS, 4, seed=3)
    crowded = rows.clone()
    crowded[:15] = rows[0]
    results = {}
    for name, data in {"rows": rows, "half": rows.half(), "crowded": crowded}.items():
        centroids, assigned = spherical_kmeans(data[index], index, 6, 10, seed=5)
        table = torch.zeros(ROWS, dtype=torch.int64)
        table[index] = assigned
        results[name] = (centroids, all_sum(table))
    try:
        spherical_kmeans(rows[index], index, ROWS + 1)
    except ClusteringError as error:
        results["error"] = str(error)
    return results


def bank(share) -> dict:
    """Rows 20 … 22 are never written; row 4 twice, by the first and the last share."""
    bank = MemoryBank(ROWS, 4)
    index = torch.arange(ROWS) % 20
    embeddings = draw(ROWS, 4, seed=8)
    index[-1], embeddings[-1] = 4, -draw(ROWS, 4, seed=8)[4]
    for crop in range(2):
        bank.write(crop, share(index), share(embeddings) * (crop + 1))
    memory_bank.GATHERED_ROWS = 5  # of 12 and 11 rows
    state = bank.state_dict()
    written = [state]
    if world_size() > 1:
        dist.broadcast_object_list(written)
    again = MemoryBank(ROWS, 4)
    again.load_state_dict(written[0])
    same = torch.equal(again.table[:, :-1], bank.table[:, :-1]) and torch.equal(again.written, bank.written)
    centroids, assigned = bank.cluster(1, 5, 10, seed=2)
    return {"state": state, "same": same, "centroids": centroids, "assigned": assigned, "own": bank.own, "full": bank.full}


def score(share) -> dict:
    """A rank without rows adds nothing at all, as one that got no volumes would."""
    tally = MaskedScore()
    predictions, targets, guess, masked = (share(x) for x in score_data())
    for step in range(2):
        if len(masked[step::2]):
            tally.add(predictions[step::2], targets[step::2], guess[step::2], masked[step::2])
    return tally.compute()


def score_data() -> tuple[torch.Tensor, ...]:
    targets = draw(ROWS, 9, 4, seed=1) + 3
    real = torch.arange(9) < 2 + torch.arange(ROWS)[:, None] % 8
    masked = (torch.arange(ROWS * 9).view(ROWS, 9) % 3 == 1) & real
    return targets + 0.3 * draw(ROWS, 9, 4, seed=2), targets, targets + draw(ROWS, 9, 4, seed=3), masked


def guard(share) -> dict:
    guard = CollapseGuard({"slices": 6})
    embeddings = torch.nn.functional.normalize(draw(ROWS, 4, seed=4))
    assigned = torch.arange(ROWS) % 5
    for epoch in range(2):
        guard.compare("slices", share(assigned + epoch * (torch.arange(ROWS) < 4)))
        for step in range(2):
            guard.add("slices", share(assigned), share(embeddings) * (step + 1), torch.tensor(1.0 + step))
        report = guard.epoch_report()
    return report
