import numpy as np
import torch

from losses.sinkhorn import sinkhorn
from losses.swav import EmbeddingQueue, swav_codes, swav_loss


def test_the_loss_is_the_mean_over_swapped_pairs_of_the_soft_cross_entropy():
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=(6, 5)) for _ in range(4)]
    codes = [rng.dirichlet(np.ones(5), 6) for _ in range(2)]
    expected = 0
    for a in range(2):
        for b in range(4):
            if a != b:
                p = np.exp(scores[b] / 0.1)
                expected -= (codes[a] * np.log(p / p.sum(1, keepdims=True))).sum(1).mean() / 3 / 2
    loss = swav_loss([torch.tensor(s) for s in scores], [torch.tensor(c) for c in codes], 0.1)
    assert np.isclose(loss.item(), expected, rtol=1e-12)


def test_no_gradient_goes_through_the_codes():
    scores = torch.randn(6, 5, requires_grad=True)
    assert not swav_codes(scores, None, 0.05, 3).requires_grad


def test_codes_with_a_queue_are_those_of_all_rows_together():
    scores, queued = torch.rand(6, 5), torch.rand(20, 5)
    assert torch.equal(swav_codes(scores, queued, 0.05, 3), sinkhorn(torch.cat([scores, queued]), 0.05, 3)[:6])


def test_a_queue_holds_the_newest_rows_first_and_is_ready_when_full():
    queue = EmbeddingQueue(5, 1, crops=2)
    assert not queue.ready
    for step in range(3):
        queue.push([torch.tensor([[2.0 * step], [2.0 * step + 1]]), torch.full((2, 1), -1.0)])
        assert queue.ready == (step == 2)
    assert queue.rows[0, :, 0].tolist() == [4, 5, 2, 3, 0]
    assert queue.rows[1, :, 0].tolist() == [-1] * 5


def test_a_queue_survives_its_state_dict_and_one_of_no_length_is_never_ready():
    queue, again = EmbeddingQueue(3, 2), EmbeddingQueue(3, 2)
    queue.push([torch.ones(4, 2)] * 2)
    again.load_state_dict(queue.state_dict())
    assert again.ready and torch.equal(again.share(1), torch.ones(3, 2))
    none = EmbeddingQueue(0, 2)
    none.push([torch.ones(4, 2)] * 2)
    assert not none.ready
