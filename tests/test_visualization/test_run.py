"""Pictures of a model's decisions: none lost, none too many."""

from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmengine.registry import TRANSFORMS

from dynsp_mm import DynamicSwin, STViTSwin
from dynsp_mm.errors import UserError
from dynsp_mm.visualization.run import draw_batches, image_batches


class Model(BaseModel):
    """Runs the backbone ``parts`` times on a batch, as sliding windows do."""

    def __init__(self, keep_ratios=(0.7, 0.5, 0.3), parts=1, stvit=False, channels=3):
        one = channels == 1
        super().__init__(
            ImgDataPreprocessor(mean=[0.0] * (1 if one else 3), std=[1.0] * (1 if one else 3))
            if channels in (1, 3)
            else None
        )
        self.channels = channels
        widths = dict(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 4))
        make = STViTSwin if stvit else partial(DynamicSwin, keep_ratios=keep_ratios)
        self.backbone = make(widths, in_channels=channels)
        self.parts, self.calls = parts, 0

    def forward(self, *args, **kwargs):
        raise NotImplementedError

    def test_step(self, paths):
        self.calls += 1
        for _ in range(self.parts):
            self.backbone(torch.rand(len(paths), self.channels, 64, 64) * 255)
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


@pytest.mark.parametrize('stvit', [False, True])
@pytest.mark.parametrize('channels', [1, 2, 4, 7])
def test_images_of_other_channels_are_drawn(channels, stvit, tmp_path):
    model = Model(channels=channels, stvit=stvit)
    (path,) = draw_batches(model, [['x.npy']], tmp_path, 1)
    picture = cv2.imread(str(path))[18 : 18 + 300, :250]
    assert path.name == 'x.png' and picture.std() > 10
    assert (picture == picture[..., :1]).all() == (channels < 3)


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
    with pytest.raises(ValueError, match='image .*b.png: LoadImageFromFile cannot take it .Assert'):
        list(image_batches(wrapped, [tmp_path / 'b.png']))
    pipeline[0]['ignore_empty'] = True
    # mmcv's loader gives nothing for a file that cannot be had.
    with pytest.raises(ValueError, match='image .*c.png: LoadImageFromFile gave nothing for it'):
        list(image_batches(wrapped, [tmp_path / 'c.png']))


@TRANSFORMS.register_module()
class LoadArray(BaseTransform):
    """A loader of a user's own."""

    def transform(self, results):
        image = np.load(results['img_path'])
        assert results['sample_idx'] == results['img_id'] and not results['seg_fields']
        return dict(results, img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])


class Pack(BaseTransform):
    """A step that a config of Python style names by its class."""

    def transform(self, results):
        return dict(inputs=torch.from_numpy(results['img']), path=results['img_path'])


@TRANSFORMS.register_module()
class ReadMask(BaseTransform):
    def transform(self, results):
        return dict(results, mask=np.load(results['seg_map_path']))


def test_the_loader_of_the_config_reads_the_files(tmp_path):
    paths = [tmp_path / f'{i}.npy' for i in range(2)]
    for path in paths:
        np.save(path, np.zeros((8, 9, 4), np.uint16))
    steps = [dict(type='LoadArray'), dict(type='LoadPanopticAnnotations'), dict(type=Pack)]
    batches = list(image_batches(dict(pipeline=steps), paths))
    assert [batch['path'] for batch in batches] == [[str(path)] for path in paths]
    assert batches[0]['inputs'][0].shape == (8, 9, 4)
    # Steps may be functions, too.
    batches = image_batches(dict(pipeline=[dict(type='LoadArray'), lambda x: x]), paths)
    assert next(batches)['img'][0].shape == (8, 9, 4)


def test_what_a_pipeline_cannot_take_is_one_line(tmp_path):
    np.save(path := tmp_path / '0.npy', np.zeros((8, 9, 4), np.uint16))
    (tmp_path / 'x.npy').write_text('no\narray')
    for last, file, text in (
        (ReadMask, path, "0.npy: ReadMask cannot take it .KeyError: 'seg_map_path'"),
        (Pack, tmp_path / 'x.npy', 'x.npy: LoadArray cannot take it .ValueError: .*pickle'),
    ):
        pipeline = [dict(type='LoadArray'), dict(type=last)]
        with pytest.raises(UserError, match=text) as error:
            list(image_batches(dict(pipeline=pipeline), [file]))
        assert '\n' not in str(error.value)
