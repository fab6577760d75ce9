from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader

from engine.embedding import embed_files


@dataclass
class Numbers:
    count: int

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"value": torch.full((3,), float(index))}


def test_embeddings_are_in_the_order_of_the_files_whatever_the_batch():
    weight = torch.ones(3, 2, requires_grad=True)
    for batch_size in (1, 4, 100):
        loader = DataLoader(Numbers(11), batch_size)
        embeddings = embed_files(loader, lambda batch: batch["value"] @ weight.to(batch["value"].device), "fp32")
        assert embeddings.dtype == np.float32
        assert np.array_equal(embeddings, np.repeat(3 * np.arange(11.0)[:, None], 2, 1))
