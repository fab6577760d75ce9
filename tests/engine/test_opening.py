import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engine.opening import data_said, disk_said, machine_said, state_size
from engine.optimizers import make_optimizer


def data(items: int, what: str, **collections) -> dict:
    return {"items": items, "what": what, "collections": collections}


def test_data_are_told_by_loader_and_collection_the_largest_first():
    assert data_said([data(9, "volumes", ct=4, mr=5)]) == "learns from 9 volumes in 2 collections (mr 5, ct 4)."
    both = data_said([data(2, "volumes", ct=2), data(70, "pictures", **{"": 3, "x": 4})])
    assert both == (
        "learns from 2 volumes in 1 collection (ct 2), and from 70 pictures of 7 files in 2 collections (x 4, no folder 3)."
    )
    many = data_said([data(36, "volumes", **{f"c{number}": number for number in range(1, 9)})])
    assert many == "learns from 36 volumes in 8 collections (c8 8, c7 7, c6 6, c5 5, c4 4, c3 3, 2 more)."


def test_the_machine_is_told_with_its_processes():
    said = machine_said(4, torch.device("cpu"), torch.bfloat16)
    assert said.replace("thread)", "threads)") == f"4 processes, each on cpu ({torch.get_num_threads()} threads), bfloat16"
    assert machine_said(1, torch.device("cpu"), torch.float32).startswith("1 process on cpu")


def test_the_disk_that_states_copies_and_stores_take_is_told_and_whether_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2e9))
    said = disk_said(tmp_path / "not/yet", tmp_path / "w.pth", 300_000_000, 94_000_000, 2, 0)
    assert (
        len(said) == 1 and "w.pth (about 94 MB), and up to 1.5 GB into" in said[0] and "3 states and 2 kept copies" in said[0]
    )
    said = disk_said(tmp_path, tmp_path / "w.pth", 300_000_000, 94_000_000, 4, 7_000)
    assert "and 7 KB that go when it ends" in said[0]
    assert said[1].startswith("warning:") and "2 GB left" in said[1] and "--checkpoint_freq" in said[1]


@pytest.mark.parametrize("name, moments", [("adamw", 2), ("larc", 1)])
def test_the_size_of_a_state_is_that_of_what_is_saved(tmp_path, name, moments):
    model = nn.Sequential(nn.Linear(50, 40), nn.BatchNorm1d(40))
    model[0].bias.requires_grad_(False)
    optimizer = make_optimizer(name, model, 1e-3, 0.0)
    bank = SimpleNamespace(table=torch.zeros(2, 10, 8, dtype=torch.float16), clusters=[])
    state, of_networks = state_size(model, optimizer, {"bank": bank, "frozen": nn.Linear(3, 3)}, world=3)
    model(torch.randn(4, 50)).sum().backward()
    optimizer.step()
    saved = [value for of in optimizer.state_dict()["state"].values() for value in of.values() if torch.is_tensor(value)]
    of_optimizer = sum(4 * value.numel() for value in saved if value.ndim)
    of_model = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    assert of_networks == of_model + 48  # stage 2 writes its frozen f_intra, too
    assert state == of_model + of_optimizer + 3 * 320 + 48
    assert of_optimizer == moments * 4 * (2000 + 80)
