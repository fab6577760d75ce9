import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from engine import compiling


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4))

    def forward(self, x):
        return self.blocks(x)


def two_nets():
    torch.manual_seed(0)
    plain, compiled = Net(), Net()
    compiled.load_state_dict(plain.state_dict())
    return plain, compiled


@pytest.mark.slow
def test_compiled_blocks_compute_the_same_for_any_number_of_slices_and_keep_their_names():
    plain, compiled = two_nets()
    assert compiling.compile_blocks(compiled, torch.device("cpu")) is None
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for slices in (3, 5, 2):
        x = torch.randn(slices, 4, 9, 9)
        (a, b), names = (net(x) for net in (plain, compiled)), [name for name, _ in plain.named_parameters()]
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        gradients = [torch.autograd.grad(y.square().mean(), list(net.parameters())) for y, net in ((a, plain), (b, compiled))]
        for name, p, q in zip(names, *gradients):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5, msg=name)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, compiled.state_dict()[name], msg=name)
    assert sum(module._compiled_call_impl is not None for module in compiled.modules()) == 2


def test_a_machine_that_cannot_compile_goes_on_without_and_says_so(monkeypatch):
    def fail(device):
        raise RuntimeError("No working C++ compiler found\nand a long trace")

    monkeypatch.setattr(compiling, "_try_out", fail)
    plain, compiled = two_nets()
    said = compiling.compile_blocks(compiled, torch.device("cpu"))
    assert said == (
        "warning: torch.compile does not work on this machine (No working C++ compiler found); going on without --compile."
    )
    x = torch.randn(2, 4, 9, 9)
    assert torch.equal(plain(x), compiled(x)) and all(m._compiled_call_impl is None for m in compiled.modules())
