import torch
import torch.nn.functional as F

from losses.deepcluster import deepcluster_loss


def test_is_the_mean_over_heads_of_the_cross_entropy_of_known_rows():
    scores = [torch.randn(8, k, dtype=torch.float64) for k in (3, 5)]
    targets = [torch.randint(3, (8,)), torch.randint(5, (8,))]
    targets[0][2] = -100
    expected = sum(F.cross_entropy(s / 0.1, t, ignore_index=-100) for s, t in zip(scores, targets)) / 2
    assert torch.allclose(deepcluster_loss(scores, targets), expected, rtol=1e-12)


def test_a_batch_without_any_known_row_gives_zero_with_a_gradient():
    scores = torch.randn(4, 3, requires_grad=True)
    loss = deepcluster_loss([scores], [torch.full((4,), -100)])
    loss.backward()
    assert loss == 0 and not scores.grad.any()
