"""`--preset released` computes the steps of the published code: an independent restatement goes the same way, step by step."""

import importlib
from types import SimpleNamespace

import deformable_attention.deformable_attention_1d as library
import pytest
import torch

from datasets.draws import keys
from datasets.views import mask_draws, two_views
from engine import checkpoint
from engine.config import parse
from engine.run import Run
from losses.kmeans import first_rows
from losses.masked import draw_mask
from models.pretrained import load_encoders
from tests import reference_recipe as recipe
from tests.scripts.conftest import make_data
from tests.scripts.published_steps import (
    JointNetwork,
    LarcSgd,
    MaskedModel,
    SliceNetwork,
    cluster,
    deepcluster_step,
    drawn_map,
    freeze,
    learning_rates,
    masked_step,
    sample_as_0_0_18,
    swav_step,
)

SLICES, DIM, RATIO, LR, WARMUP, EPOCHS, FROZEN, SEED = 16, 32, 0.2, 0.1, 1, 2, 3, 31
FLAGS = (
    f"--preset released --precision fp64 --arch resnet18 --target_shape {SLICES} 24 24 --d_model {DIM} --mask_ratio {RATIO} "
    f"--base_lr {LR} --warmup_epochs {WARMUP} --epochs {EPOCHS} --workers 0 --probed_files 0"
).split()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six volumes, and weights of stages 1 and 2 by published names, in the recipe's values."""
    root = tmp_path_factory.mktemp("released")
    make_data(root, volumes=6, images=0)
    (root / "weights").mkdir()
    resnet, masked = SliceNetwork("resnet18", DIM), MaskedModel(SLICES, DIM)
    del resnet.deconv  # it is in no published file of stage 1
    recipe.fill(resnet, 1)
    recipe.fill(masked, 2)
    stage2 = {"epoch": 1, "state_dict": {f"module.{name}": value for name, value in masked.state_dict().items()}}
    for method in ("swav", "deepcluster"):
        torch.save(resnet.state_dict(), root / f"weights/resnet_{method}2D.pth")
        torch.save(stage2, root / f"weights/mask_{method}.pth")
    return root


@pytest.fixture(params=["da018", "da020"])
def sampling(request, monkeypatch):
    if request.param == "da018":
        monkeypatch.setattr(library, "grid_sample_1d", sample_as_0_0_18)
    return request.param


def follow(script, data, monkeypatch, tmp_path, *more):
    """Runs a script and writes down its batches, its losses, and the state that each epoch's first step finds."""
    seen = SimpleNamespace(batches=[], losses=[], starts=[], assigned=[])
    batches, update = Run.batches, Run.update

    def batches_seen(run, *loaders):
        seen.run = run
        if script == "ssl_swav_3D":  # which are drawn, and of unit length, in float32
            run.model.prototypes.volumes.normalize_()
        seen.starts.append({name: value.clone() for name, value in run.model.state_dict().items()})
        if "slice_encoder" in run.tracked:
            seen.resnet = {name: value.clone() for name, value in run.tracked["slice_encoder"].state_dict().items()}
        if "bank" in run.tracked:
            seen.assigned.append(run.tracked["guard"].last["volumes"].clone())
            seen.bank = getattr(seen, "bank", None) or run.tracked["bank"].state_dict()
        for batch in batches(run, *loaders):
            seen.batches.append(batch[0] if isinstance(batch, list) else batch)
            yield batch

    def update_seen(run, loss, *rest, **others):
        seen.losses.append(loss.item())
        update(run, loss, *rest, **others)

    monkeypatch.setattr(checkpoint, "sync", lambda path: None)  # nothing here has to outlive a power cut
    monkeypatch.setattr(Run, "batches", batches_seen)
    monkeypatch.setattr(Run, "update", update_seen)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(script)
    config_class = next(v for k, v in vars(module).items() if k.endswith("Config") and v.__module__ == script)
    words = [*FLAGS, "--batch_size", "2", "--data_path", data / "volumes", "--pretrained_path", data / "weights"]
    words += ["--checkpoint_name", f"{tmp_path.name}.pth", *more]
    seen.config = parse(config_class, [*map(str, words)])
    seen.model = module.main(seen.config)
    seen.end = seen.model.state_dict()
    return seen


