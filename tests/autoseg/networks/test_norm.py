import pytest
import torch
import torch.nn.functional as F

from autoseg.networks.norm import InstanceNorm, channels_last, instance_norm_leaky_relu

SHAPES = [(2, 5, 4, 6, 3), (1, 1, 3, 4, 5), (3, 4, 8, 6), (2, 8, 1, 4, 4)]


def _case(shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=dtype) * 3 + 2
    x = x.to(memory_format=channels_last(len(shape) - 2))
    weight = torch.randn(shape[1], generator=generator, dtype=dtype)
    bias = torch.randn(shape[1], generator=generator, dtype=dtype)
    return x, weight, bias


def _reference(x, weight, bias, slope):
    normalised = F.instance_norm(x.contiguous(), weight=weight, bias=bias, eps=1e-5)
    return F.leaky_relu(normalised, slope)


@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_stock_norm_and_activation_with_gradients(shape, slope):
    x, weight, bias = _case(shape)
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = [t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, weight, bias)]
    expected = [t.clone().requires_grad_() for t in (x, weight, bias)]

    y = instance_norm_leaky_relu(*found, slope=slope)
    reference = _reference(*expected, slope)
    y.backward(grad)
    reference.backward(grad)

    torch.testing.assert_close(y, reference, rtol=1e-5, atol=1e-5)
    for ours, stock in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.grad, stock.grad, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("shape", [(2, 3, 2, 3, 2), (2, 2, 3, 4)])
def test_gradient_is_the_derivative(shape, slope):
    inputs = [tensor.requires_grad_() for tensor in _case(shape, torch.float64)]
    assert torch.autograd.gradcheck(lambda *arguments: instance_norm_leaky_relu(*arguments, slope=slope), inputs)


def test_stays_channels_last_in_both_directions():
    x, weight, bias = _case((2, 4, 4, 4, 4))
    x.requires_grad_()
    y = instance_norm_leaky_relu(x, weight, bias)
    y.sum().backward()
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    assert x.grad.is_contiguous(memory_format=torch.channels_last_3d)


def test_contiguous_input_falls_back_to_the_same_values():
    x, weight, bias = _case((2, 4, 4, 5, 3))
    plain = instance_norm_leaky_relu(x.contiguous(), weight, bias)
    assert plain.is_contiguous()
    torch.testing.assert_close(plain, instance_norm_leaky_relu(x, weight, bias), rtol=1e-5, atol=1e-5)


def test_gradient_in_another_layout_gives_the_same():
    x, weight, bias = _case((2, 4, 4, 5, 3))
    grad = torch.randn(2, 8, 4, 5, 3, generator=torch.Generator().manual_seed(2))
    results = []
    for layout in (grad[:, :4].contiguous(), grad.to(memory_format=torch.channels_last_3d)[:, :4]):
        leaf = x.detach().clone().requires_grad_()
        instance_norm_leaky_relu(leaf, weight, bias).backward(layout)
        results.append(leaf.grad)
    assert torch.equal(*results)


def test_repeats_bit_for_bit():
    x, weight, bias = _case((3, 16, 16, 16, 16))
    weight.requires_grad_()
    results = []
    for _ in range(3):
        weight.grad = None
        y = instance_norm_leaky_relu(x, weight, bias)
        y.square().sum().backward()
        results.append((y.detach(), weight.grad))
    assert all(torch.equal(a, b) for later in results[1:] for a, b in zip(results[0], later, strict=True))


def test_stays_accurate_over_many_voxels():
    # a running float32 sum over each channel, as the CPU's batch norm keeps it, is some 400 times further off
    x, weight, bias = _case((1, 4, 40, 56, 40))
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) + 1
    found = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    expected = [tensor.detach().double().requires_grad_() for tensor in found]
    instance_norm_leaky_relu(*found).backward(grad)
    _reference(*expected, 0.01).backward(grad.double())
    errors = [((a.grad - b.grad).norm() / b.grad.norm()).item() for a, b in zip(found, expected, strict=True)]
    assert max(errors) < 1e-6


def test_each_sample_is_normalised_alone():
    x, weight, bias = _case((3, 4, 4, 4, 4))
    together = instance_norm_leaky_relu(x, weight, bias)
    alone = instance_norm_leaky_relu(x[1:2], weight, bias)
    assert torch.equal(together[1:2], alone)


def test_output_has_mean_zero_and_variance_one_before_the_affine_part():
    x, _, _ = _case((2, 3, 6, 5, 4))
    y = InstanceNorm(3, slope=1)(x)
    torch.testing.assert_close(y.mean((2, 3, 4)), torch.zeros(2, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var((2, 3, 4), correction=0), torch.ones(2, 3), rtol=1e-4, atol=0)


def test_half_precision_input_keeps_its_type_and_full_precision_statistics():
    x, weight, bias = _case((2, 4, 6, 6, 6))
    weight.requires_grad_()
    y = instance_norm_leaky_relu(x.bfloat16(), weight, bias)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert weight.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), _reference(x, weight, bias, 0.01), rtol=0.02, atol=0.05)


@pytest.mark.parametrize(
    ("shape", "slope", "what"), [((1, 2, 4, 4), -0.1, "slope must be 0 or more"), ((2, 2, 1, 1, 1), 0.01, "one voxel")]
)
def test_refuses_what_it_cannot_do(shape, slope, what):
    with pytest.raises(ValueError, match=what):
        instance_norm_leaky_relu(*_case(shape), slope=slope)
