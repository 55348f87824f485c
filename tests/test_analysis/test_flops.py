import pytest
import torch

from dynsp_mm import DynamicConvNeXt, DynamicSwin
from dynsp_mm.analysis import count_macs

# Published models at 224 x 224: GMACs of the authors' programs, multiply-adds alone.
PUBLISHED = [
    (DynamicSwin, 'tiny', 0.7, 4.041),
    (DynamicSwin, 'small', 0.7, 6.846),
    (DynamicSwin, 'base', 0.7, 12.063),
    (DynamicConvNeXt, 'tiny', 0.7, 3.579),
    (DynamicConvNeXt, 'small', 0.7, 5.771),
    (DynamicConvNeXt, 'base', 0.7, 10.177),
    (DynamicConvNeXt, 'tiny', 0.9, 3.908),
    (DynamicConvNeXt, 'small', 0.9, 6.759),
    (DynamicConvNeXt, 'base', 0.9, 11.934),
]


@pytest.mark.parametrize('cls,arch,ratio,gmacs', PUBLISHED)
def test_published_variants(cls, arch, ratio, gmacs):
    model = cls(arch, keep_ratios=ratio)
    width = model.num_features[-1] if cls is DynamicSwin else model.channels[-1]
    classifier = width * 1000
    macs = count_macs(model, torch.zeros(1, 3, 224, 224)) + classifier
    assert abs(macs / 1e9 / gmacs - 1) < 0.005


def test_counts_what_runs():
    linear = torch.nn.Linear(8, 4)
    assert count_macs(linear, torch.zeros(10, 8)) == 10 * 8 * 4
    conv = torch.nn.Conv2d(6, 6, 3, padding=1, groups=6)
    assert count_macs(conv, torch.zeros(1, 6, 5, 5)) == 25 * 6 * 9
    # Attention counts too, and fewer kept positions cost less.
    model = DynamicSwin('tiny', keep_ratios=0.9).train()
    image = torch.zeros(1, 3, 64, 64)
    more = count_macs(model, image)
    model.keep_ratios = 0.5
    assert count_macs(model, image) < more
    assert model.training


def test_modes_are_restored_module_by_module():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).train()
    model[1].eval()
    count_macs(model, torch.zeros(3, 2))
    assert model.training and model[0].training and not model[1].training
