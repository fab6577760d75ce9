import torch
import torch.nn.functional as F

from models.heads import ProjectionHead, Prototypes
from models.image_model import ImageModel
from models.slice_encoder import SliceEncoder


def test_scores_are_cosines_whatever_the_length_of_the_weights():
    prototypes = Prototypes(8, (5, 3))
    with torch.no_grad():
        prototypes.heads[0].mul_(7)
    embeddings = F.normalize(torch.randn(4, 8), dim=1)
    scores = prototypes(embeddings)
    assert [tuple(s.shape) for s in scores] == [(4, 5), (4, 3)]
    assert torch.allclose(scores[0], F.cosine_similarity(embeddings[:, None], prototypes.heads[0][None], dim=-1), atol=1e-6)
    prototypes.normalize_()
    assert torch.allclose(prototypes.heads[0].norm(dim=1), torch.ones(5))


def test_projections_are_unit_vectors_and_nothing_gives_nothing():
    head = ProjectionHead(6, 10, 4)
    assert torch.allclose(head(torch.randn(7, 6)).norm(dim=1), torch.ones(7), atol=1e-6)
    assert head(torch.zeros(0, 6)).shape == (0, 4)


def test_crops_of_two_sizes_are_projected_each_as_by_itself():
    torch.manual_seed(0)
    model = ImageModel(SliceEncoder("resnet18", 8), (4,), hidden_dim=16, output_dim=6).eval()
    crops = [torch.randn(3, 1, 64, 64), torch.randn(3, 1, 64, 64), torch.randn(3, 1, 32, 32)]
    with torch.no_grad():
        projections, scores = model(crops)
        for crop, projection, score in zip(crops, projections, scores):
            alone, own = model([crop])
            assert torch.allclose(projection, alone[0], atol=1e-5)
            assert torch.allclose(score[0], own[0][0], atol=1e-5)
