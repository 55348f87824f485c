import importlib.metadata
import importlib.util

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from dynsp_mm import compat

HAS_MMSEG = importlib.util.find_spec('mmseg') is not None
SEG_CONFIG = 'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'


@pytest.fixture
def original_mapping(monkeypatch):
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')


@pytest.fixture
def packages(monkeypatch, original_mapping):
    """Call with what is installed: is mmseg importable, is there a mmsegmentation?"""

    def install(module, distribution):
        def find_distribution(name):
            assert name == 'mmsegmentation'
            if not distribution:
                raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object() if module else None)
        monkeypatch.setattr(importlib.metadata, 'distribution', find_distribution)

    return install


@pytest.mark.parametrize(
    'module, distribution, expected',
    [(True, False, 'mmseg'), (True, True, 'mmsegmentation'), (False, False, 'mmsegmentation')],
)
def test_mmseg_is_mapped_only_under_another_distribution_name(
    packages, module, distribution, expected
):
    packages(module, distribution)
    compat.enable_mmseg_base_configs()
    compat.enable_mmseg_base_configs()
    assert MODULE2PACKAGE['mmseg'] == expected


@pytest.mark.skipif(not HAS_MMSEG, reason='mmseg is not installed')
def test_mmseg_configs_load_without_pip(original_mapping, tmp_path, monkeypatch):
    import mmengine.hub.hub as hub

    monkeypatch.setattr(
        'mmengine.utils.package_utils.call_command',
        lambda command: pytest.fail(f'mmengine ran {command}'),
    )
    compat.enable_mmseg_base_configs()
    assert hub.get_config(f'mmseg::{SEG_CONFIG}').default_scope == 'mmseg'

    for line in (
        f'_base_ = "mmseg::{SEG_CONFIG}"',
        f'_base_ = [__import__("dynsp_mm") and "mmseg::{SEG_CONFIG}"]',
        '_base_ = ["mmseg::_base_/default_runtime.py"]',
    ):
        path = tmp_path / 'config.py'
        path.write_text(line)
        assert Config.fromfile(path).default_scope == 'mmseg'


def counted_attention_flops():
    from torch.utils.flop_counter import FlopCounterMode

    q = torch.zeros(1, 2, 8, 4)
    with FlopCounterMode(display=False) as counter:
        F.scaled_dot_product_attention(q, q, q)
    return counter.get_total_flops()


def test_math_attention_shows_its_products_to_flop_counters():
    products = 2 * 2 * (2 * 8 * 8 * 4)  # two products, 2 FLOPs per multiply-add, two heads
    with compat.math_attention():
        assert counted_attention_flops() == products


def test_math_attention_of_old_torch(monkeypatch):
    import sys

    used = {}
    monkeypatch.setitem(sys.modules, 'torch.nn.attention', None)  # the import now fails
    monkeypatch.setattr(torch.backends.cuda, 'sdp_kernel', lambda **kwargs: used.update(kwargs))
    compat.math_attention()
    assert used == dict(enable_flash=False, enable_math=True, enable_mem_efficient=False)


def test_has_accelerator_asks_every_check_that_mmengine_has(monkeypatch):
    checks = ('is_cuda_available', 'is_npu_available', 'is_mlu_available', 'is_musa_available')
    for check in checks:
        monkeypatch.setattr(compat.device, check, lambda: False, raising=False)
    assert not compat.has_accelerator()
    monkeypatch.setattr(compat.device, 'is_mlu_available', lambda: True)
    assert compat.has_accelerator()
    monkeypatch.delattr(compat.device, 'is_musa_available')
    assert compat.has_accelerator()


OWN = 'maskrcnn_dyswin_t.py'


def test_own_configs_as_a_base(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        f"_base_ = [__import__('dynsp_mm') and 'dynsp_mm::{OWN}']\n"
        'model = dict(backbone=dict(keep_ratios=0.6))\n'
    )
    cfg, expected = Config.fromfile(path), Config.fromfile(compat.own_config(OWN))
    assert cfg.model.backbone.pop('keep_ratios') == 0.6
    assert expected.model.backbone.pop('keep_ratios') == 0.7
    # Nothing is looked up in another scope than through the path of the file.
    assert cfg._cfg_dict == expected._cfg_dict


def test_own_configs_through_the_hub(monkeypatch):
    import mmengine.hub.hub as hub

    monkeypatch.setattr(
        'mmengine.utils.package_utils.call_command',
        lambda command: pytest.fail(f'mmengine ran {command}'),
    )
    assert hub._get_package_and_cfg_path(f'dynsp_mm::{OWN}') == ('dynsp_mm', OWN)
    assert hub._get_package_and_cfg_path('mmdet::a/b.py') == ('mmdet', 'a/b.py')
    before = Config._get_cfg_path
    compat.enable_own_base_configs()  # again
    assert Config._get_cfg_path is before


def test_own_config_that_is_not_there():
    with pytest.raises(FileNotFoundError, match="dynsp_mm has no config 'no.py'"):
        compat.own_config('no.py')
