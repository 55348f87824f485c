import importlib.metadata
import importlib.util
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from dynsp_mm import DynamicSwin, compat

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
        f'_base_ = ["mmseg::{SEG_CONFIG}"]',
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


def test_importing_the_package_replaces_nothing_of_mmengine():
    """But for a row of its table of distributions, without which it would install mmseg anew."""
    code = """
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import hub
from mmengine.runner.checkpoint import CheckpointLoader

def state():
    return (
        {name: value for name, value in vars(Config).items() if callable(value) or
         isinstance(value, (staticmethod, classmethod))},
        {name: value for name, value in MODULE2PACKAGE.items() if name != 'mmseg'},
        {name: value for name, value in vars(hub).items() if callable(value)},
        dict(CheckpointLoader._schemes),
    )

before = state()
import dynsp_mm, dynsp_mm.tooling.runs, dynsp_mm.tooling.commands.train
assert state() == before
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_libraries_count_our_attention_as_theirs():
    """Mmengine's counter of operations, which their get_flops.py asks."""
    backbones = pytest.importorskip('mmdet.models.backbones')
    sizes = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 4], out_indices=(3,))
    image = torch.randn(1, 3, 64, 64)
    counts = []
    for cls in (backbones.SwinTransformer, DynamicSwin):
        model = cls(**sizes)
        model.eval()  # returns nothing in the library's class
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of tracing
            found = get_model_complexity_info(model, inputs=image, show_table=False)
        counts.append(found['flops'])
    assert abs(counts[1] / counts[0] - 1) < 0.03
