"""The collapse guard: figures that tell whether embeddings and clusters still say anything, and warnings when they do not."""

import math
from collections.abc import Sequence

import torch

from .distributed import all_sum, gather_rows, rank, world_size
from .precision import at_least_float32


def changed_share(assigned: torch.Tensor, previous: torch.Tensor, clusters: int) -> float:
    """The share of rows, over all ranks, whose cluster is not the one that continues their previous one. Collective.

    Two clusters continue each other when each has most of its rows in the other: k-means numbers them anew every time.
    Rows without a cluster now or before do not count.
    """
    both = (assigned >= 0) & (previous >= 0)
    overlap = _histogram(previous[both] * clusters + assigned[both], clusters**2)
    overlap = all_sum(overlap).view(clusters, clusters)  # previous cluster, cluster now
    follows, came_from = overlap.argmax(1), overlap.argmax(0)
    known = torch.arange(clusters, device=overlap.device)
    stayed = torch.where(came_from[follows] == known, overlap[known, follows], 0).sum()
    return 1 - (stayed / overlap.sum().clamp_min(1)).item()


def rankme(embeddings: torch.Tensor) -> torch.Tensor:
    """embeddings (n, D) → scalar, 1 … D: exp of the entropy of the normalised singular values (Garrido et al. 2023)."""
    return _effective_rank(torch.linalg.svdvals(at_least_float32(embeddings)))


def deviation(embeddings: torch.Tensor) -> torch.Tensor:
    """embeddings (n, D) → scalar: mean deviation of a dimension times sqrt(D); 1 if isotropic and unit, 0 if equal."""
    return at_least_float32(embeddings).std(0, correction=0).mean() * math.sqrt(embeddings.shape[1])


class CollapseGuard:
    """Gathers the figures of an epoch for families of embeddings ("volumes", "slices", "images"), each with its K.

    Rank and deviation come from second moments in float64, which add up over steps and ranks: every embedding counts.
    device: where the embeddings are.
    """

    def __init__(self, families: dict[str, int], device: torch.device | str = "cpu"):
        self.families, self.device = families, device
        self.epochs_at_chance = dict.fromkeys(families, 0)
        self.last: dict[str, torch.Tensor] = {}
        self.used: dict[str, int] = {}
        self._start()

    @torch.no_grad()
    def add(self, family: str, assigned: torch.Tensor, embeddings: torch.Tensor, loss: torch.Tensor) -> None:
        """One step: assigned (n,) int64 or codes (n, K), embeddings (n, D) of this rank, the family's loss (scalar)."""
        embeddings = embeddings.double()
        self._add(family, "histogram", _histogram(assigned, self.families[family]))
        self._add(family, "rows", embeddings.new_full((), len(embeddings), dtype=torch.int64))
        self._add(family, "sum", embeddings.sum(0))
        self._add(family, "moments", embeddings.T @ embeddings)
        self._add(family, "loss", torch.stack([loss.detach().double(), torch.ones_like(loss, dtype=torch.float64)]))

    def compare(self, family: str, assignments: torch.Tensor) -> None:
        """assignments (rows,) of all items, once an epoch: the share that changed since the epoch before. Collective."""
        last = self.last.get(family)
        if last is not None and last.shape == assignments.shape:
            changed = changed_share(assignments, last.to(assignments.device), self.families[family])
            self._changed[f"{family}_changed"] = changed
        self.last[family] = assignments.clone()

    def in_use(self) -> dict[str, int]:
        """{family}_clusters_used: how many clusters were assigned in the last epoch; in the first one, so far. Collective."""
        if self.used:
            return dict(self.used)
        histograms = {family: sums["histogram"] for family, sums in self._sums.items()}
        return {f"{family}_clusters_used": int((all_sum(of) > 0).sum()) for family, of in histograms.items()}

    def report(self) -> tuple[dict[str, float], list[str]]:
        """The figures of the epoch and the warnings that they call for. Collective."""
        figures = self.epoch_report()
        return figures, self.warnings(figures)

    def epoch_report(self) -> dict[str, float]:
        """Flat figures {family}_loss, _ln_k, _rows, _clusters_used, _entropy, _rank, _deviation, and _changed after `compare`.

        Then a new epoch starts. Collective; ranks have added to the same families.
        """
        figures = dict(self._changed)
        for family, sums in self._sums.items():
            sums = {name: all_sum(value) for name, value in sums.items()}
            loss, steps = sums["loss"].tolist()
            of_family = {"loss": loss / steps, "ln_k": math.log(self.families[family]), "rows": int(sums["histogram"].sum())}
            of_family |= _histogram_figures(sums["histogram"]) | _moment_figures(sums)
            self._count_chance(family, of_family["loss"], of_family["ln_k"])
            figures |= {f"{family}_{name}": value for name, value in of_family.items()}
        self.used = {name: value for name, value in figures.items() if name.endswith("_clusters_used")}
        self._start()
        return figures

    def warnings(self, report: dict[str, float]) -> list[str]:
        """Sentences, each with the likely cause, about the families of an `epoch_report`."""
        sentences = []
        for family, clusters in self.families.items():
            if f"{family}_loss" not in report:
                continue
            ln_k, rank, used = (report[f"{family}_{name}"] for name in ("ln_k", "rank", "clusters_used"))
            possible = min(clusters, report[f"{family}_rows"])
            if self.epochs_at_chance[family] >= 2:
                sentences.append(
                    f"{family}: the loss has been at ln K = {ln_k:.2f} for {self.epochs_at_chance[family]} epochs, so all "
                    "prototypes get equal scores; likely the rate is too low for the optimiser (raise --base_lr), or SwAV's "
                    "codes are too even (lower --epsilon)."
                )
            if rank < 2 <= report[f"{family}_rows"]:
                sentences.append(
                    f"{family}: the embeddings have an effective rank of {rank:.2f}, so all are nearly the same; likely the "
                    "rate is too high (lower --base_lr), or K is too small (raise --nmb_prototypes)."
                )
            if used < possible / 2:
                sentences.append(
                    f"{family}: {used} clusters are in use where {possible} could be; likely the embeddings are collapsing, "
                    "or K is larger than the data tell apart (lower --nmb_prototypes)."
                )
        return sentences

    def state_dict(self) -> dict:
        """With the sums of this epoch, those of every rank (R, ...). Collective."""
        sums = {family: {k: gather_rows(v[None]).cpu() for k, v in of.items()} for family, of in self._sums.items()}
        last = {family: assigned.cpu() for family, assigned in self.last.items()}
        return {
            "epochs_at_chance": dict(self.epochs_at_chance), "last": last, "sums": sums, "changed": dict(self._changed),
            "used": dict(self.used),
        }  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        """Takes this rank's sums; where there are now more or fewer ranks, the first takes all."""
        self.epochs_at_chance, self.last = dict(state["epochs_at_chance"]), dict(state["last"])
        self._changed, self.used = dict(state.get("changed", {})), dict(state.get("used", {}))
        self._sums = {
            family: {name: _own_share(of_ranks).to(self.device) for name, of_ranks in of.items()}
            for family, of in state.get("sums", {}).items()
        }

    def _count_chance(self, family: str, loss: float, ln_k: float) -> None:
        at_chance = abs(loss - ln_k) <= 0.01 * ln_k and self.families[family] > 1
        self.epochs_at_chance[family] = self.epochs_at_chance[family] + 1 if at_chance else 0

    def _start(self) -> None:
        self._sums: dict[str, dict[str, torch.Tensor]] = {}
        self._changed: dict[str, float] = {}

    def _add(self, family: str, name: str, value: torch.Tensor) -> None:
        sums = self._sums.setdefault(family, {})
        sums[name] = sums[name] + value if name in sums else value


