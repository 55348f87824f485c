"""Tools on a model whose backbone belongs to a model inside it."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config

from dynsp_mm.errors import UserError
from dynsp_mm.tooling import options
from dynsp_mm.tooling.candidates import Candidate
from dynsp_mm.tooling.commands import flops, sparsify
from dynsp_mm.tooling.harness import build_model, load_library
from dynsp_mm.tooling.options import load_config
from dynsp_mm.tooling.runs import check_weights
from dynsp_mm.visualization.run import draw_batches

SEMI = """
_base_ = 'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'
model = dict(detector=dict(
    backbone=dict(_delete_=True, type='SwinTransformer', embed_dims=16, depths=[1, 1, 4, 1],
                  num_heads=[1, 1, 2, 4]),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=16),
                  bbox_head=dict(num_classes=1, in_channels=16, fc_out_channels=16))))
"""


@pytest.fixture
def semi(tmp_path):
    (tmp_path / 'semi.py').write_text(SEMI)
    return str(tmp_path / 'semi.py')


def test_multiply_adds(semi, capsys, monkeypatch):
    said = []
    monkeypatch.setattr(options, 'print_log', lambda text, logger: said.append(text))
    flops.main([semi, '--shape', '64', '64', '--sparse', '0.5'])
    assert 'DynamicSwin at 64 x 64' in capsys.readouterr().out
    assert said == ['--sparse 0.5: the backbone is model.detector.backbone']
    flops.main([semi, '--shape', '64', '64'])
    assert capsys.readouterr().out.startswith('SwinTransformer at 64 x 64')


def test_candidates(semi):
    candidate = Candidate(f'{semi}@sparse=0.5@drop_path_rate=0.3')
    assert candidate.backbone['keep_ratios'] == 0.5
    assert candidate.cfg.model.detector.backbone.drop_path_rate == 0.3
    assert candidate.build('backbone', (64, 64)).backbone.keep_ratios == (0.5, 0.3, 0.1)
    with pytest.raises(UserError, match='its is model.detector.backbone; --part backbone measures'):
        candidate.build('model', (64, 64))


def test_printed_config_pictures_and_weights(semi, tmp_path, capsys):
    sparsify.main([semi, '0.7'])
    text = capsys.readouterr().out
    assert Config.fromstring(text.partition('\n')[2], '.py').model == dict(
        detector=dict(backbone=dict(type='DynamicSwin', keep_ratios=0.7, out_indices=(0, 1, 2, 3)))
    )
    (tmp_path / 'sparse.py').write_text(text)
    cfg = load_config(str(tmp_path / 'sparse.py'))
    load_library(cfg)
    model = build_model(cfg)
    # It predicts by its teacher, and that is not the first backbone.
    meta = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1, 1))
    sample = DetDataSample(metainfo=meta)
    batch = dict(inputs=[torch.zeros(3, 64, 64, dtype=torch.uint8)], data_samples=[sample])
    pictures = list(draw_batches(model, [batch], tmp_path / 'maps', 1))
    assert len(pictures) == 1 and pictures[0].is_file()
    plain = str(tmp_path / 'plain.pth')
    torch.save(dict(state_dict={'backbone.x': torch.zeros(1)}), plain)
    with pytest.raises(UserError, match="plain.pth: this model's backbone is student.backbone"):
        check_weights(model, plain, 'load_from')
