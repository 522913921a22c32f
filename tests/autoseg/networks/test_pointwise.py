import pytest
import torch
import torch.nn.functional as F

from autoseg.networks.norm import channels_last
from autoseg.networks.pointwise import average_pool, convolution


def _image(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.to(memory_format=channels_last(len(shape) - 2)).requires_grad_()


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (2, 1, 3), (1, 1, 1), (2, 2)])
def test_average_pool_is_torchs_with_its_gradient_and_keeps_the_layout(stride):
    x = _image((2, 3, *(4 * step for step in stride)))
    plain = x.detach().contiguous().requires_grad_()
    expected = (F.avg_pool2d if len(stride) == 2 else F.avg_pool3d)(plain, stride)
    found = average_pool(x, stride)
    for output in (found, expected):
        output.square().sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(x.grad, plain.grad)
    assert found.is_contiguous(memory_format=channels_last(len(stride)))
    torch.testing.assert_close(average_pool(plain, stride), expected)


@pytest.mark.parametrize(("shape", "bias"), [((2, 4, 3, 5, 2), True), ((1, 4, 3, 5), False)])
def test_pointwise_convolution_is_torchs_with_its_gradients(shape, bias):
    dimension = len(shape) - 2
    module = convolution(4, 6, [1] * dimension, [1] * dimension, bias=bias).double()
    assert module.weight.shape == (6, 4, *[1] * dimension)
    stock = {2: F.conv2d, 3: F.conv3d}[dimension]
    x = _image(shape)
    found = module(x)
    assert found.is_contiguous(memory_format=channels_last(dimension))
    expected = stock(x, module.weight, module.bias)
    torch.testing.assert_close(found, expected)
    sources = [x, *module.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(found.square().sum(), sources), torch.autograd.grad(expected.square().sum(), sources), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(module(x.contiguous()), expected)


def test_kernel_is_centred_so_that_only_the_stride_changes_the_size():
    module = convolution(1, 1, (3, 1, 3), (1, 1, 2))
    torch.nn.init.ones_(module.weight)
    torch.nn.init.zeros_(module.bias)
    x = torch.zeros(1, 1, 4, 4, 4)
    x[0, 0, 2, 1, 2] = 1
    expected = torch.zeros(1, 1, 4, 4, 2)
    expected[0, 0, 1:4, 1, 1] = 1
    assert torch.equal(module(x), expected)


def test_weight_gradient_stays_accurate_over_many_voxels():
    module = convolution(4, 3, (1, 1, 1), (1, 1, 1))
    for parameter in module.parameters():
        torch.nn.init.ones_(parameter)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((4, 4, 40, 56, 40), generator=generator).to(memory_format=torch.channels_last_3d)
    grad = torch.rand((4, 3, 40, 56, 40), generator=generator)
    module(x).backward(grad)
    expected = torch.einsum("nkzyx,nczyx->kc", grad.double(), x.double())
    assert ((module.weight.grad.flatten(1) - expected) / expected).abs().max() < 2e-6
