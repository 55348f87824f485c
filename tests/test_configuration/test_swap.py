"""Any config of the libraries becomes sparse, and nothing else of it changes."""

import copy
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from config_files import plain
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from dynsp_mm.configuration.swap import parse_ratios, sparsify
from dynsp_mm.tooling import options as cli
from dynsp_mm.tooling.swap_check import check_backbone

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/sparsify_config.py'
CONFIGS = {
    'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py': 'DynamicSwin',
    'mmdet::convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py': 'DynamicConvNeXt',  # noqa: E501
    'mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py': 'DynamicSwin',
    'mmseg::swin/swin-base-patch4-window12-in22k-384x384-pre_upernet_8xb2-160k_ade20k-512x512.py': 'DynamicSwin',  # noqa: E501
    'mmseg::convnext/convnext-base_upernet_8xb2-amp-160k_ade20k-512x512.py': 'DynamicConvNeXt',
    'mmpretrain::swin_transformer/swin-base_16xb64_in1k-384px.py': 'DynamicSwin',
    'mmpretrain::swin_transformer_v2/swinv2-tiny-w16_16xb64_in1k-256px.py': 'DynamicSwinV2',
    'mmpretrain::convnext_v2/convnext-v2-tiny_32xb32_in1k.py': 'DynamicConvNeXt',
}