def steps(seen):
    """The steps of a run again, with the same draws of dropout: (number, batch, first views, second views)."""
    for step, batch in enumerate(seen.batches):
        view1, view2 = two_views(batch, SEED, "one", "none", torch.float64).pixels.chunk(2)
        torch.manual_seed((SEED * 1_000_003 + step) * 4099)
        yield step, batch, view1, view2


def by_published_names(state):
    """Our tensors as the published modules name them and lay them out; the rest is left out."""
    names = {
        "slice_encoder.resnet.": "intra.",
        "slice_encoder.to_embedding.": "intra.deconv.",
        "masked.volume_encoder.": "inter.encoder.",
        "volume_encoder.": "encoder.encoder.",
        "token": "mask_token",
        "decoder.": "decoder.",
    }
    out = {}
    for name, value in state.items():
        theirs = next((new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)), None)
        if name.startswith("prototypes.volumes.heads."):
            theirs = f"prototypes.prototypes{name.rsplit('.')[-1]}.weight"
        if theirs:
            out[theirs] = value.T[:, :, None] if theirs == "intra.deconv.weight" else value
    return out


def start(seen):
    """The published network of stage 3 with the state that the first step of a run found."""
    heads = [len(value) for name, value in seen.starts[0].items() if name.startswith("prototypes.volumes")]
    model = JointNetwork("resnet18", SLICES, DIM, heads).double()
    model.load_state_dict(by_published_names(seen.starts[0]))
    return model.train(), LarcSgd(model, wd=1e-6)


def rates(seen):
    assert len(seen.batches) == len(seen.losses) == 6
    return learning_rates(EPOCHS, WARMUP, 3, LR)


def assert_same_end(model, seen):
    """Parameters and buffers are equal, and so is how far they went, to a share of that way."""
    end, first = by_published_names(seen.end), by_published_names(seen.starts[0])
    assert end.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        if name.endswith("rel_pos_bias.mlp.2.bias"):
            continue  # adds a constant to all scores of a softmax: its gradient is rounding, which LARC lifts to a step
        way = (end[name] - first[name]).double().norm()
        assert (value - end[name]).double().norm() <= 1e-7 * min(way, end[name].double().norm()) + 1e-12, name
        assert way > 0, name


@pytest.mark.slow
@pytest.mark.parametrize("script", ["mask_deepcluster_3D", "mask_swav_3D"])
def test_stage_2_goes_the_published_way(script, sampling, data, monkeypatch, tmp_path):
    seen = follow(script, data, monkeypatch, tmp_path, "--sampling", sampling)
    resnet = SliceNetwork("resnet18", DIM)
    resnet.load_state_dict(torch.load(data / f"weights/{seen.config.resnet_pretrained}"), strict=False)
    resnet.deconv = drawn_map("resnet18", DIM, SEED)
    resnet.double().eval()
    model = MaskedModel(SLICES, DIM).double()
    model.load_state_dict(by_published_names(seen.starts[0]))
    optimizer = LarcSgd(model, wd=1e-6)

    losses = []
    for step, batch, view1, view2 in steps(seen):
        real = torch.ones(2, SLICES, dtype=torch.bool)
        mask = draw_mask(mask_draws(batch, SEED, SLICES, views=1), real, RATIO)
        assert mask.sum(1).tolist() == [4] * 2  # ceil(0.2 · 16), and the divisor is 3
        loss = masked_step(resnet, model, view1, view2, mask, RATIO)
        loss.backward()
        optimizer.step(rates(seen)[step])
        losses.append(loss.item())
    assert losses == pytest.approx(seen.losses, rel=1e-9)
    assert_same_end(model, seen)


