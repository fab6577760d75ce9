"""Embeddings of many files by frozen encoders: what is kept are the embeddings, batch by batch, and no pixels."""

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from .processes import autocast, computing_dtype, to_device


def computing_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.no_grad()
def embed_files(loader: DataLoader, embed: Callable[[dict], torch.Tensor], precision: str, what: str = "") -> np.ndarray:
    """(n, D) float32 embeddings of the files of `loader`, in their order. embed: batch → (B, D); what: shown as progress."""
    device = computing_device()
    embeddings, done = None, 0
    with autocast(computing_dtype(precision, device), device):
        for batch in tqdm(loader, what, unit="batch", leave=False, disable=not what):
            rows = embed(to_device(batch, device)).float().cpu().numpy()
            if embeddings is None:
                embeddings = np.empty((len(loader.dataset), rows.shape[1]), np.float32)
            embeddings[done : done + len(rows)] = rows
            done += len(rows)
    return embeddings
