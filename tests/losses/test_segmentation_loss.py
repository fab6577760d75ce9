import numpy as np
import pytest
import torch

from losses.segmentation import cross_entropy_and_dice


def straight(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Pixel by pixel, class by class."""
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    entropy = -np.mean([np.log(shares[m, labels[m, y, x], y, x]) for m, y, x in np.ndindex(labels.shape)])
    misses = []
    for of in range(1, logits.shape[1]):
        if (labels == of).any():
            misses.append(1 - 2 * shares[:, of][labels == of].sum() / (shares[:, of].sum() + (labels == of).sum()))
    return entropy, float(np.mean(misses)) if misses else 0.0


@pytest.mark.parametrize("highest", [0, 1, 4])
def test_losses_are_those_of_a_straight_statement(highest):
    rng = np.random.default_rng(highest)
    logits, labels = rng.normal(size=(3, 5, 6, 7)), rng.integers(0, highest + 1, (3, 6, 7))
    found = cross_entropy_and_dice(torch.from_numpy(logits), torch.from_numpy(labels))
    np.testing.assert_allclose([of.item() for of in found], straight(logits, labels), rtol=1e-10)


def test_sure_and_right_costs_nothing_and_sure_and_wrong_all():
    labels = torch.tensor([[[0, 1], [2, 2]]])
    right = 50 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).double()
    assert sum(cross_entropy_and_dice(right, labels)) < 1e-9
    assert cross_entropy_and_dice(right.roll(1, 1), labels)[1] == pytest.approx(1)


def test_gradients_are_those_of_finite_differences():
    labels = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    logits = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sum(cross_entropy_and_dice(x, labels)), (logits,))
