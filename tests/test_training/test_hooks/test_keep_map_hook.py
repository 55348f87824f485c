"""Keep maps of what a model trains on, as its run goes on."""

import copy
import importlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from config_files import load
from mmengine.hooks import Hook
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import HOOKS, MODELS, VISBACKENDS, init_default_scope
from mmengine.visualization import BaseVisBackend, Visualizer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toys import SWIN, Images, ToyModel, toy_runner

from dynsp_mm import KeepMapHook, record_decisions
from dynsp_mm.visualization import draw_decisions, input_as_image

BACKENDS = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def train(work_dir, hook, model=None, more=(), backends=BACKENDS, **kwargs):
    runner = toy_runner(
        work_dir,
        [dict(type='SpatialSparsityHook'), hook, *more],
        model or ToyModel(SWIN),
        visualizer=dict(type='Visualizer', vis_backends=copy.deepcopy(backends)),
        **kwargs,
    )
    runner.train()
    return runner


def drawn(work_dir):
    return sorted(path.name for path in work_dir.glob('*/vis_data/vis_image/*'))


def hooks_of(model):
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


class Preprocessed(ToyModel):
    """With the preprocessor of a library, and a backbone that runs several times."""

    def __init__(self, data_preprocessor, times=1):
        super().__init__(SWIN)
        self.data_preprocessor, self.times = data_preprocessor, times

    def forward(self, inputs, data_samples=None, mode='tensor'):
        losses = super().forward(inputs, data_samples, mode)
        for _ in range(self.times - 1):
            super().forward(inputs.flip(-1), data_samples, mode)
        return losses


def test_both_backends_get_the_same_pictures(tmp_path):
    """Four iterations: the first one, and each second."""
    train(tmp_path, dict(type='KeepMapHook', interval=2, max_images=1))
    assert drawn(tmp_path) == [f'keep_maps_0_{step}.png' for step in (1, 2, 4)]
    (folder,) = tmp_path.glob('*/vis_data')
    events = EventAccumulator(str(folder), dict(images=0)).Reload()
    assert events.Tags()['images'] == ['keep_maps_0']
    shown = events.Images('keep_maps_0')
    assert [image.step for image in shown] == [1, 2, 4]
    for image in shown:
        picture = cv2.imdecode(np.frombuffer(image.encoded_image_string, np.uint8), 1)
        assert picture.shape == (18 + 256, 4 * 256, 3)
        assert (
            picture == cv2.imread(str(folder / f'vis_image/keep_maps_0_{image.step}.png'))
        ).all()


class Pixels(torch.utils.data.Dataset):
    """Images of one colour each, BGR as they are read."""

    COLOURS = [(250, 100, 10), (10, 20, 240)]

    def __len__(self):
        return 2

    def __getitem__(self, index):
        colour = torch.tensor(self.COLOURS[index], dtype=torch.uint8)
        return dict(inputs=colour.view(3, 1, 1).repeat(1, 64, 64 + 32 * index))