def follow_swav(seen, clip=2.0, temperature=0.1):
    """The published SwAV steps after a recorded run: (model, losses, norms of the gradients before they were clipped)."""
    model, optimizer = start(seen)
    losses, norms = [], []
    for step, _, view1, view2 in steps(seen):
        loss = swav_step(model, view1, view2, temperature)
        loss.backward()
        if step < FROZEN:
            freeze(model.prototypes)
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip)))
        optimizer.step(rates(seen)[step])
        losses.append(loss.item())
    with torch.no_grad():  # ours are brought to unit length after a step, not before the next
        model.prototypes["prototypes0"].weight.copy_(torch.nn.functional.normalize(model.prototypes["prototypes0"].weight))
    return model, losses, norms


@pytest.mark.slow
def test_stage_3_of_swav_goes_the_published_way(sampling, data, monkeypatch, tmp_path):
    frozen = ["--freeze_prototypes_niters", FROZEN]
    seen = follow("ssl_swav_3D", data, monkeypatch, tmp_path, "--sampling", sampling, *frozen)
    model, losses, norms = follow_swav(seen)
    assert min(norms) > 2  # every step was clipped
    assert losses == pytest.approx(seen.losses, rel=1e-9)
    assert_same_end(model, seen)


@pytest.mark.slow
def test_stage_3_of_deepcluster_goes_the_published_way(sampling, data, monkeypatch, tmp_path):
    frozen = ["--freeze_prototypes_niters", FROZEN]
    seen = follow("ssl_deepcluster_3D", data, monkeypatch, tmp_path, "--sampling", sampling, *frozen)
    model, optimizer = start(seen)
    bank = seen.bank["table"].double()
    losses = []
    for step, batch, view1, view2 in steps(seen):
        if step % 3 == 0:
            epoch, assignments = step // 3, []
            for head, prototypes in enumerate(model.prototypes.values()):
                seed = int(keys(SEED, "volumes", epoch, head) >> 1)
                centroids, assigned = cluster(bank[head % 2], first_rows(6, len(prototypes.weight), seed))
                ours = seen.starts[epoch][f"prototypes.volumes.heads.{head}"]
                assert torch.allclose(ours, centroids, rtol=0, atol=3e-7)  # ours are rounded to float32
                with torch.no_grad():
                    prototypes.weight.copy_(ours)
                assignments.append(assigned)
            assert torch.equal(assignments[0], seen.assigned[epoch])
        index = batch["index"]
        loss, embeddings = deepcluster_step(model, view1, view2, [assigned[index] for assigned in assignments])
        loss.backward()
        if step < FROZEN:
            freeze(model.prototypes)
        optimizer.step(rates(seen)[step])
        bank[0, index], bank[1, index] = embeddings.chunk(2)
        losses.append(loss.item())
    assert losses == pytest.approx(seen.losses, rel=1e-9)
    assert_same_end(model, seen)


@torch.no_grad()
def test_a_file_by_published_names_gives_the_published_embeddings(sampling, tmp_path):
    theirs = JointNetwork("resnet18", SLICES, DIM, [4, 4, 4])
    recipe.fill(theirs, 3)
    state = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"epoch": 100, "state_dict": state, "optimizer": {}}, tmp_path / "deepcluster3D.pth")
    ours, _ = load_encoders(tmp_path / "deepcluster3D.pth", sampling)
    for network in (theirs, ours.slice_encoder, ours.volume_encoder):
        network.double().eval()
    volumes = 50 * torch.rand(2, SLICES, 32, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    real = torch.ones(2, SLICES, dtype=torch.bool)
    grey = volumes.flatten(0, 1)[:, None]
    assert torch.allclose(ours.slice_encoder.features(grey), theirs.intra.features(volumes), rtol=1e-9, atol=1e-12)
    assert torch.allclose(ours.embed_volumes(volumes, real), theirs(volumes)[0], rtol=1e-9, atol=1e-11)
