import pytest
import torch

from dynsp_mm import DynamicConvNeXt
from dynsp_mm.analysis import held_memory, peak_memory

MIB = 2**20


def test_counts_what_is_held_at_a_time():
    layer = torch.nn.Linear(512, 512, bias=False)
    x = torch.zeros(512, 512)  # 1 MiB, as each output
    assert peak_memory(torch.nn.Identity(), x) == 0
    assert peak_memory(layer, x) == MIB
    # One output is held while the next is made; earlier ones are gone.
    assert peak_memory(torch.nn.Sequential(*[layer] * 4), x) == 2 * MIB


@pytest.mark.parametrize('mode', [True, False])
def test_leaves_the_model_in_its_mode(mode):
    layer = torch.nn.Linear(4, 4).train(mode)
    peak_memory(layer, torch.zeros(1, 4))
    assert layer.training == mode and layer.weight.grad is None


def test_weights_that_are_shared_count_once():
    layer = torch.nn.Linear(256, 256, bias=False)
    model = torch.nn.Sequential(layer, layer, torch.nn.BatchNorm1d(256, affine=False))
    model[2].register_buffer('view', layer.weight.detach()[1:])
    assert held_memory(model) == 256 * 256 * 4 + 2 * 256 * 4 + 8


@pytest.mark.parametrize('backend', ['eager', 'auto'])
def test_what_is_prepared_counts(backend):
    model = DynamicConvNeXt('atto', keep_ratios=0.7).eval()
    plain = held_memory(model)
    prepared = held_memory(model.prepare_for_inference(backend))
    assert plain + sum(layer.weight.nbytes for layer in linears(model)) <= prepared
    model.discard_prepared()
    assert held_memory(model) == plain


def linears(model):
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
