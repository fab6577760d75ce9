import torch
from torch import nn

from engine.config import Config, FinetuneConfig
from engine.finetuning import Best, runs_of
from engine.folder import RunFolder


def test_each_seed_has_a_folder_and_a_weight_file_of_its_own():
    config = FinetuneConfig(seeds=(3, 4), checkpoint_name="seg.pth")
    runs = list(runs_of(config, "finetune_x"))
    assert [run.seed for run in runs] == [3, 4] and not any(run.seeds for run in runs)
    assert [run.dump_path for run in runs] == ["runs/finetune_x/seed-3", "runs/finetune_x/seed-4"]
    assert [run.checkpoint_name for run in runs] == ["seg-3.pth", "seg-4.pth"]
    config = FinetuneConfig(seeds=(3,), checkpoint_name="sub/seg.pth")
    assert [run.checkpoint_name for run in runs_of(config, "finetune_x")] == ["sub/seg-3.pth"]


def test_seeds_that_are_no_longer_asked_for_go_with_overwrite(tmp_path):
    for seed in (1, 2):
        inside = RunFolder(tmp_path / f"seed-{seed}", "finetune_x")
        inside.take(overwrite=False)
        inside.begin(Config(), world=1)
        inside.leave()
        (inside.path / "tensorboard").mkdir()
        (inside.path / "tensorboard/events.out.tfevents.1.host.2.0").write_bytes(b"")
    how = {"seeds": (2, 3), "dump_path": str(tmp_path), "checkpoint_name": "seg.pth"}
    list(runs_of(FinetuneConfig(**how), "finetune_x"))
    assert (tmp_path / "seed-1/run.json").exists()
    list(runs_of(FinetuneConfig(**how, overwrite=True), "finetune_x"))
    assert not (tmp_path / "seed-1").exists() and (tmp_path / "seed-2/run.json").exists()


def test_without_seeds_there_is_one_run():
    (run,) = runs_of(FinetuneConfig(seed=7, dump_path="here"), "finetune_x")
    assert (run.seed, run.dump_path) == (7, "here")


def test_the_later_of_the_best_weights_are_restored_also_from_a_state():
    model = nn.Linear(1, 1)
    best = Best(model)
    for epoch, score in enumerate([0.2, 0.9, 0.9, float("nan"), 0.1]):
        nn.init.constant_(model.weight, epoch)
        best.offer(score, epoch)
    other = Best(nn.Linear(1, 1))
    other.load_state_dict(best.state_dict())
    other.restore()
    assert other.epoch == 2 and other.model.weight.item() == 2 and model.weight.item() == 4
    assert other.kept_epoch("best", epochs=5) == 2 and other.kept_epoch("last", epochs=5) == 4


def test_weights_that_were_never_scored_stay():
    model = nn.Linear(1, 1)
    before = model.weight.item()
    best = Best(model)
    best.restore()
    assert torch.equal(model.weight, torch.tensor([[before]])) and best.kept_epoch("best", epochs=3) == 2
