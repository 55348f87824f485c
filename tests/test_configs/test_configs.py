"""Every config of ours loads in a bare interpreter, builds, and trains one step."""

import importlib
import subprocess
import sys
from pathlib import Path

import modelindex
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from dynsp_mm import SpatialSparsityHook, record_decisions
from dynsp_mm.checkpoints import find_source
from dynsp_mm.tooling import options as cli
from dynsp_mm.tooling.harness import dummy_batch

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
MASK_RCNN = [
    path
    for path in CONFIGS
    if path.stem.startswith('maskrcnn_dy') and not path.stem.endswith('_teacher')
]
SCALE = dict(t='tiny', s='small', b='base')


def load(path):
    return Config.fromfile(path)


# The larger sizes of a recipe take long; those that keep 0.9 are the networks of the others.
@pytest.fixture(
    params=[
        pytest.param(path, marks=pytest.mark.slow if {'b', 'l'} & {*path.stem.split('_')} else ())
        for path in CONFIGS
        if '_r09_' not in path.stem
    ],
    ids=lambda path: path.stem,
)
def config(request):
    return load(request.param)


def test_all_are_there():
    names = {path.stem for path in CONFIGS}
    assert names >= {f'maskrcnn_{f}_{s}' for f in ('dyswin', 'dyconvnext') for s in 'tsb'}
    assert names >= {
        'cascade_maskrcnn_stvit_swin_s',
        'cascade_maskrcnn_stvit_swin_b',
        'maskrcnn_stvit_swin_t',
        'upernet_stvit_swin_s_ade20k',
        'cls_stvit_swin_s_in1k',
        'cls_stvit_swin_b_in1k',
    }


def test_metafile_lists_them():
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    listed = {model.name: model for model in index.models}
    assert set(listed) == {path.stem for path in CONFIGS if not path.stem.endswith('_demo')}
    for name, model in listed.items():
        assert Path(ROOT, model.config).is_file() and Path(model.config).stem == name
    metrics = {
        task.task: dict(task.metrics) for task in listed['cascade_maskrcnn_stvit_swin_b'].results
    }
    assert metrics == {
        'Object Detection': {'box AP': 52.2},
        'Instance Segmentation': {'mask AP': 45.2},
    }
    lines = [
        line
        for path in (ROOT / 'configs').glob('*/metafile.yml')
        for line in path.read_text().splitlines()
    ]
    figures = [line for line in lines if ' AP: ' in line or 'Accuracy: ' in line]
    assert len(figures) == 15 and all(line.endswith('# published') for line in figures)


