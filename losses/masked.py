"""Masked slices: which ones, the loss of predicting them, and how much better that is than two simple guesses."""

import torch

from .distributed import all_max, all_sum, collective_device, global_mean
from .precision import at_least_float32


def draw_mask(uniforms: torch.Tensor, real: torch.Tensor, ratio: float) -> torch.Tensor:
    """uniforms (B, N) in [0, 1), real (B, N) bool → (B, N) bool: the masked slices, those with the smallest draws.

    ceil(ratio * n) of a volume's n real slices, at least 1 and at most n - 1; none of a single slice.
    """
    count = real.sum(1)
    # ratio * n may lie a rounding above a whole number (0.1 * 30), which ceil would lift by one
    wanted = torch.ceil(ratio * count.double() - 1e-9).clamp_min(1).minimum(count - 1.0)
    order = torch.where(real, uniforms, torch.inf).argsort(dim=1, stable=True)
    return (order.argsort(dim=1) < wanted[:, None]) & real


def masked_slice_loss(predictions: torch.Tensor, targets: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """predictions, targets (B, N, D), masked (B, N) bool → scalar: mean squared error of the masked slices of all ranks.

    With the mask on the host nothing waits for the device.

    No gradient goes to the targets: a network that learns both would shrink what it has to predict.
    """
    rows = masked.flatten().nonzero()[:, 0].to(predictions.device, non_blocking=True)
    predicted, wanted = (x.flatten(0, 1).index_select(0, rows) for x in (predictions, targets.detach()))
    errors = at_least_float32(predicted) - at_least_float32(wanted)
    return global_mean(errors.square().mean(1))


def published_mask_loss(predictions: torch.Tensor, targets: torch.Tensor, ratio: float) -> torch.Tensor:
    """predictions, targets (2B, N, D) of both views → scalar: the loss of the published code, for comparison.

    The mean squared errors of both views over all slices, masked or not, are summed and divided by int(ratio * N).
    """
    errors = (at_least_float32(predictions) - at_least_float32(targets.detach())).square()
    return 2 * global_mean(errors.mean((1, 2))) / int(ratio * targets.shape[1])


class MaskedScore:
    """R² of the masked slices, gathered over steps in float64: against the mean embedding and against interpolation."""

    def __init__(self) -> None:
        self.sums: torch.Tensor | None = None

    @torch.no_grad()
    def add(self, predictions: torch.Tensor, targets: torch.Tensor, guess: torch.Tensor, masked: torch.Tensor) -> None:
        """predictions, targets, and guess, what interpolation gives: (B, N, D); masked (B, N) bool, the slices to score."""
        scored = masked.to(targets.device)
        wanted = targets[scored].double()
        guess = guess[scored].double()
        error = (predictions[scored].double() - wanted).square().sum()
        guess_error = (guess - wanted).square().sum()
        numbers = torch.stack([scored.sum().double(), error, guess_error, wanted.square().sum()])
        sums = torch.cat([numbers, wanted.sum(0)])
        self.sums = sums if self.sums is None else self.sums + sums

    def compute(self) -> dict[str, float]:
        """{"r2_mean", "r2_interpolation", "mse"} over all ranks; NaN where nothing was scored. Collective.

        R² = 1 - squared error / squared error of the baseline; mse is a mean over slices and the D features, as the loss is.
        """
        sums = torch.zeros(0, dtype=torch.float64, device=collective_device()) if self.sums is None else self.sums
        # a rank without any batch does not know D
        length = max(5, int(all_max(torch.tensor(len(sums), device=sums.device))))
        sums = all_sum(torch.cat([sums, sums.new_zeros(length - len(sums))]))
        count, error, guess_error, squares = sums[:4]
        around_mean = squares - sums[4:].square().sum() / count
        figures = {
            "r2_mean": 1 - error / around_mean,
            "r2_interpolation": 1 - error / guess_error,
            "mse": error / (count * (length - 4)),
        }
        return {name: value.item() for name, value in figures.items()}
