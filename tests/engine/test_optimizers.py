from pathlib import Path

import numpy as np
import pytest
import torch

from engine.optimizers import load_with_own_constants, make_optimizer

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "larc.npz"


class Three(torch.nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.matrix = torch.nn.Parameter(torch.tensor(rng.normal(size=(5, 7))))
        self.zero = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
        self.vector = torch.nn.Parameter(torch.tensor(rng.normal(size=(6,))))


def larc_step(weight, gradient, momentum, lr, wd):
    """apex's LARC (clip off, trust 0.001, eps 1e-8) around SGD with momentum 0.9, written out."""
    norm, slope = np.linalg.norm(weight), np.linalg.norm(gradient)
    if norm != 0 and slope != 0:
        gradient = (gradient + wd * weight) * 0.001 * norm / (slope + wd * norm + 1e-8)
    momentum = gradient if momentum is None else 0.9 * momentum + gradient
    return weight - lr * momentum, momentum


@pytest.mark.parametrize("wd", [0.0, 1e-6, 1e-2])
def test_larc_is_the_formula_also_without_decay_and_for_a_zero_tensor(wd):
    model, rng, lr = Three(), np.random.default_rng(1), 0.3
    optimizer = make_optimizer("larc", model, lr, wd)
    expected = {name: (p.detach().numpy().copy(), None) for name, p in model.named_parameters()}
    for _ in range(4):
        for name, parameter in model.named_parameters():
            gradient = rng.normal(size=parameter.shape)
            parameter.grad = torch.tensor(gradient)
            expected[name] = larc_step(expected[name][0], gradient, expected[name][1], lr, wd)
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert np.allclose(parameter.detach().numpy(), expected[name][0], rtol=1e-12, atol=1e-15), name


@pytest.mark.skipif(not REFERENCE.exists(), reason="the stored steps are not here")
@pytest.mark.parametrize("wd", ["1e-06", "0", "0.01"])
def test_larc_equals_the_stored_steps(wd):
    stored = np.load(REFERENCE)
    parameters = [torch.nn.Parameter(torch.tensor(stored[f"param{i}"]).double()) for i in range(3)]
    optimizer = make_optimizer("larc", torch.nn.ParameterList(parameters), float(stored["lr"]), float(wd))
    for step in range(3):
        for i, parameter in enumerate(parameters):
            parameter.grad = torch.tensor(stored[f"grad_step{step}_param{i}"]).double()
        optimizer.step()
        for i, parameter in enumerate(parameters):
            assert np.allclose(parameter.detach().numpy(), stored[f"wd{wd}_step{step}_param{i}_f64"], rtol=1e-9, atol=1e-15)


def test_larc_changes_a_tensor_by_the_same_relative_amount_whatever_the_size_of_its_gradient():
    changes = []
    for scale in (1e-6, 1e6):
        model = Three()
        before = model.matrix.detach().clone()
        optimizer = make_optimizer("larc", model, 0.5, 0.0)
        model.matrix.grad = scale * torch.ones_like(model.matrix)
        optimizer.step()
        changes.append(((model.matrix - before).norm() / before.norm()).item())
    assert changes == pytest.approx([0.5 * 0.001] * 2, rel=1e-2)


def test_larc_leaves_a_tensor_without_gradient_alone():
    model = Three()
    before = model.vector.detach().clone()
    optimizer = make_optimizer("larc", model, 0.5, 0.1)
    model.matrix.grad = torch.ones_like(model.matrix)
    model.vector.grad = torch.zeros_like(model.vector)
    optimizer.step()
    assert torch.equal(model.vector, before)


def test_adamw_decays_matrices_and_not_vectors():
    model = Three()
    groups = make_optimizer("adamw", model, 1e-3, 0.1).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.1), (2, 0.0)]


@pytest.mark.parametrize("name", ["adamw", "larc"])
def test_a_loaded_state_brings_its_moments_and_no_constants(name):
    model = torch.nn.Linear(3, 2)
    first, second = (make_optimizer(name, model, 0.1, decay) for decay in (0.01, 0.5))
    model(torch.ones(1, 3)).sum().backward()
    first.step()
    load_with_own_constants(second, first.state_dict())
    assert second.param_groups[0]["weight_decay"] == 0.5
    weight = model.weight
    assert all(torch.equal(first.state[weight][key], second.state[weight][key]) for key in first.state[weight])
    assert first.state[weight]


@pytest.mark.parametrize("name", ["adamw", "larc"])
def test_the_share_of_the_rate_is_that_of_the_names_for_matrices_and_vectors(name):
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(3, 2), "head": torch.nn.Linear(2, 1)})
    share_of = {}
    for group in make_optimizer(name, model, 1e-3, 0.1, {"encoder.": 0.1}).param_groups:
        share_of |= {id(parameter): group["share"] for parameter in group["params"]}
    assert {of: share_of[id(parameter)] for of, parameter in model.named_parameters()} == {
        "encoder.weight": 0.1, "encoder.bias": 0.1, "head.weight": 1.0, "head.bias": 1.0,
    }  # fmt: skip
