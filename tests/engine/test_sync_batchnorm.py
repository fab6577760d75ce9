import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from engine.sync_batchnorm import synchronize_batchnorm

SHARES = [(5, 2), (7, 0)]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 6), nn.BatchNorm1d(6)).double()


def compute(model, images, world):
    out = model(images)
    (out**3).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    if world > 1:
        for gradient in gradients:
            dist.all_reduce(gradient)
    model.eval()
    return {"out": out.detach(), "gradients": gradients, "state": dict(model.state_dict()), "eval": model(images).detach()}


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    images = torch.load(f"{folder}/images.pt")
    done = [compute(synchronize_batchnorm(network()), images.split(share)[rank], 2) for share in SHARES]
    torch.save(done, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("norm")
    images = torch.randn(7, 2, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 3
    torch.save(images, folder / "images.pt")
    mp.spawn(process, (str(folder),), nprocs=2)
    return compute(network(), images, 1), [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("number", range(len(SHARES)))
def test_two_processes_normalise_as_one_with_unequal_shares(one_and_two, number):
    one, two = one_and_two
    two = [process[number] for process in two]
    for what in ("out", "eval"):
        assert torch.allclose(torch.cat([process[what] for process in two]), one[what], rtol=1e-12, atol=1e-12)
    for process in two:
        assert process["state"].keys() == one["state"].keys()
        for name, value in one["state"].items():
            assert torch.allclose(process["state"][name], value, rtol=1e-12), name
        for ours, expected in zip(process["gradients"], one["gradients"]):
            assert torch.allclose(ours, expected, rtol=1e-9, atol=1e-10)


def test_one_process_is_left_as_it_is():
    model = network()
    assert synchronize_batchnorm(model) is model and isinstance(model[1], nn.BatchNorm2d)