@pytest.mark.parametrize('name', CONFIGS)
def test_only_what_must_changes(name):
    dense = cli.load_config(name)
    cfg = copy.deepcopy(dense)
    changes = sparsify(cfg, 0.7)
    assert cfg.model.backbone.type == CONFIGS[name] and cfg.model.backbone.keep_ratios == 0.7
    for key, value in dense.model.backbone.items():
        assert key == 'type' or cfg.model.backbone[key] == value
    assert 'dynsp_mm' in cfg.custom_imports.imports
    hooks = [hook.type for hook in cfg.custom_hooks]
    assert hooks == [hook.type for hook in dense.get('custom_hooks') or []] + [
        'SpatialSparsityHook'
    ]
    changed = {key for key in cfg if cfg[key] != dense.get(key)}
    assert changed == set(changes) == {'model', 'custom_hooks', 'custom_imports'}
    cfg.model.backbone = dense.model.backbone
    assert cfg.model == dense.model
    # Again: nothing is added twice.
    assert set(sparsify(cfg, 0.6)) == {'model'}


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.parametrize('size', [(64, 64), (96, 130)], ids=str)
def test_defaults_of_the_dense_class(scope, size):
    """Where a config leaves everything to the class, libraries differ in more than the stages."""
    importlib.import_module(f'{scope}.models')
    if scope == 'mmpretrain' and size[0] < 224:
        size = (224, 230)  # its Swin takes no map that is smaller than a window
    other = dict(mmdet='mmpretrain', mmseg='mmdet', mmpretrain='mmseg')[scope]
    for type_, default_scope in (('SwinTransformer', scope), (f'{scope}.SwinTransformer', other)):
        cfg = Config(dict(default_scope=default_scope, model=dict(backbone=dict(type=type_))))
        assert check_backbone(cfg, size)['error'] <= 1e-5
        cfg.model.backbone.frozen_stages = 1
        frozen = []
        for ratio in (None, 1.0):
            if ratio:
                sparsify(cfg, ratio)
            init_default_scope(default_scope)
            model = MODELS.build(dict(cfg.model.backbone))
            model.train()
            frozen.append(
                {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
            )
        assert frozen[0] == frozen[1] != set()


def test_dense_ratio_needs_no_hook():
    cfg = Config(dict(default_scope='mmdet', model=dict(backbone=dict(type='SwinTransformer'))))
    assert 'custom_hooks' not in sparsify(cfg, 1.0)
    # A config that is sparse already: the hook would refuse the dense model.
    cfg.custom_hooks = [dict(type='EMAHook'), dict(type='SpatialSparsityHook')]
    assert sparsify(cfg, 1.0)['custom_hooks'] == cfg.custom_hooks == [dict(type='EMAHook')]


def test_the_hook_is_known_by_its_old_name():
    """It is neither added a second time, nor left where the model becomes dense."""
    model = dict(backbone=dict(type='DynamicSwin', keep_ratios=0.9))
    hooks = [dict(type='SparseTrainingHook', teacher='dense.pth'), dict(type='EMAHook')]
    cfg = Config(dict(default_scope='mmdet', model=model, custom_hooks=hooks))
    assert 'custom_hooks' not in sparsify(cfg, 0.7) and cfg.custom_hooks == hooks
    assert sparsify(cfg, 1.0)['custom_hooks'] == cfg.custom_hooks == [dict(type='EMAHook')]


def test_classes_and_single_blocks():
    """Types that are python objects, as in mmengine's new configs; one predictor."""
    from mmdet.models import SwinTransformer

    cfg = Config(
        dict(default_scope='mmdet', model=dict(backbone=dict(type=SwinTransformer, prune_blocks=2)))
    )
    with pytest.raises(ValueError, match='needs one ratio for each of the 1 predictors'):
        sparsify(cfg, (0.7, 0.5))
    sparsify(cfg, 0.7)
    assert cfg.model.backbone.type == 'DynamicSwin' and cfg.model.backbone.embed_dims == 96


@pytest.mark.parametrize(
    'entries,ratio,text',
    [
        (dict(), 0.7, 'has no model.backbone with a type'),
        (dict(model=dict(type='X')), 0.7, 'has no model.backbone with a type'),
        (
            dict(model=dict(backbone=dict(type='ResNet'))),
            0.7,
            'model.backbone is a ResNet; what can be made sparse are SwinTransformer, SwinTransformerV2, '  # noqa: E501
            'ConvNeXt',
        ),
        (
            dict(model=dict(backbone=dict(type='mmpretrain.SimMIMSwinTransformer'))),
            0.7,
            'is a mmpretrain.SimMIMSwinTransformer .it is pretrained on masked patches',
        ),
        (dict(model=dict(backbone=dict(type='STViTSwin'))), 0.7, 'is a STViTSwin; what'),
        (dict(model=dict(backbone=dict(type='ConvNeXt'))), 1.5, 'keep_ratios=1.5'),
        (
            dict(model=dict(backbone=dict(type='ConvNeXt'))),
            (0.7, 0.5),
            'for each of the 3 predictors',
        ),
    ],
)
def test_what_cannot_be_swapped_stays(entries, ratio, text):
    cfg = Config(dict(entries, default_scope='mmdet'))
    before = copy.deepcopy(cfg)
    with pytest.raises(ValueError, match=text):
        sparsify(cfg, ratio)
    assert cfg == before or cfg._cfg_dict == before._cfg_dict


def test_ratios_on_the_command_line():
    assert parse_ratios('0.7') == 0.7 and parse_ratios('(0.9, 0.5,0.3)') == (0.9, 0.5, 0.3)
    with pytest.raises(ValueError, match="'much': must be a number such as 0.7"):
        parse_ratios('much')


@pytest.mark.parametrize(
    'name',
    [
        'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
        'mmseg::convnext/convnext-base_upernet_8xb2-amp-160k_ade20k-512x512.py',
        'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
        'file',
    ],
)
def test_what_the_tool_prints_is_the_swapped_config(name, tmp_path):
    if name == 'file':
        name = str(tmp_path / 'mine.py')
        Path(name).write_text("_base_ = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'\n")
        before = Path(name).read_text()
    done = subprocess.run([sys.executable, TOOL, name, '0.7'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / 'sparse.py').write_text(done.stdout)
    # In a bare interpreter, as the libraries' own tools load it.
    code = (
        'import sys; from mmengine.config import Config\n'
        'print(Config.fromfile(sys.argv[1]).pretty_text)'
    )
    bare = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path / 'sparse.py')],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert bare.returncode == 0, bare.stderr
    expected = cli.load_config(name)
    sparsify(expected, 0.7)
    got = Config.fromstring(bare.stdout, '.py')
    assert plain(got) == plain(expected)
    full = subprocess.run(
        [sys.executable, TOOL, name, '0.7', '--full'], capture_output=True, text=True
    )
    assert plain(Config.fromstring(full.stdout, '.py')) == plain(expected)
    if name.endswith('mine.py'):
        assert Path(name).read_text() == before


def test_errors_of_the_tool(tmp_path):
    for args, text in (
        (('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '0.7'), 'is a ResNet'),
        (('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', 'x'), "'x': must be a number"),
        ((str(tmp_path / 'no.py'), '0.7'), 'does not exist'),
    ):
        done = subprocess.run([sys.executable, TOOL, *args], capture_output=True, text=True)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
        assert text in done.stderr
