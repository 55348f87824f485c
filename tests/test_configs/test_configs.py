"""Every config of ours loads in a bare interpreter, builds, and trains one step."""
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from dynsp_mm import SparseTrainingHook, record_decisions
from dynsp_mm.checkpoints import find_source

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
SCALE = dict(t='tiny', s='small', b='base')


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request):
    return Config.fromfile(request.param)


def test_all_are_there():
    names = {path.stem for path in CONFIGS}
    assert names >= {f'maskrcnn_{f}_{s}' for f in ('dyswin', 'dyconvnext') for s in 'tsb'}


def test_loads_without_our_help(tmp_path):
    """As mmdet's own tools do: nothing imported dynsp_mm before."""
    code = ('import sys; from mmengine.config import Config\n'
            'for path in sys.argv[1:]: print(Config.fromfile(path).model.backbone.type)')
    done = subprocess.run([sys.executable, '-c', code, *map(str, CONFIGS)], capture_output=True,
                          text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(CONFIGS)


def test_inherits_what_it_promises(config):
    path = Path(config.filename)
    head, family, size, *rest = path.stem.split('_')
    backbone = config.model.backbone
    assert config.model.type == 'MaskRCNN' and config.default_scope == 'mmdet'
    assert config.optim_wrapper.optimizer.type == 'AdamW'
    assert [hook['type'] for hook in config.custom_hooks] == ['SparseTrainingHook']
    if rest:
        return
    assert backbone.init_cfg.type == 'Pretrained'
    assert (SCALE[size] in backbone.init_cfg.checkpoint)
    assert config.train_dataloader.dataset.data_root == 'data/coco/'
    assert config.train_cfg.max_epochs == 12
    assert config.param_scheduler[1].milestones == [8, 11]
    widths = dict(t=96, s=96, b=128)[size]
    assert config.model.neck.in_channels == [widths * 2**i for i in range(4)]


def test_model_trains_a_step(config):
    register_all_modules(init_default_scope=True)
    config.model.backbone.init_cfg = None
    for stage in (config.model.train_cfg.rpn_proposal, config.model.test_cfg.rpn):
        stage.update(nms_pre=100, max_per_img=50)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    optim_wrapper = build_optim_wrapper(model, config.optim_wrapper)
    grouped = [p for group in optim_wrapper.optimizer.param_groups for p in group['params']]
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters()}
    SparseTrainingHook().attach(model.train())
    batch = detection_batch(config.model.roi_head.bbox_head.num_classes)
    total, logs = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    total.backward()
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in logs.values())
    assert logs['loss_mask'] > 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f'no gradient for {name}'
    optim_wrapper.step()
    ratios = model.backbone.keep_ratios
    assert ratios == (0.7, 0.5, 0.3)
    with torch.no_grad(), record_decisions(model.eval()) as log:
        model.test_step(detection_batch(4))
    for decision, ratio in zip(log.decisions, ratios):
        count = decision.hw[0] * decision.hw[1]
        assert decision.keep.flatten(1).sum(1).tolist() == [int(count * ratio)] * 2


def detection_batch(num_classes):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData
    import numpy as np
    samples, images = [], []
    for i in range(2):
        masks = np.zeros((1, 96, 128), np.uint8)
        masks[0, 20:60, 30:90] = 1
        sample = DetDataSample(metainfo=dict(img_shape=(96, 128), ori_shape=(96, 128), img_id=i,
                                             scale_factor=(1.0, 1.0), pad_shape=(96, 128),
                                             batch_input_shape=(96, 128)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[30., 20., 90., 60.]]), labels=torch.tensor([i % num_classes]),
            masks=BitmapMasks(masks, 96, 128))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4),
                                                labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
        images.append(torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8))
    return dict(inputs=images, data_samples=samples)


def test_published_swin_names_are_recognised():
    """The official keys that the Swin configs' checkpoints have."""
    keys = {'patch_embed.proj.weight': 0, 'layers.0.blocks.0.attn.qkv.weight': 0}
    assert find_source(keys).name == 'official Swin'


def test_demo_config_names_the_generated_classes():
    from dynsp_mm.demo.synthetic_coco import CLASSES, PALETTE
    metainfo = Config.fromfile(ROOT / 'configs/maskrcnn_dyswin_t_demo.py').metainfo
    assert tuple(metainfo.classes) == CLASSES
    assert [tuple(color) for color in metainfo.palette] == [tuple(color) for color in PALETTE]
