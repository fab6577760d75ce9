import pytest
import torch
import torch.nn.functional as F
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from models.slice_encoder import PixelMean, SliceEncoder, draw_published_map, embed_slices, orthogonal_map, set_map


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return SliceEncoder("resnet18", 48).eval()


@pytest.mark.parametrize("arch, feature_dim, pooled_dim", [("resnet18", 960, 512), ("resnet50", 3840, 2048)])
def test_weights_go_in_and_out_of_plain_torchvision(arch, feature_dim, pooled_dim):
    encoder = SliceEncoder(arch, 8).eval().double()
    assert (encoder.feature_dim, encoder.pooled_dim) == (feature_dim, pooled_dim)
    plain = getattr(torchvision.models, arch)(weights=None).eval().double()
    missing, unexpected = plain.load_state_dict(encoder.resnet.state_dict(), strict=False)
    assert sorted(missing) == ["fc.bias", "fc.weight"] and not unexpected
    plain.fc = torch.nn.Identity()
    grey = torch.randn(2, 1, 40, 40, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(encoder.pooled(grey), plain(grey.expand(-1, 3, -1, -1)), rtol=1e-9)


def test_features_are_the_four_stages_pooled_and_of_unit_length(encoder):
    images, net = torch.randn(2, 3, 64, 64), encoder.resnet
    with torch.no_grad():
        features = encoder.features(images)
        x, start = net.maxpool(net.relu(net.bn1(net.conv1(images)))), 0
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = layer(x)
            stage = x.mean((2, 3))
            part = features[:, start : start + stage.shape[1]]
            assert torch.allclose(part, stage / stage.norm(dim=1, keepdim=True), atol=1e-5)
            start += stage.shape[1]
    assert start == features.shape[1]


@pytest.mark.parametrize("embedding", ["unit", "published"])
@pytest.mark.parametrize("arch, channels", [("resnet18", 3), ("resnet18", 1), ("resnet50", 3)])
def test_features_are_the_stages_that_torchvision_extracts(arch, channels, embedding):
    torch.manual_seed(1)
    encoder = SliceEncoder(arch, 8, embedding).double().eval()
    plain = getattr(torchvision.models, arch)(weights=None).double().eval()
    for module in encoder.resnet.modules():  # as after training
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    plain.load_state_dict(encoder.resnet.state_dict(), strict=False)
    layers = [f"layer{number}" for number in (1, 2, 3, 4)]
    images = torch.randn(2, channels, 41, 56, dtype=torch.float64)
    with torch.no_grad():
        stages = create_feature_extractor(plain, layers)(images.expand(-1, 3, -1, -1))
        parts = [F.normalize(F.adaptive_avg_pool2d(stages[layer], 1).flatten(1), dim=1) for layer in layers]
        parts += parts[-1:] if embedding == "published" else []
        torch.testing.assert_close(encoder.features(images), torch.cat(parts, 1), rtol=1e-9, atol=1e-12)


def test_the_scale_of_the_map_changes_no_embedding(encoder):
    images = torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        before = encoder(images)
        for parameter in encoder.to_embedding.parameters():
            parameter.mul_(0.1)
        assert torch.allclose(encoder(images), before, atol=1e-5)
        for parameter in encoder.to_embedding.parameters():
            parameter.mul_(10)
    assert torch.allclose(before.square().mean(1), torch.ones(3), atol=1e-5)


def test_only_real_slices_are_encoded(encoder):
    pixels, real = torch.randn(2, 4, 32, 32), torch.tensor([[True] * 4, [True, True, False, False]])
    pixels[~real] = torch.nan
    with torch.no_grad():
        embedded = embed_slices(encoder, pixels, real)
        alone = encoder(pixels[1, :2, None])
    assert embedded.isfinite().all() and not embedded[~real].any()
    assert torch.allclose(embedded[1, :2], alone, atol=1e-5)


def test_padding_touches_no_batch_statistics():
    statistics = []
    for padding in (0, 5):
        torch.manual_seed(0)
        encoder = SliceEncoder("resnet18", 8).train()
        pixels = torch.cat([torch.randn(2, 3, 32, 32), 100 * torch.ones(2, padding, 32, 32)], 1)
        embed_slices(encoder, pixels, (torch.arange(3 + padding) < 3).expand(2, -1))
        statistics.append(encoder.resnet.bn1.running_mean.clone())
    assert torch.equal(*statistics)


def test_no_images_give_no_embeddings(encoder):
    assert encoder(torch.zeros(0, 1, 32, 32)).shape == (0, 48)


@pytest.mark.parametrize("size", [31, 97])
def test_small_and_odd_sizes_work(encoder, size):
    assert encoder(torch.randn(2, 1, size, size + 3)).shape == (2, 48)


def test_the_fixed_map_is_a_seeded_rotation_that_centres_the_features(encoder):
    mean = torch.randn(960)
    set_map(encoder, mean, seed=3)
    weight = encoder.to_embedding.weight
    assert torch.allclose(weight @ weight.T, torch.eye(48), atol=1e-5)
    assert torch.allclose(encoder.to_embedding(mean), torch.zeros(48), atol=1e-4)
    assert torch.equal(orthogonal_map(960, 48, 3), weight) and not torch.equal(orthogonal_map(960, 48, 4), weight)
    tall = orthogonal_map(20, 48, 0)
    assert torch.allclose(tall.T @ tall, torch.eye(20), atol=1e-5)


@pytest.mark.parametrize("seed", [31, 7])
def test_the_published_map_is_drawn_after_the_convolutions_of_its_resnet(seed):
    blocks, width = [(3, 64), (4, 128), (6, 256), (3, 512)], 64
    torch.manual_seed(seed)
    torch.nn.Conv2d(3, 64, 7, bias=False)
    for count, planes in blocks:
        for block in range(count):
            if block == 0:
                torch.nn.Conv2d(width, 4 * planes, 1, bias=False)  # the shortcut is made before the block
            for sizes in [(width, planes, 1), (planes, planes, 3), (planes, 4 * planes, 1)]:
                torch.nn.Conv2d(*sizes, bias=False)
            width = 4 * planes
    theirs = torch.nn.ConvTranspose1d(5888, 640, 1)
    encoder = SliceEncoder("resnet50", 640, "published")
    before = torch.get_rng_state()
    draw_published_map(encoder, seed)
    assert torch.equal(encoder.to_embedding.weight, theirs.weight[:, :, 0].T)
    assert torch.equal(encoder.to_embedding.bias, theirs.bias)
    assert torch.equal(torch.get_rng_state(), before)


def trained_once(recompute, arch="resnet18"):
    """The loss, gradients and buffers of one backward pass in float64."""
    torch.manual_seed(3)
    encoder = SliceEncoder(arch, 16, recompute=recompute).double().train()
    images = torch.randn(6, 1, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        loss = encoder(images).pow(3).sum()
    loss.backward()
    return sum(kept), loss, {n: p.grad for n, p in encoder.named_parameters()}, dict(encoder.named_buffers())


def test_recomputation_changes_no_loss_gradient_or_running_statistic_and_keeps_less():
    (kept, loss, gradients, buffers), (less, same_loss, same_gradients, same_buffers) = map(trained_once, (False, True))
    assert torch.equal(loss, same_loss) and less < kept / 2
    assert all(torch.equal(gradients[name], same_gradients[name]) for name in gradients)
    assert all(torch.equal(buffers[name], same_buffers[name]) for name in buffers)
    assert buffers["resnet.layer4.1.bn2.num_batches_tracked"] == 1


def test_without_gradients_slices_go_through_in_chunks_and_come_out_the_same(encoder, monkeypatch):
    pixels, real = torch.randn(3, 5, 24, 24), torch.arange(5) < torch.tensor([[5], [2], [4]])
    sizes = []
    with torch.no_grad():
        whole = embed_slices(encoder, pixels, real)
        monkeypatch.setattr("models.slice_encoder.CHUNK", 4)
        with_hook = encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
        torch.testing.assert_close(embed_slices(encoder, pixels, real), whole, rtol=1e-5, atol=1e-6)
    embed_slices(encoder, pixels, real)  # with gradients
    with_hook.remove()
    assert sizes == [4, 4, 3, 11]


def test_the_gradient_of_the_mean_over_pixels_is_that_of_torch():
    maps = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(PixelMean.apply, (maps,))
    half = torch.randn(2, 3, 4, 5).bfloat16().requires_grad_()
    weight = torch.randn(2, 3)
    (PixelMean.apply(half) * weight).sum().backward()
    gradient, half.grad = half.grad, None
    (half.mean((2, 3), dtype=torch.float32) * weight).sum().backward()
    assert PixelMean.apply(half).dtype == torch.float32 and torch.equal(gradient, half.grad)