def test_loads_without_our_help(tmp_path):
    """As the libraries' own tools do: nothing imported dynsp_mm before."""
    code = (
        'import sys; from mmengine.config import Config\n'
        'for path in sys.argv[1:]: print(Config.fromfile(path).model.backbone.type)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, *map(str, CONFIGS)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(CONFIGS)


@pytest.mark.parametrize('path', MASK_RCNN, ids=lambda p: p.stem)
def test_sparse_detectors_inherit_what_they_promise(path):
    config = load(path)
    head, family, size, *rest = path.stem.split('_')
    backbone = config.model.backbone
    assert config.model.type == 'MaskRCNN' and config.default_scope == 'mmdet'
    assert config.optim_wrapper.optimizer.type == 'AdamW'
    assert [hook['type'] for hook in config.custom_hooks] == ['SpatialSparsityHook']
    if rest:
        return
    assert backbone.init_cfg.type == 'Pretrained'
    assert SCALE[size] in backbone.init_cfg.checkpoint
    assert config.train_dataloader.dataset.data_root == 'data/coco/'
    assert config.train_cfg.max_epochs == 12
    assert config.param_scheduler[1].milestones == [8, 11]
    widths = dict(t=96, s=96, b=128)[size]
    assert config.model.neck.in_channels == [widths * 2**i for i in range(4)]


@pytest.mark.parametrize('size,width,drop_path', [('s', 96, 0.2), ('b', 128, 0.3)])
def test_cascade_is_the_published_recipe(size, width, drop_path):
    config = load(ROOT / f'configs/cascade_maskrcnn_stvit_swin_{size}.py')
    backbone, heads = config.model.backbone, config.model.roi_head.bbox_head
    assert backbone.drop_path_rate == drop_path and backbone.pad_mask == 'full'
    assert backbone.depths == [2, 2, 18, 2] and backbone.embed_dims == width
    assert backbone.init_cfg.checkpoint.endswith(f'STViT-R-Swin-{size.upper()}.pth')
    assert config.model.type == 'CascadeRCNN' and len(heads) == 3
    for head in heads:
        assert (head.num_shared_convs, head.num_shared_fcs) == (4, 1)
        assert head.norm_cfg.type == 'SyncBN' and head.loss_bbox.type == 'GIoULoss'
    assert config.model.neck.in_channels == [width * 2**i for i in range(4)]
    assert config.train_cfg.max_epochs == 36
    warm_up, steps = config.param_scheduler
    assert warm_up.end == 500 and steps.milestones == [27, 33]
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    resizes = [step for step in config.train_pipeline if step.type == 'RandomChoice']
    scales = [scale[0] for scale in resizes[0].transforms[0][0].scales]
    assert min(scales) == 480 and max(scales) == 800
    assert config.custom_imports.imports == ['dynsp_mm']


def test_model_trains_a_step(config):
    scope, name = config.default_scope, Path(config.filename).stem
    library = importlib.import_module(f'{scope}.registry')
    importlib.import_module(f'{scope}.models')
    importlib.import_module(f'{scope}.engine')
    init_default_scope(scope)
    config.model.backbone.init_cfg = None
    make_small(config.model, scope)
    # Mixed precision needs an accelerator.
    config.optim_wrapper.type = 'OptimWrapper'
    cli.enable_amp(config, requested=False)
    if config.get('data_preprocessor'):  # as mmengine's runner does
        config.model.setdefault('data_preprocessor', config.data_preprocessor)
    torch.manual_seed(0)
    model = library.MODELS.build(config.model)
    model.init_weights()
    optim_wrapper = build_optim_wrapper(model, config.optim_wrapper)
    grouped = [p for group in optim_wrapper.optimizer.param_groups for p in group['params']]
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters()}
    sparse = 'stvit' not in name
    model.train()
    if sparse:
        SpatialSparsityHook().attach(model)
    data = model.data_preprocessor(batch(config), True)
    total, logs = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in logs.values())
    assert all(value > 0 for key, value in logs.items() if key.endswith('loss_mask'))
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, f'no gradient for {key}'
    optim_wrapper.step()
    if not sparse:
        return
    ratios = model.backbone.keep_ratios
    assert ratios == (0.7, 0.5, 0.3)
    with torch.no_grad(), record_decisions(model.eval()) as log:
        model.test_step(batch(config))
    for decision, ratio in zip(log.decisions, ratios):
        count = decision.hw[0] * decision.hw[1]
        assert decision.keep.flatten(1).sum(1).tolist() == [int(count * ratio)] * 2


def make_small(model, scope):
    """Fewer proposals and points, for images of 64 to 128 pixels."""
    if scope == 'mmdet':
        for proposals in (model.train_cfg.get('rpn_proposal'), model.test_cfg.get('rpn')):
            if proposals:
                proposals.update(nms_pre=50, max_per_img=10)
        if model.type == 'DINO':
            model.num_queries = 30  # of the 34 positions that such an image has
    elif scope == 'mmseg':
        model.data_preprocessor.size = (64, 64)
        if model.decode_head.type == 'Mask2FormerHead':
            model.decode_head.train_cfg.num_points = 256


def batch(config):
    """Two small random images; the published classifiers of STViT-R are of 224 px."""
    sides = dict(mmdet=(96, 128), mmseg=(64, 64), mmpretrain=(64, 64))[config.default_scope]
    if config.default_scope == 'mmpretrain' and config.model.backbone.type == 'STViTSwin':
        sides = (224, 224)
    return dummy_batch(config, sides, num_classes=2)


def test_published_swin_names_are_recognised():
    """The official keys that the Swin configs' checkpoints have."""
    keys = ('patch_embed.proj', 'layers.0.blocks.0.attn.qkv', 'layers.0.downsample.reduction')
    assert find_source({f'{key}.weight': 0 for key in keys}).name == 'official Swin'


def test_demo_config_names_the_generated_classes():
    from dynsp_mm.tooling.datasets.synthetic_coco import CLASSES, PALETTE

    metainfo = Config.fromfile(ROOT / 'configs/maskrcnn_dyswin_t_demo.py').metainfo
    assert tuple(metainfo.classes) == CLASSES
    assert [tuple(color) for color in metainfo.palette] == [tuple(color) for color in PALETTE]
