"""The embeddings of all items by their global number, dealt over the ranks: what DeepClusterV2 clusters every epoch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .deepcluster import IGNORED
from .distributed import all_sum, gather_rows, rank, world_size
from .errors import ClusteringError
from .kmeans import spherical_kmeans
from .precision import at_least_float32

GATHERED_ROWS = 2**16  # of a rank, at a time


class MemoryBank:
    """Unit embeddings (crops, rows, D) in `dtype`; row i lives on rank i mod R.

    written: (crops, rows) bool, the same on every rank: which rows were ever written. All methods but `full` are collective.
    `refill`: whether clusters that get empty are given a row. `device`: where it lies until the first write, after which it is
    where the embeddings are. clusters: what the last `cluster_heads` gave.
    """

    def __init__(
        self, rows: int, dim: int, crops: int = 2, dtype: torch.dtype = torch.float16, device: torch.device | str = "cpu",
        refill: bool = True,
    ):  # fmt: skip
        self.refill = refill
        self.clusters: list[torch.Tensor] = []
        self.own = torch.arange(rank(), rows, world_size(), device=device)
        # one row more takes what belongs to other ranks: so many rows are written whatever they are
        self.table = torch.zeros(crops, len(self.own) + 1, dim, dtype=dtype, device=device)
        self.written = torch.zeros(crops, rows, dtype=torch.bool, device=device)

    @property
    def full(self) -> bool:
        """Whether every row of every crop was written."""
        return bool(self.written.all())

    def write(self, crop: int, index: torch.Tensor, embeddings: torch.Tensor) -> None:
        """index (n,) int64 global rows, embeddings (n, D) of this rank; ranks may bring any rows, any number of them.

        Of several embeddings for one row, the last in rank order stays.
        """
        self._move(embeddings.device)
        index = gather_rows(index.to(embeddings.device, non_blocking=True))
        embeddings = gather_rows(F.normalize(at_least_float32(embeddings.detach())).to(self.table.dtype))
        ordered, order = index.sort(stable=True)
        last = torch.ones_like(ordered, dtype=torch.bool)
        last[:-1] = ordered[1:] != ordered[:-1]
        mine = last & (ordered % world_size() == rank())
        self.written[crop].index_fill_(0, index, True)
        self.table[crop].index_copy_(0, torch.where(mine, ordered // world_size(), len(self.own)), embeddings[order])

    def forget(self) -> None:
        """Takes all rows for unwritten: what is clustered next are those written from now on."""
        self.written.zero_()

    def cluster_heads(self, clusters: Sequence[int], prototypes, iterations: int, seeds: Sequence[int]) -> list[torch.Tensor]:
        """K-means for each head, that of crop h mod crops for head h → the clusters (rows,) of all rows, a head: `clusters`.

        The centroids become the prototypes of the head (`models.heads.Prototypes`).
        """
        assigned = []
        for head, (count, seed) in enumerate(zip(clusters, seeds)):
            centroids, of_head = self.cluster(head % len(self.table), count, iterations, seed)
            prototypes.set_(head, centroids)
            assigned.append(of_head)
        self.clusters = assigned
        return assigned

    def cluster(self, crop: int, clusters: int, iterations: int = 10, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """→ centroids (K, D) float32, assignments (rows,) int64 of all global rows, -100 for rows never written.

        Both are the same on every rank, for any number of ranks. Raises ClusteringError for more clusters than written rows.
        """
        written = self.written[crop]
        mine = written[self.own]
        # k-means numbers its rows without gaps: by their place among the written ones
        numbers = (written.cumsum(0) - 1)[self.own[mine]]
        centroids, assigned = spherical_kmeans(self.table[crop, :-1][mine], numbers, clusters, iterations, seed, self.refill)
        shifted = torch.zeros(len(written), dtype=torch.int64, device=written.device)
        shifted[self.own[mine]] = assigned + 1
        shifted = all_sum(shifted)
        return centroids, torch.where(shifted > 0, shifted - 1, IGNORED)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The whole table by global row, (crops, rows, D), what is written, the clusters: the same for any number of ranks.

        It lies in the first rank's host memory and goes there block by block: no GPU holds more than its share. The others'
        table is empty.
        """
        crops, rows, dim = self.table.shape[0], self.written.shape[1], self.table.shape[2]
        table = self.table.new_zeros(crops, rows if rank() == 0 else 0, dim, device="cpu")
        longest = -(-rows // world_size())
        for first in range(0, longest, GATHERED_ROWS):
            own = gather_rows(self.own[first : first + GATHERED_ROWS])
            for crop, share in enumerate(self.table):
                gathered = gather_rows(share[:-1][first : first + GATHERED_ROWS])
                if rank() == 0:
                    table[crop, own.cpu()] = gathered.cpu()
        return {"table": table, "written": self.written.cpu(), "clusters": [of_head.cpu() for of_head in self.clusters]}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Takes this rank's rows out of a state that any number of ranks wrote. Raises ClusteringError for a bank of others."""
        if state["written"].shape != self.written.shape:
            raise ClusteringError(
                f"the saved bank has {state['written'].shape[1]} rows for each of {state['written'].shape[0]} crops, the data "
                f"now give {self.written.shape[1]} for {self.written.shape[0]}; go back to the data that it was made of."
            )
        self.table[:, :-1].copy_(state["table"][:, self.own.cpu()])
        self.written.copy_(state["written"])
        self.clusters = [of_head.to(self.written.device) for of_head in state.get("clusters", [])]

    def _move(self, device: torch.device) -> None:
        if self.table.device != device:
            self.own, self.table, self.written = (x.to(device) for x in (self.own, self.table, self.written))
            self.clusters = [of_head.to(device) for of_head in self.clusters]
