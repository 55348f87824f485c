import pytest
import torch

from dynsp_mm.ops import dual_path, merge_streams, route_streams


def split(keep):
    keep = keep.flatten()
    return keep.nonzero().squeeze(1), (~keep).nonzero().squeeze(1)


def slow_path(x):
    return 2 * x + 1


def fast_path(x):
    return -x


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('share', [0.0, 0.37, 1.0])
def test_each_position_takes_its_path(share, dtype):
    tokens, residual = torch.randn(30, 8, dtype=dtype), torch.randn(30, 8, dtype=dtype)
    keep = torch.rand(2, 15) < share
    before = residual.clone()
    out = dual_path(tokens, residual, *split(keep), slow_path, fast_path)
    expected = residual + torch.where(keep.view(30, 1), slow_path(tokens), fast_path(tokens))
    assert out.dtype == dtype
    assert torch.equal(residual, before)
    torch.testing.assert_close(out, expected)


def test_gradients():
    tokens = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    residual = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    slow, fast = split(torch.rand(2, 5) < 0.5)

    def run(tokens, residual):
        return dual_path(tokens, residual, slow, fast, lambda x: x.sin(), lambda x: x.cos())

    assert torch.autograd.gradcheck(run, (tokens, residual))


def test_streams():
    mask = (torch.rand(2, 6, 1) < 0.5).float()
    z, x1, x2 = torch.randn(3, 2, 6, 4)
    z1, z2 = route_streams(mask, z, x1, x2)
    chosen = mask.bool().expand_as(z)
    assert torch.equal(z1, torch.where(chosen, z, x1))
    assert torch.equal(z2, torch.where(chosen, x2, z))
    assert torch.equal(merge_streams(mask, z1, z2), z)
