"""`--preset vissl` against a straight-line statement of VISSL's training step, in plain torch and torchvision.

Nothing of the project computes in the statement: it gets the first weights, the crops that the network sees and, for k-means,
the rows that are the first centroids, and makes losses and weights of its own.
"""

import importlib
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch.nn.functional import cross_entropy, linear, normalize

from datasets.draws import keys
from engine.config import parse
from engine.run import Run
from losses.kmeans import first_rows
from tests.scripts.conftest import make_data

# a rate at which LARC moves the weights, so that a wrong step shows in the losses after it
TINY = "--preset vissl --arch resnet18 --precision fp64 --workers 0 --batch_size 8 --epochs 2 --probed_files 0".split()
TINY += "--base_lr 2 --final_lr 0.2".split()
CROPS = {"swav": "--size_crops 32 24 --nmb_crops 2 1".split(), "deepcluster": "--size_crops 32".split()}
MORE = {"swav": "--nmb_prototypes 9 --freeze_prototypes_niters 2".split(), "deepcluster": "--nmb_prototypes 5 4 6".split()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    make_data(root, volumes=1, images=26)  # two of them are left out of each epoch
    return root / "images"


def watched(method, pictures, monkeypatch, tmp_path):
    """A run of the script: its constants, its first weights, what its network sees, its losses, its last weights."""
    monkeypatch.chdir(tmp_path)
    script = importlib.import_module(f"ssl_{method}_2D")
    config_class = script.SwavImageConfig if method == "swav" else script.DeepClusterImageConfig
    config = parse(config_class, [*TINY, *CROPS[method], *MORE[method], "--data_path", str(pictures)])
    seen = SimpleNamespace(config=config, start=None, shown=[], losses=[], ends=[], rates=[])

    def prepare(run, model, *rest, inner=Run.prepare, **tracked):
        seen.start = {name: value.double().clone() for name, value in model.state_dict().items()}
        return inner(run, model, *rest, **tracked)

    def picture_crops(batch, *rest, inner=script.picture_crops, **more):
        crops = inner(batch, *rest, **more)
        seen.shown.append((batch["index"].clone(), [crop.clone() for crop in crops]))
        return crops

    def update(run, loss, *rest, inner=Run.update, **more):
        seen.losses.append(loss.item())
        seen.rates.append(float(run.rates[run.step]))
        inner(run, loss, *rest, **more)

    monkeypatch.setattr(Run, "prepare", prepare)
    monkeypatch.setattr(Run, "update", update)
    monkeypatch.setattr(script, "picture_crops", picture_crops)
    seen.end = script.main(config).state_dict()
    return seen


def plain_trunk(start):
    trunk = torchvision.models.resnet18()
    trunk.fc = torch.nn.Identity()
    prefix = "slice_encoder.resnet."
    trunk.load_state_dict({name.removeprefix(prefix): value for name, value in start.items() if name.startswith(prefix)})
    return trunk.double().train()


def plain_head(start, batchnorm):
    norm = [torch.nn.BatchNorm1d(2048)] if batchnorm else []
    head = torch.nn.Sequential(torch.nn.Linear(512, 2048), *norm, torch.nn.ReLU(), torch.nn.Linear(2048, 128)).double()
    prefix = "head.layers."
    head.load_state_dict({name.removeprefix(prefix): value for name, value in start.items() if name.startswith(prefix)})
    return head.train()


def larc_sgd(parameters, momenta, rate):
    """LARC without clipping around SGD with momentum 0.9 and weight decay 1e-6; what has no gradient is passed over."""
    with torch.no_grad():
        for number, parameter in enumerate(parameters):
            if parameter.grad is None:
                continue
            size, slope = parameter.norm(), parameter.grad.norm()
            gradient = parameter.grad
            if size != 0 and slope != 0:
                gradient = (gradient + 1e-6 * parameter) * (0.001 * size / (slope + 1e-6 * size + 1e-8))
            momenta[number] = gradient.clone() if number not in momenta else 0.9 * momenta[number] + gradient
            parameter -= rate * momenta[number]
            parameter.grad = None


def embed(trunk, head, crops):
    """Unit projections of all crops, one below the other; crops of one size go through the trunk together."""
    sizes = sorted({crop.shape[-1] for crop in crops}, reverse=True)
    features = torch.cat([trunk(torch.cat([crop for crop in crops if crop.shape[-1] == size])) for size in sizes])
    return normalize(head(features), dim=1)


def cosine_rates(first, last, steps):
    where = torch.arange(steps, dtype=torch.float64) / steps
    return (last + 0.5 * (first - last) * (1 + torch.cos(torch.pi * where))).tolist()


def sinkhorn(scores, epsilon=0.05, iterations=3):
    codes = (scores / epsilon - (scores / epsilon).max()).exp().T  # prototypes x pictures
    codes = codes / codes.sum()
    for _ in range(iterations):
        codes = codes / codes.sum(1, keepdim=True) / codes.shape[0]
        codes = codes / codes.sum(0, keepdim=True) / codes.shape[1]
    return (codes / codes.sum(0, keepdim=True)).T


def swav(seen):
    """VISSL's SwAV: losses, and the weights after the last step."""
    trunk, head = plain_trunk(seen.start), plain_head(seen.start, batchnorm=True)
    prototypes = seen.start["prototypes.heads.0"].clone().requires_grad_()
    parameters, momenta, losses = [*trunk.parameters(), *head.parameters(), prototypes], {}, []
    for step, (rate, (_, crops)) in enumerate(zip(cosine_rates(2, 0.2, len(seen.shown)), seen.shown)):
        scores = linear(embed(trunk, head, crops), prototypes).chunk(len(crops))
        loss = 0.0
        for assigned in (0, 1):
            codes = sinkhorn(scores[assigned].detach())
            others = [other for other in range(len(crops)) if other != assigned]
            terms = [-(codes * torch.log_softmax(scores[other] / 0.1, dim=1)).sum(1).mean() for other in others]
            loss = loss + sum(terms) / len(terms) / 2
        loss.backward()
        if step < 2:
            prototypes.grad = None
        larc_sgd(parameters, momenta, rate)
        with torch.no_grad():
            prototypes.copy_(normalize(prototypes, dim=1))
        losses.append(loss.item())
    return losses, trunk


def deepcluster(seen):
    """VISSL's DeepCluster-v2: the first passes fill the bank, then each epoch is clustered and trained."""
    trunk, head = plain_trunk(seen.start), plain_head(seen.start, batchnorm=False)
    parameters, momenta, losses = [*trunk.parameters(), *head.parameters()], {}, []
    steps = 3
    filling, training = seen.shown[:steps], seen.shown[steps:]
    bank = {}  # of the last epoch: number of the picture → its two embeddings
    with torch.no_grad():
        for index, crops in filling:
            both = [embed(trunk, head, [crop]) for crop in crops]
            bank |= {int(i): pair for i, *pair in zip(index, *both)}
    rates = cosine_rates(2, 0.2, len(training))
    for epoch in range(2):
        numbers = sorted(bank)
        centroids, clusters = [], []
        for number, count in enumerate(seen.config.nmb_prototypes):
            rows = torch.stack([bank[i][number % 2] for i in numbers])
            start = first_rows(len(rows), count, int(keys(seen.config.seed, "k-means", epoch, number) >> 1))
            centres, assigned = kmeans(rows, rows[start])
            centroids.append(centres)
            clusters.append(dict(zip(numbers, assigned.tolist())))
        bank = {}
        for step in range(epoch * steps, (epoch + 1) * steps):
            index, crops = training[step]
            projections = embed(trunk, head, crops)
            loss = 0.0
            for centres, cluster in zip(centroids, clusters):
                targets = torch.tensor([cluster.get(int(i), -100) for i in index])
                scores = projections @ centres.T / 0.1
                loss = loss + cross_entropy(scores, targets.repeat(len(crops)), ignore_index=-100) / len(centroids)
            loss.backward()
            larc_sgd(parameters, momenta, rates[step])
            bank |= {int(i): pair for i, *pair in zip(index, *projections.detach().chunk(2))}
            losses.append(loss.item())
    return losses, trunk


def kmeans(rows, centroids, iterations=10):
    for _ in range(iterations):
        assigned = (rows @ centroids.T).argmax(1)
        means = [rows[assigned == k].mean(0) if (assigned == k).any() else centroids[k] for k in range(len(centroids))]
        centroids = normalize(torch.stack(means), dim=1)
    return centroids, (rows @ centroids.T).argmax(1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["swav", "deepcluster"])
def test_six_steps_have_the_losses_and_weights_of_vissls_recipe(method, pictures, monkeypatch, tmp_path):
    seen = watched(method, pictures, monkeypatch, tmp_path)
    losses, trunk = (swav if method == "swav" else deepcluster)(seen)
    assert len(seen.losses) == 6 and seen.rates == pytest.approx(cosine_rates(2, 0.2, 6), rel=1e-12)
    assert all(crop.shape[1] == 3 for _, crops in seen.shown for crop in crops)
    gaps = [abs(ours - theirs) for ours, theirs in zip(seen.losses, losses)]
    weights = {f"slice_encoder.resnet.{name}": value for name, value in trunk.state_dict().items()}
    moved = max((value - seen.start[name]).abs().max() for name, value in weights.items() if "tracked" not in name)
    apart = max((value - seen.end[name]).abs().max().item() for name, value in weights.items())
    print(f"{method}: losses {losses}, apart by {max(gaps):.1e}; weights moved by {moved:.2g}, apart by {apart:.1e}")
    assert max(losses) - min(losses) > 0.05 and moved > 0.1
    # centroids are kept in single precision
    assert max(gaps) < (1e-10 if method == "swav" else 1e-6)
    assert apart < (1e-9 if method == "swav" else 1e-5)
