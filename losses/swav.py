"""The swapped prediction of SwAV (Caron et al. 2020): a crop predicts the codes of another crop of the same picture."""

from collections.abc import Sequence

import torch

from .distributed import gather_rows, global_mean, rank, world_size
from .precision import at_least_float32
from .sinkhorn import sinkhorn


def swav_codes(
    scores: torch.Tensor,
    queued_scores: torch.Tensor | None,
    epsilon: float = 0.05,
    iterations: int = 3,
    largest: float | None = None,
) -> torch.Tensor:
    """scores (B, K), queued_scores (Q, K) or None, this rank's shares → codes (B, K) of the batch, without gradient.

    Sinkhorn sees batch and queue together, so that few rows a step still spread over many prototypes.
    """
    if queued_scores is None:
        return sinkhorn(scores, epsilon, iterations, largest)
    rows = torch.cat([at_least_float32(scores), at_least_float32(queued_scores)])
    return sinkhorn(rows, epsilon, iterations, largest)[: len(scores)]


def swav_loss(scores: Sequence[torch.Tensor], codes: Sequence[torch.Tensor], temperature: float = 0.1) -> torch.Tensor:
    """scores: (B, K) of each crop, two at least; codes: (B, K) of the first crops, the assigned ones → scalar.

    -sum(codes * log softmax(scores / temperature)), averaged over the other crops of each assigned one, over the assigned
    ones, and over the rows of all ranks (eq. 2 and its multi-crop form).
    """
    assert len(scores) >= 2 and 1 <= len(codes) <= len(scores)
    log_probabilities = [torch.log_softmax(at_least_float32(crop) / temperature, dim=1) for crop in scores]
    pairs = [
        -(code.detach() * log_probabilities[crop]).sum(1)
        for assigned, code in enumerate(codes)
        for crop in range(len(scores))
        if crop != assigned
    ]
    return global_mean(torch.stack(pairs).mean(0))


def swapped_prediction(
    scores: Sequence[Sequence[torch.Tensor]],
    queued: Sequence[Sequence[torch.Tensor]] | None,
    epsilon: float,
    iterations: int,
    temperature: float,
    largest: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """SwAV's loss, a mean over heads, and the codes (B, K) of the first crop by the first head.

    scores: a crop's (B, K) for each head; the first two crops are the assigned ones. queued: theirs of earlier rows, or None.
    largest: as `sinkhorn` takes it.
    """
    loss, of_first = 0.0, None
    for head in range(len(scores[0])):
        of_head = [crop[head] for crop in scores]
        earlier = [crop[head] for crop in queued] if queued else [None, None]
        codes = [swav_codes(of_head[crop], earlier[crop], epsilon, iterations, largest) for crop in (0, 1)]
        loss = loss + swav_loss(of_head, codes, temperature) / len(scores[0])
        of_first = codes[0] if of_first is None else of_first
    return loss, of_first


def too_many_prototypes(counts: Sequence[int], rows: int, what: str) -> str | None:
    """A warning when Sinkhorn sees fewer rows (batch and queue) than there are prototypes to use equally."""
    if max(counts) <= rows:
        return None
    return (
        f"warning: {max(counts)} prototypes of {what} cannot be used equally by the {rows} rows of a step and its queue; "
        "use fewer prototypes, larger batches, or a longer queue that starts earlier."
    )


class EmbeddingQueue:
    """The newest embeddings of earlier steps, `length` rows over all ranks for each crop, the same on every rank.

    `share(crop)` deals them out, so that a Sinkhorn over ranks sees each once. It stays unused until it is full.
    `device`: where it lies until the first push, after which it is where the embeddings are.
    """

    def __init__(self, length: int, dim: int, crops: int = 2, device: torch.device | str = "cpu"):
        self.length = length
        self.rows = torch.zeros(crops, 0, dim, device=device)

    @property
    def ready(self) -> bool:
        """Whether all rows are filled; never for a queue of length 0."""
        return 0 < self.length <= self.rows.shape[1]

    def push(self, embeddings: torch.Tensor | Sequence[torch.Tensor]) -> None:
        """embeddings: (crops, n, D), or one (n, D) a crop. Puts those of all ranks, in rank order, before the older ones."""
        if self.length == 0:
            return
        embeddings = torch.stack([at_least_float32(crop.detach()) for crop in embeddings])
        newest = gather_rows(embeddings.transpose(0, 1)).transpose(0, 1)
        self.rows = torch.cat([newest, self.rows.to(newest)], dim=1)[:, : self.length].contiguous()

    def share(self, crop: int) -> torch.Tensor:
        """(about length / R, D): the rows that this rank brings to the Sinkhorn."""
        return self.rows[crop, rank() :: world_size()]

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.rows = state["rows"][:, : self.length].to(self.rows.device)