def warnings_again(epochs: Sequence[dict]) -> list[list[str]]:
    """What the guard warned of in each epoch of a run, from the figures that the run logged."""
    guard, said = CollapseGuard({}), []
    for figures in epochs:
        told = {name: value for name, value in figures.items() if value is not None}
        found = [name.removesuffix("_ln_k") for name in told if name.endswith("_ln_k")]
        whole = [
            family for family in found if all(f"{family}_{part}" in told for part in ("loss", "rank", "clusters_used", "rows"))
        ]
        guard.families = {family: round(math.exp(told[f"{family}_ln_k"])) for family in whole}
        for family in whole:
            guard.epochs_at_chance.setdefault(family, 0)
            guard._count_chance(family, told[f"{family}_loss"], told[f"{family}_ln_k"])
        said.append(guard.warnings(told))
    return said


def _own_share(of_ranks: torch.Tensor) -> torch.Tensor:
    if len(of_ranks) == world_size():
        return of_ranks[rank()]
    return of_ranks.sum(0) if rank() == 0 else torch.zeros_like(of_ranks[0])


def _histogram(assigned: torch.Tensor, clusters: int) -> torch.Tensor:
    if assigned.ndim == 2:
        assigned = assigned.argmax(1)
    counts = torch.zeros(clusters, dtype=torch.int64, device=assigned.device)
    return counts.index_add_(0, assigned.clamp_min(0), (assigned >= 0).long())


def _histogram_figures(histogram: torch.Tensor) -> dict[str, float]:
    shares = histogram.double() / histogram.sum().clamp_min(1)
    return {"clusters_used": int((histogram > 0).sum()), "entropy": -torch.xlogy(shares, shares).sum().item()}


def _moment_figures(sums: dict[str, torch.Tensor]) -> dict[str, float]:
    """Rank and deviation from the sums of x and of x xᵀ: singular values are the roots of its eigenvalues."""
    values = torch.linalg.eigvalsh(sums["moments"]).clamp_min(0).sqrt()
    rows = sums["rows"].clamp_min(1)
    variances = (sums["moments"].diagonal() / rows - (sums["sum"] / rows).square()).clamp_min(0)
    return {
        "rank": _effective_rank(values).item(),
        "deviation": variances.sqrt().mean().item() * math.sqrt(len(variances)),
    }


def _effective_rank(singular_values: torch.Tensor) -> torch.Tensor:
    tiny = torch.finfo(singular_values.dtype).tiny
    shares = singular_values / singular_values.sum().clamp_min(tiny)
    return torch.exp(-torch.xlogy(shares, shares).sum())
