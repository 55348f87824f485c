"""Pictures of a model's decisions: none lost, none too many."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.model import BaseModel, ImgDataPreprocessor

from dynsp_mm import DynamicSwin, STViTSwin
from dynsp_mm.visualization.run import draw_batches, image_batches


class Model(BaseModel):
    """Runs the backbone ``parts`` times on a batch, as sliding windows do."""

    def __init__(self, keep_ratios=(0.7, 0.5, 0.3), parts=1, stvit=False):
        super().__init__(ImgDataPreprocessor(mean=[0.0] * 3, std=[1.0] * 3))
        widths = dict(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 4))
        self.backbone = STViTSwin(widths) if stvit else DynamicSwin(widths, keep_ratios=keep_ratios)
        self.parts, self.calls = parts, 0

    def forward(self, *args, **kwargs):
        raise NotImplementedError

    def test_step(self, paths):
        self.calls += 1
        for _ in range(self.parts):
            self.backbone(torch.rand(len(paths), 3, 64, 64) * 255)
        return [SimpleNamespace(metainfo=dict(img_path=p, img_shape=(60, 50))) for p in paths]


def names(paths):
    return [path.name for path in paths]


def test_images_of_the_same_name_are_all_kept(tmp_path):
    batches = [['a/0.jpg', 'b/0.jpg'], ['c/0.jpg', 'c/1.jpg']]
    paths = list(draw_batches(Model(), batches, tmp_path, 9))
    assert names(paths) == ['0.png', '0_2.png', '0_3.png', '1.png']
    assert all(path.is_file() for path in paths)


@pytest.mark.parametrize('count,drawn,calls', [(1, 1, 1), (2, 2, 1), (3, 3, 2)])
def test_stops_at_the_count(tmp_path, count, drawn, calls):
    model = Model()
    batches = [['0.jpg', '1.jpg'], ['2.jpg', '3.jpg'], ['4.jpg']]
    assert len(list(draw_batches(model, batches, tmp_path, count))) == drawn
    assert model.calls == calls  # no batch is run for nothing


def test_parts_of_an_image_are_drawn_each(tmp_path):
    model = Model(parts=3)
    paths = list(draw_batches(model, [['x.jpg']], tmp_path, 1))
    assert names(paths) == ['x.png', 'x_2.png', 'x_3.png']
    assert not model.backbone._forward_pre_hooks


def test_semantic_tokens_are_drawn(tmp_path):
    (path,) = draw_batches(Model(stvit=True), [['x.jpg']], tmp_path, 1)
    # A row for the block that refines and one for the block that recovers, three panels each.
    assert cv2.imread(str(path)).shape == (2 * (60 * 5 + 18), 3 * 50 * 5, 3)


def test_a_dense_model_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='Model takes no decisions and has no semantic tokens'):
        next(draw_batches(Model(keep_ratios=None), [['x.jpg']], tmp_path / 'out', 1))
    assert not (tmp_path / 'out').exists()


def test_image_files_pass_the_pipeline_of_the_innermost_dataset(tmp_path):
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((40, 50, 3), np.uint8))
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs', meta_keys=('img_path', 'img_shape')),
    ]
    wrapped = dict(type='ConcatDataset', datasets=[dict(type='CocoDataset', pipeline=pipeline)])
    (batch,) = image_batches(wrapped, [tmp_path / 'a.png'])
    assert batch['inputs'][0].shape == (3, 40, 50)
    (tmp_path / 'b.png').write_text('no image')
    with pytest.raises(ValueError, match='b.png: is not an image'):
        list(image_batches(wrapped, [tmp_path / 'b.png']))
