import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from losses.cross_entropy import class_weights, classification_loss

TARGETS = torch.tensor([0, 2, 2, 1, 2, 2, 0, 2])


def test_weights_are_those_that_scikit_learn_calls_balanced():
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=TARGETS.numpy())
    assert class_weights(TARGETS, 3).tolist() == pytest.approx(wanted)


def test_the_loss_of_the_whole_split_is_the_weighted_mean_of_pytorch():
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = class_weights(TARGETS, 3)
    assert classification_loss(logits, TARGETS) == pytest.approx(nn.CrossEntropyLoss()(logits, TARGETS).item())
    # over all items the weights have mean 1, so that both denominators are the same
    assert classification_loss(logits, TARGETS, weights) == pytest.approx(nn.CrossEntropyLoss(weights)(logits, TARGETS).item())


def test_rare_and_common_classes_have_the_same_share():
    logits = torch.zeros(8, 3, requires_grad=True)
    classification_loss(logits, TARGETS, class_weights(TARGETS, 3)).backward()
    shares = torch.stack([logits.grad[TARGETS == k, k].sum() for k in range(3)])
    torch.testing.assert_close(shares, torch.full((3,), -2 / 9))


def test_half_precision_is_computed_in_float32():
    logits = torch.tensor([[3.0, -2.0]]).bfloat16()
    assert classification_loss(logits, torch.tensor([1])).dtype == torch.float32
