"""Ours against excerpts.npz, which states the same in plain numpy; needs no other files."""

import numpy as np
import pytest
import torch

from engine.optimizers import make_optimizer
from engine.schedule import learning_rates
from losses.kmeans import kmeans_from
from losses.sinkhorn import sinkhorn
from losses.swav import swav_codes, swav_loss
from models.attention import DeformableAttention
from tests import reference_recipe as recipe
from tests.reference import make_excerpts

STORED = np.load(make_excerpts.FILE)


def stored(part: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{part}/"): STORED[name] for name in STORED if name.startswith(f"{part}/")}


@pytest.mark.parametrize("sampling", ["da018", "da020"])
@pytest.mark.parametrize("case", list(make_excerpts.ATTENTION_CASES))
def test_attention_and_its_gradients(case, sampling):
    arrays = stored(f"attention/{case}")
    items, groups = make_excerpts.ATTENTION_CASES[case]
    sizes = {"heads": make_excerpts.HEADS, "head_dim": make_excerpts.HEAD_DIM, "groups": groups}
    with recipe.default_dtype(torch.float64):
        attention = DeformableAttention(make_excerpts.DIM, sampling=sampling, least_keys=1, **sizes)
        attention.load_state_dict({name: torch.tensor(arrays[f"weight/{name}"]) for name in attention.state_dict()})
        x = torch.tensor(arrays["x"]).requires_grad_()
        out = attention(x.T[None])[0].T
        (out * torch.tensor(arrays["direction"])).sum().backward()
    assert out.shape[1] == items
    recipe.assert_float64(out.detach(), arrays[f"{sampling}/out"], "out")
    for name, gradient in {"x": x.grad, "to_offsets.0.weight": attention.to_offsets[0].weight.grad}.items():
        wanted = arrays[f"{sampling}/slope_{name}"]
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-8 * np.abs(wanted).max(), err_msg=name)


def test_sinkhorn():
    arrays = stored("sinkhorn")
    scores = torch.tensor(arrays["scores"])
    recipe.assert_float64(sinkhorn(scores, 0.05, 3), arrays["few"], "few")
    recipe.assert_float64(sinkhorn(scores, 0.03, 10), arrays["many"], "many")


def test_swav_codes_loss_and_gradient():
    arrays = {name: torch.tensor(array) for name, array in stored("swav").items()}
    scores = arrays["scores"].requires_grad_()
    codes = [swav_codes(scores[crop].detach(), arrays["queue"][crop]) for crop in (0, 1)]
    loss = swav_loss(list(scores), codes)
    loss.backward()
    for name, ours in {"codes": torch.stack(codes), "loss": loss.detach(), "gradient": scores.grad}.items():
        recipe.assert_float64(ours, arrays[name].numpy(), name)


def test_spherical_kmeans():
    arrays = {name: torch.tensor(array) for name, array in stored("kmeans").items()}
    rows = arrays["rows"]
    centroids, assignments = kmeans_from(rows, torch.arange(len(rows)), arrays["start"], int(arrays["iterations"]))
    assert assignments.tolist() == arrays["assignments"].tolist()
    # directions are kept on a grid of 2^-24, and the result is float32
    np.testing.assert_allclose(centroids, arrays["centroids"], rtol=0, atol=3e-7)


def test_larc():
    arrays = {name: torch.tensor(array) for name, array in stored("larc").items()}
    parameters = [torch.nn.Parameter(arrays[f"weight{i}"]) for i in range(3)]
    optimizer = make_optimizer("larc", torch.nn.ParameterList(parameters), float(arrays["lr"]), float(arrays["decay"]))
    for step in range(3):
        for i, parameter in enumerate(parameters):
            parameter.grad = arrays[f"gradient{i}/{step}"]
        optimizer.step()
        for i, parameter in enumerate(parameters):
            recipe.assert_float64(parameter.detach(), arrays[f"after{i}/{step}"].numpy(), f"{i} after step {step}")


def test_schedule():
    arrays = stored("schedule")
    epochs, warmup, steps, base, final, start = arrays["settings"]
    recipe.assert_float64(learning_rates(int(epochs), int(warmup), int(steps), base, final, start), arrays["rates"], "rates")


def test_the_file_is_what_its_script_writes():
    again = make_excerpts.all_arrays()
    assert set(again) == set(STORED)
    for name, array in again.items():
        # differences divide the last bits, which a machine may sum in another order, by a small step
        allowed = 1e-9 if "/slope_" in name else 1e-12
        np.testing.assert_allclose(array, STORED[name], rtol=0, atol=allowed * np.abs(array).max(), err_msg=name)
