import pytest
import torch
from torch import nn

from dynsp_mm.layers import FastPath, vectors_equal
from dynsp_mm.sparsity import TokenPredictor

MAKE = [lambda: TokenPredictor(16, 1e-5), lambda: FastPath(16, 1e-5)]


@pytest.mark.parametrize('make', MAKE)
def test_by_its_values_alone(make):
    """However they came: drawn, drawn again, copied, loaded, in another dtype."""
    part, other = make(), make()
    assert part.is_at_start()
    other.load_state_dict(part.state_dict())
    assert other.is_at_start() and part.bfloat16().is_at_start()
    part.reset_parameters()
    assert part.requires_grad_(False).is_at_start()


@pytest.mark.parametrize('make', MAKE)
def test_any_vector_tells_that_it_was_trained(make):
    names = [name for name, p in make().named_parameters() if p.dim() == 1]
    assert len(names) > 2
    for name in names:
        part = make()
        part.get_parameter(name).data[1] += 1e-3
        assert not part.is_at_start(), name


@pytest.mark.parametrize('make', MAKE)
def test_one_step_of_training_is_seen(make):
    part = make().train()
    optimizer = torch.optim.SGD(part.parameters(), lr=0.1)
    tokens = torch.randn(2, 16, 16)
    (
        part.log_probs(tokens)[..., 0] if hasattr(part, 'log_probs') else part(tokens)
    ).sum().backward()
    optimizer.step()
    assert not part.is_at_start()


@pytest.mark.parametrize('make', MAKE)
def test_weights_that_are_not_there_are_at_no_start(make):
    assert not make().to('meta').is_at_start()
    assert not vectors_equal(nn.Identity())
    sharded = make()
    sharded.norm.weight.data = torch.empty(0)
    assert not sharded.is_at_start()