def loader(dataset, batch_size):
    return dict(
        train_dataloader=dict(
            dataset=dataset,
            batch_size=batch_size,
            collate_fn=dict(type='pseudo_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
    )


@pytest.mark.parametrize('swap', [False, True])
def test_the_input_is_drawn_with_padding_in_its_colours(tmp_path, swap):
    preprocessor = ImgDataPreprocessor(MEAN, STD, bgr_to_rgb=swap, pad_size_divisor=32)
    train(tmp_path, dict(type='KeepMapHook'), Preprocessed(preprocessor), **loader(Pixels(), 2))
    assert drawn(tmp_path) == ['keep_maps_0_1.png', 'keep_maps_1_1.png']
    padding = MEAN[::-1] if swap else MEAN  # the network's zeros
    for i, colour in enumerate(Pixels.COLOURS):
        (path,) = tmp_path.glob(f'*/vis_data/vis_image/keep_maps_{i}_1.png')
        picture = cv2.imread(str(path))
        assert picture.shape == (18 + 256, 4 * 96 * 4, 3)
        assert (picture[18:, :256] == colour).all()
        assert i or (picture[18:, 256:384] == np.round(padding)).all()


def sample_of(name):
    """Annotations of an image of 64 x 64."""
    if name.startswith('cls'):
        from mmpretrain.structures import DataSample

        return DataSample().set_gt_label(1)
    if name.startswith('fpn'):
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        return SegDataSample(
            gt_sem_seg=PixelData(data=torch.zeros(1, 64, 64).long()),
            metainfo=dict(img_shape=(64, 64)),
        )
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    return DetDataSample(
        gt_instances=InstanceData(
            bboxes=torch.tensor([[8.0, 8, 40, 40]]), labels=torch.tensor([1])
        ),
        metainfo=dict(img_shape=(64, 64), pad_shape=(64, 64), batch_input_shape=(64, 64)),
    )


@pytest.mark.parametrize('name', ['cls_dyswin_t_in1k', 'fpn_dyswin_t_ade20k', 'retinanet_dyswin_t'])
def test_models_of_the_libraries(tmp_path, name):
    """Small ones after their configs, with their preprocessors: the image has its colour back."""
    config = load(name)
    library = importlib.import_module(f'{config.default_scope}.utils')
    library.register_all_modules(init_default_scope=False)
    init_default_scope(config.default_scope)
    sizes = dict(embed_dims=16, depths=[1, 1, 4, 1], num_heads=[1, 1, 2, 4])
    config.model.backbone.init_cfg = None
    if name.startswith('cls'):
        config.model.update(data_preprocessor=config.data_preprocessor)
        config.model.backbone.arch = sizes
        config.model.head.in_channels = 128
    else:
        config.model.backbone.update(sizes)
        config.model.neck.in_channels = [16 * 2**i for i in config.model.backbone.out_indices]
    model = MODELS.build(config.model).train()
    image = torch.tensor((250, 100, 10), dtype=torch.uint8).view(3, 1, 1).repeat(1, 64, 64)
    visualizer = Visualizer(vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path))
    runner = SimpleNamespace(model=model, iter=0, visualizer=visualizer)
    hook = KeepMapHook()
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    data = model.data_preprocessor(
        dict(inputs=[image] * 2, data_samples=[sample_of(name) for _ in range(2)]), True
    )
    assert model(**data, mode='loss')
    hook.after_train_iter(runner, 0)
    for i in range(2):
        picture = cv2.imread(str(tmp_path / f'vis_data/vis_image/keep_maps_{i}_1.png'))
        assert (picture[18:80, :60] == (250, 100, 10)).all()
    assert not hooks_of(model.backbone)


def test_the_first_call_of_the_backbone_counts(tmp_path):
    """Its decisions, as the loss takes them, and nothing of the later ones."""
    seen = []

    class Watch(Hook):
        def before_train(self, runner):
            def note(module, args):
                self.log = record_decisions(module)
                seen.append((args[0], self.log.__enter__()))

            def end(module, args, output):
                self.log.__exit__(None, None, None)

            runner.model.backbone.register_forward_pre_hook(note)
            runner.model.backbone.register_forward_hook(end)

    model = Preprocessed(ImgDataPreprocessor(), times=2)
    train(tmp_path, dict(type='KeepMapHook'), model, [Watch()], **loader(Images(), 4))
    x, log = seen[0]
    assert len(seen) == 2 and len(log) == 3
    for i in range(4):
        image = input_as_image(x[i], model.data_preprocessor)
        expected = draw_decisions(image, log.decisions, i)
        (path,) = tmp_path.glob(f'*/vis_data/vis_image/keep_maps_{i}_1.png')
        assert (cv2.imread(str(path))[..., ::-1] == expected).all()


def test_at_most_so_many_images(tmp_path):
    train(tmp_path, dict(type='KeepMapHook', max_images=3), **loader(Images(), 4))
    assert drawn(tmp_path) == [f'keep_maps_{i}_1.png' for i in range(3)]


def test_nobody_listens_but_when_it_is_due(tmp_path):
    heard = []

    class Watch(Hook):
        def before_train(self, runner):
            runner.model.backbone.token_predictors[1].register_forward_hook(self.note)

        def note(self, predictor, args, output):
            heard.append(len(predictor._forward_hooks))

    runner = train(tmp_path, KeepMapHook(interval=3), more=[Watch()])
    # The watch's own, that of the loss, and that of the maps.
    assert heard == [3, 2, 3, 2]
    assert len(hooks_of(runner.model)) == 1


def test_a_backbone_with_a_plan_is_heard_from_the_start(tmp_path):
    """It does not look for listeners, so nothing has to wait until it has."""
    model, heard = ToyModel(SWIN), []
    if not hasattr(model.backbone, 'plan'):
        model.backbone.plan = SimpleNamespace(supervised=False)
    predictor = model.backbone.token_predictors[0]

    class Watch(Hook):
        priority = 'LOW'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            heard.append((len(predictor._forward_hooks), len(predictor._forward_pre_hooks)))

    train(tmp_path, KeepMapHook(interval=3, max_images=1), model, [Watch()])
    assert heard == [(1, 0), (0, 0), (1, 0), (0, 0)]
    assert drawn(tmp_path) == ['keep_maps_0_1.png', 'keep_maps_0_3.png']
    assert not hooks_of(model)


class Stumbles(ToyModel):
    """Fails once, after its backbone's work or in it."""

    def __init__(self, where):
        super().__init__(SWIN)
        self.where = where

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if self.where == 'inside':
            self.where = None
            self.backbone.stages[3].register_forward_pre_hook(self.fail)
        losses = super().forward(inputs, data_samples, mode)
        if self.where == 'after':
            self.where = None
            raise RuntimeError('stumbled')
        return losses

    def fail(self, module, args):
        module._forward_pre_hooks.clear()
        raise RuntimeError('stumbled')


@pytest.mark.parametrize('where', ['inside', 'after'])
@pytest.mark.parametrize('end', ['next iteration', 'after_train', 'another training'])
def test_an_iteration_that_fails_leaves_nothing(tmp_path, where, end):
    hook, model = KeepMapHook(interval=100), Stumbles(where)
    runner = toy_runner(tmp_path, [hook], model)
    with pytest.raises(RuntimeError, match='stumbled'):
        runner.train()
    if end == 'next iteration':
        runner.train_loop._iter += 1
        hook.before_train_iter(runner, 1)
    elif end == 'after_train':
        hook.after_train(runner)
    else:
        hook.before_train(runner)
    assert not hooks_of(model)


def test_it_does_not_pass_for_what_holds_the_ratio(tmp_path):
    """A backbone warns where nothing listens to its decisions; these maps do not count."""
    runner = toy_runner(tmp_path, [KeepMapHook(interval=1)])
    runner.train()
    (log,) = tmp_path.glob('*/*.log')
    assert log.read_text().count('nothing holds its keep ratio') == 1


class Scalars(BaseVisBackend):
    """A backend without images."""

    @property
    def experiment(self):
        return self

    def _init_env(self):
        pass


@pytest.mark.parametrize('backends', [[], [dict(type='Scalars', save_dir='')]])
def test_no_place_for_pictures_is_said_once(tmp_path, backends):
    VISBACKENDS.register_module(name='Scalars', module=Scalars, force=True)
    train(tmp_path, dict(type='KeepMapHook', interval=1), backends=backends)
    (log,) = tmp_path.glob('*/*.log')
    assert log.read_text().count('WARNING - KeepMapHook: no backend of the visualizer takes') == 1
    assert not drawn(tmp_path)


def test_other_processes_do_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr('dynsp_mm.training.hooks.keep_maps.is_main_process', lambda: False)
    train(tmp_path, dict(type='KeepMapHook', interval=1))
    (log,) = tmp_path.glob('*/*.log')
    assert not drawn(tmp_path) and 'no backend of the visualizer' not in log.read_text()


def test_a_model_without_predictors_is_an_error(tmp_path):
    runner = toy_runner(tmp_path, [KeepMapHook()], {**SWIN, 'keep_ratios': None})
    with pytest.raises(ValueError, match='KeepMapHook: ToyModel has no token predictors'):
        runner.train()


@pytest.mark.parametrize('channels', [1, 2, 4])
def test_images_of_other_channels(channels, tmp_path):
    class Deep(Images):
        def __getitem__(self, index):
            return dict(inputs=torch.randn(channels, 64, 64))

    model = ToyModel({**SWIN, 'in_channels': channels})
    train(tmp_path, dict(type='KeepMapHook', interval=9, max_images=1), model, **loader(Deep(), 2))
    (path,) = tmp_path.glob('*/vis_data/vis_image/*')
    picture = cv2.imread(str(path))
    grey = (picture[18:, :256] == picture[18:, :256, :1]).all()  # below the caption, of the image
    assert picture.std() > 10 and grey == (channels < 3)
    assert not hooks_of(model.backbone)


@pytest.mark.parametrize('name', ['interval', 'max_images'])
@pytest.mark.parametrize('number', [0, -1, 1.5, True, None, '4'])
def test_bad_numbers(name, number):
    with pytest.raises(ValueError, match=f'{name}=.*: must be a whole number >= 1'):
        HOOKS.build({'type': 'KeepMapHook', name: number})


def test_name_is_registered():
    assert HOOKS.get('KeepMapHook') is KeepMapHook
