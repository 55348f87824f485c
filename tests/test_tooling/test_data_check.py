import copy
import glob
import importlib.util
import json

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS

from dynsp_mm.tooling.data_check import explain_data_errors, find_data_problem
from dynsp_mm.tooling.options import UserError

COCO = dict(
    images=[dict(id=1, file_name='a.jpg', width=2, height=2)],
    annotations=[dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 1, 1])],
    categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
)


@pytest.fixture
def root(tmp_path):
    """A data directory with COCO annotations, one image and a mask folder."""
    root = tmp_path / 'coco'
    (root / 'train').mkdir(parents=True)
    (root / 'masks').mkdir()
    (root / 'train' / 'a.jpg').touch()
    (root / 'ann.json').write_text(json.dumps(COCO))
    return root


def make_dataset(root, **entries):
    return dict(
        dict(
            type='CocoDataset',
            data_root=str(root),
            ann_file='ann.json',
            data_prefix=dict(img='train/'),
            metainfo=dict(classes=('cat',)),
        ),
        **entries,
    )


def make(dataset, split='train', evaluator=None, scope='mmdet'):
    return Config(
        {
            'default_scope': scope,
            f'{split}_dataloader': dict(dataset=dataset),
            f'{split}_evaluator': evaluator,
        }
    )


def wrap(dataset):
    return dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(type='ConcatDataset', datasets=[make_dataset(dataset['data_root']), dataset]),
    )


def check_train(dataset, deep=False, **kwargs):
    return find_data_problem(make(dataset, **kwargs), deep=deep)


def write_ann(root, content):
    (root / 'ann.json').write_text(content if isinstance(content, str) else json.dumps(content))


# existence


def test_sound_data(root):
    for deep in (False, True):
        assert check_train(make_dataset(root), deep) is None
        assert check_train(wrap(make_dataset(root)), deep) is None
    assert find_data_problem(make(make_dataset(root)), ('train', 'val', 'test')) is None
    assert find_data_problem({}) is None


@pytest.mark.parametrize('deep', [False, True])
def test_missing_data_root(tmp_path, deep):
    root = f'{tmp_path}/none/'
    dataset = make_dataset(root)
    start = (
        f'data directory {tmp_path}/none is missing (train_dataloader.dataset.data_root='
        f"'{root}'): download "
    )
    option = 'or pass --cfg-options train_dataloader.dataset.data_root=DIR'
    hint = f'there (python tools/prepare_data.py %s --root {root} says how) {option}'
    assert check_train(dataset, deep) == f'{start}the data set there {option}'
    del dataset['metainfo']
    assert check_train(dataset, deep) == f'{start}COCO 2017 {hint % "coco"}'
    assert f'{start}ADE20K {hint % "ade20k"}' == check_train(
        dict(type='ADE20KDataset', data_root=root, data_prefix=dict(img_path='a')), deep
    )
    assert f'{start}ImageNet-1k {hint % "imagenet"}' == check_train(
        dict(type='mmpretrain.ImageNet', data_root=root, split='train'), deep
    )


def test_missing_data_root_names_every_option_to_pass(tmp_path):
    root = f'{tmp_path}/none/'
    cfg = make(
        dict(
            type='ConcatDataset',
            datasets=[dict(type='A', data_root='/', ann_file=''), make_dataset(root)],
        )
    )
    cfg.val_dataloader = dict(dataset=make_dataset(root))
    cfg.val_evaluator = [
        dict(type='Other'),
        dict(type='CocoMetric', ann_file=f'{root}annotations/val.json'),
    ]
    text = find_data_problem(cfg, ('train', 'val'))
    assert text.endswith(
        'pass --cfg-options train_dataloader.dataset.datasets.1.data_root=DIR '
        'val_dataloader.dataset.data_root=DIR val_evaluator.1.ann_file=DIR/annotations/val.json'
    )


def test_unused_data_root_may_be_missing(root):
    dataset = make_dataset(
        '/no/such/root', ann_file=f'{root}/ann.json', data_prefix=dict(img=f'{root}/train')
    )
    assert check_train(dataset) is None
    assert (
        check_train(
            dict(
                type='ADE20KDataset',
                data_root='/no/such/root',
                data_prefix=dict(img_path=f'{root}/train', seg_map_path=f'{root}/masks'),
            ),
            scope='mmseg',
        )
        is None
    )
    dataset['data_prefix'] = dict(img='')
    assert 'data directory /no/such/root is missing' in check_train(dataset)


def test_missing_annotation_file(root):
    for ann_file in ('no.json', f'{root}/no.json', ['ann.json', 'no.json']):
        text = check_train(make_dataset(root, ann_file=ann_file))
        assert text.startswith(
            f'annotation file {root}/no.json is missing (train_dataloader.dataset.ann_file='
        )


def test_missing_image_folder(root):
    assert check_train(make_dataset(root, data_prefix=dict(img='val/'))) == (
        f"image folder {root}/val is missing (train_dataloader.dataset.data_prefix.img='val/')"
    )
    for prefix in ('val', dict(img_path='val')):  # mmpretrain takes a string, too
        text = check_train(
            dict(type='CustomDataset', data_root=str(root), data_prefix=prefix), scope='mmpretrain'
        )
        assert text == (
            f'image folder {root}/val is missing '
            "(train_dataloader.dataset.data_prefix.img_path='val')"
        )


def test_relative_paths_start_at_the_current_directory(root, monkeypatch):
    monkeypatch.chdir(root)
    dataset = make_dataset('', data_prefix=dict(img='val'))
    assert check_train(dataset).startswith(f'image folder {root}/val is missing')
    assert check_train(make_dataset('')) is None


def test_only_mmpretrain_expands_the_home_directory(root, monkeypatch):
    monkeypatch.setenv('HOME', str(root))
    dataset = dict(type='CustomDataset', data_prefix='~/train', ann_file='~/ann.json')
    assert check_train(dataset, scope='mmpretrain') is None
    assert 'annotation file' in check_train(dataset, scope='mmdet')


def test_wrapped_datasets_are_named_by_their_key(root):
    text = check_train(wrap(make_dataset(root, ann_file='no.json')))
    assert '(train_dataloader.dataset.dataset.datasets.1.ann_file=' in text


def test_splits(root):
    cfg = make(make_dataset(root, ann_file='no.json'), 'val')
    assert find_data_problem(cfg) is None
    assert 'val_dataloader.dataset.ann_file' in find_data_problem(cfg, ('train', 'val'))
    cfg.val_dataloader = [dict(dataset=make_dataset(root)), cfg.val_dataloader]
    assert 'val_dataloader.1.dataset.ann_file' in find_data_problem(cfg, ('val',))


def test_what_is_not_local_is_not_checked(root):
    remote = dict(backend='petrel')
    for dataset in (
        make_dataset('s3://bucket/coco/'),
        make_dataset('/no/such', backend_args=remote),
        make_dataset('/no/such', file_client_args=remote),
        make_dataset(root, ann_file='https://host/ann.json'),
        make_dataset('/no/such', ann_file='s3://ann.json', data_prefix=dict(img='s3://a')),
        make_dataset(
            root,
            data_prefix=dict(img='no'),
            pipeline=[dict(type='LoadImageFromFile', backend_args=remote)],
        ),
    ):
        for deep in (False, True):
            assert check_train(dataset, deep) is None
    for backend_args in (None, dict(backend='local'), {}):
        assert 'is missing' in check_train(make_dataset('/no/such', backend_args=backend_args))


def test_datasets_that_download_themselves():
    dataset = dict(type='CIFAR10', data_root='/no/such')
    assert check_train(dataset, scope='mmpretrain') is None
    dataset['download'] = False
    assert 'data directory' in check_train(dataset, scope='mmpretrain')


@pytest.mark.parametrize(
    'form, key',
    [
        (lambda metric: metric, 'val_evaluator'),
        (lambda metric: [dict(type='Other'), metric], 'val_evaluator.1'),
        (lambda metric: dict(type='Evaluator', metrics=[metric]), 'val_evaluator.metrics.0'),
    ],
)
def test_evaluators(root, form, key):
    metric = dict(type='CocoMetric', ann_file=f'{root}/no.json')
    cfg = make(make_dataset(root), 'val', form(metric))
    assert find_data_problem(cfg, ('val',)) == (
        f"annotation file {root}/no.json is missing ({key}.ann_file='{root}/no.json')"
    )
    metric['backend_args'] = dict(backend='petrel')
    assert find_data_problem(make(make_dataset(root), 'val', form(metric)), ('val',)) is None


# contents


def test_not_json(root):
    write_ann(root, '{"images": [],\n "annotations" []}')
    text = check_train(make_dataset(root), deep=True)
    assert text == (
        f'annotation file {root}/ann.json (train_dataloader.dataset.ann_file) is not '
        "JSON: line 2, column 16: Expecting ':' delimiter"
    )
    assert check_train(make_dataset(root)) is None
    (root / 'ann.json').write_bytes(b'\x89PNG')
    assert 'is not JSON: byte 0 is no UTF-8 text' in check_train(make_dataset(root), deep=True)
    write_ann(root, '')
    assert 'line 1, column 1' in check_train(make_dataset(root), deep=True)


def test_not_coco(root):
    write_ann(root, [COCO])
    assert check_train(make_dataset(root), deep=True).endswith(
        'is not in COCO format: its top level is a list, not an object with images, annotations, '
        'categories'
    )


@pytest.mark.parametrize(
    'lacking', [['images'], ['annotations'], ['categories'], ['annotations', 'categories']]
)
def test_lacking_lists(root, lacking):
    write_ann(root, {key: value for key, value in COCO.items() if key not in lacking})
    assert check_train(wrap(make_dataset(root)), deep=True) == (
        f'annotation file {root}/ann.json (train_dataloader.dataset.dataset.datasets.0.ann_file) '
        f'lacks {", ".join(map(repr, lacking))}; it must hold the lists images, annotations, '
        'categories'
    )


def test_submissions_need_no_annotations(root):
    write_ann(root, dict(COCO, annotations=None))
    cfg = json.loads((root / 'ann.json').read_text())
    del cfg['annotations']
    write_ann(root, cfg)
    metric = dict(type='CocoMetric', ann_file=f'{root}/ann.json')
    cfg = make(make_dataset(root), 'test', metric)
    assert "lacks 'annotations'" in find_data_problem(cfg, ('test',), deep=True)
    cfg.test_evaluator.format_only = True
    assert find_data_problem(cfg, ('test',), deep=True) is None


def test_nothing_to_train_on(root):
    write_ann(root, dict(COCO, annotations=[]))
    problem = check_train(make_dataset(root), deep=True)
    assert problem.endswith('1 images and no annotation: there is nothing to train on')
    assert find_data_problem(make(make_dataset(root), 'test'), ('test',), deep=True) is None


def test_no_common_class(root):
    dataset = make_dataset(root, metainfo=dict(classes=('person', 'car')))
    assert check_train(dataset, deep=True) == (
        f'annotation file {root}/ann.json (train_dataloader.dataset.ann_file) has none of '
        'metainfo.classes (person, car) among its categories (cat, dog)'
    )
    dataset['metainfo'] = dict(classes=tuple('abcdefg'))
    assert '(a, b, c, d, e, ...)' in check_train(dataset, deep=True)
    dataset['metainfo'] = dict(classes=('person', 'dog'))  # one suffices
    assert check_train(dataset, deep=True) is None


def test_classes_given_as_string(root):
    dataset = make_dataset(root, metainfo=dict(classes='cat'))
    assert check_train(dataset, deep=True) == (
        "metainfo.classes='cat' is one string; write classes=('cat',)"
    )
    names = root / 'names.txt'
    dataset['metainfo'] = dict(classes=str(names))
    names.write_text('bird\ndog\n')
    assert check_train(dataset, deep=True) is None
    names.write_text('bird\n')
    assert 'metainfo.classes (bird)' in check_train(dataset, deep=True)


@pytest.fixture
def coco_classes(monkeypatch):
    """A CocoDataset, one derived from it and another one, in mmengine's root registry."""

    class CocoDataset:
        METAINFO = dict(classes=('person', 'car'))

    class MyCoco(CocoDataset):
        pass

    class Lines:
        pass

    for kind in (CocoDataset, MyCoco, Lines):
        monkeypatch.setitem(DATASETS.module_dict, kind.__name__, kind)
    return MyCoco


def test_derived_datasets_and_default_classes(root, coco_classes):
    kwargs = dict(deep=True, scope='mmengine')
    for kind in ('MyCoco', coco_classes):
        dataset = make_dataset(root, type=kind, metainfo=None)
        assert (
            'has none of the default classes of MyCoco (person, car) among its categories '
            '(cat, dog)'
        ) in check_train(dataset, **kwargs)
        assert check_train(make_dataset(root, type=kind), **kwargs) is None
    write_ann(root, 'a.jpg 0\n')  # a format of its own
    assert check_train(make_dataset(root, type='Lines'), **kwargs) is None
    assert check_train(make_dataset(root, type='NotRegistered'), **kwargs) is None


@pytest.mark.skipif(importlib.util.find_spec('mmdet') is None, reason='mmdet is not installed')
def test_default_classes_of_mmdet(root):
    dataset = make_dataset(root)
    del dataset['metainfo']
    write_ann(root, dict(COCO, categories=[dict(id=1, name='nucleus')]))
    for kind, first in (('CocoDataset', 'person'), ('LVISV1Dataset', 'aerosol_can')):
        dataset['type'] = kind
        assert f'none of the default classes of {kind} ({first}, ' in check_train(
            dataset, deep=True
        )
    dataset['type'] = 'XMLDataset'
    assert check_train(dataset, deep=True) is None


def test_images_that_the_folder_lacks(root):
    write_ann(root, dict(COCO, images=[dict(id=1, file_name='b.jpg')]))
    assert check_train(make_dataset(root), deep=True) == (
        f'annotation file {root}/ann.json (train_dataloader.dataset.ann_file) lists b.jpg, which '
        f'is not in the image folder {root}/train'
    )


def test_missing_mask_folder(root):
    for name in ('seg', 'seg_map_path'):
        dataset = dict(type='ADE20KDataset', data_root=str(root), data_prefix={name: 'no'})
        assert check_train(dataset) is None  # only harmful if the pipeline loads masks
        assert check_train(dataset, deep=True) == (
            f"mask folder {root}/no is missing (train_dataloader.dataset.data_prefix.{name}='no')"
        )
        dataset['data_prefix'] = {name: 'masks'}
        assert check_train(dataset, deep=True) is None


def test_evaluator_contents(root):
    (root / 'val.json').write_text(json.dumps(dict(COCO, categories=[dict(id=1, name='ox')])))
    metric = dict(type='CocoMetric', ann_file=f'{root}/val.json')
    cfg = make(make_dataset(root), 'val', metric)
    assert find_data_problem(cfg, ('val',), deep=True) == (
        f'annotation file {root}/val.json (val_evaluator.ann_file) has none of metainfo.classes '
        '(cat) among its categories (ox)'
    )
    (root / 'val.json').write_text('no')
    assert 'val.json (val_evaluator.ann_file) is not JSON' in find_data_problem(
        cfg, ('val',), deep=True
    )
    cfg.val_evaluator.type = 'SomeOtherMetric'
    assert METRICS.get('SomeOtherMetric') is None
    assert find_data_problem(cfg, ('val',), deep=True) is None


def test_a_file_is_read_once(root, monkeypatch):
    import dynsp_mm.tooling.data_check as module

    paths = []
    read = module.summarise_coco
    monkeypatch.setattr(module, 'summarise_coco', lambda path: paths.append(path) or read(path))
    metric = dict(type='CocoMetric', ann_file=f'{root}/ann.json')
    cfg = make(wrap(make_dataset(root)), 'val', metric)
    assert find_data_problem(cfg, ('val',)) is None and not paths
    assert find_data_problem(cfg, ('val',), deep=True) is None
    assert paths == [f'{root}/ann.json']


def test_the_config_stays_as_it_is(root):
    cfg = make(wrap(make_dataset(root)), 'val', dict(type='CocoMetric', ann_file='no'))
    before = copy.deepcopy(cfg.to_dict())
    find_data_problem(cfg, ('val',), deep=True)
    assert cfg.to_dict() == before


# explaining


def test_explains_an_early_failure(root):
    write_ann(root, '[')
    original = RuntimeError('class `CocoDataset` in mmdet/datasets/coco.py: oops')
    with pytest.raises(UserError, match='is not JSON: line 1, column 2') as caught:
        with explain_data_errors(make(make_dataset(root))):
            raise original
    assert caught.value.__cause__ is original


@pytest.mark.parametrize('error', [RuntimeError('oops'), KeyboardInterrupt(), UserError('known')])
def test_passes_other_failures_on(root, error):
    if not isinstance(error, RuntimeError):
        write_ann(root, '[')
    with pytest.raises(type(error)) as caught:
        with explain_data_errors(make(make_dataset(root))):
            raise error
    assert caught.value is error and error.__cause__ is None


@pytest.mark.parametrize('mode', ['train', 'val', 'test'])
def test_stops_watching_at_the_first_iteration(root, mode):
    write_ann(root, '[')
    with pytest.raises(RuntimeError, match='out of memory'):
        with explain_data_errors(make(make_dataset(root))) as first_iteration:
            getattr(first_iteration, f'before_{mode}_iter')(None, 0, data_batch={})
            raise RuntimeError('out of memory')


def test_a_failing_check_does_not_hide_the_failure(root):
    write_ann(root, dict(COCO, images=7))
    original = RuntimeError('oops')
    with pytest.raises(RuntimeError) as caught:
        with explain_data_errors(make(make_dataset(root))):
            raise original
    assert caught.value is original


def test_no_failure(root):
    with explain_data_errors(make(make_dataset(root))):
        pass


# blaming


def background(root, **entries):
    """Objects, and in a file of their own images without any."""
    (root / 'none.json').write_text(json.dumps(dict(COCO, annotations=[])))
    one = make_dataset(root, pipeline=[], lazy_init=False)
    none = dict(one, ann_file='none.json', **entries)
    return dict(type='ConcatDataset', datasets=[one, none])


@pytest.mark.parametrize('empty', [True, False, None])
def test_background_images_are_sound_beside_others(root, empty):
    """If the filter lets them through."""
    dataset = background(root, filter_cfg=dict(filter_empty_gt=empty))
    problem = check_train(dataset, deep=True)
    if empty:
        assert 'none.json (train_dataloader.dataset.datasets.1.ann_file) holds 1 images' in problem
        assert 'datasets.1.filter_cfg.filter_empty_gt=True takes all of them out' in problem
    else:
        assert problem is None
    dataset['datasets'].pop(0)
    assert 'there is nothing to train on' in check_train(dataset, deep=True)


def failing(dataset, error, **kwargs):
    """What an error that ends a run with a dataset becomes."""
    with pytest.raises(Exception) as caught:
        with explain_data_errors(make(dataset, **kwargs)):
            raise error
    return caught.value


@pytest.mark.parametrize('error', [TypeError('SGD'), RuntimeError('out of memory'), KeyError('x')])
def test_data_that_works_alone_is_not_blamed(root, error):
    """Whatever looks odd in it."""
    pytest.importorskip('mmdet')
    for dataset in (
        background(root, filter_cfg=dict(filter_empty_gt=False)),
        make_dataset(root, ann_file='none.json', filter_cfg=dict(filter_empty_gt=False)),
        background(root, metainfo=dict(classes=('person',))),
    ):
        pipelines = dataset.get('datasets', [dataset])
        for part in pipelines:
            part['pipeline'] = []
        if pipelines[-1]['metainfo']['classes'] == ('person',):
            pipelines[0]['metainfo'] = dict(classes=('person', 'cat'))
            dataset['ignore_keys'] = ['classes']
        assert failing(dataset, error) is error


def test_data_that_fails_alone_is_blamed(root):
    pytest.importorskip('mmdet')
    error = RuntimeError('a worker died')
    empty = make_dataset(root, ann_file='none.json', filter_cfg=dict(filter_empty_gt=True))
    background(root)
    assert 'there is nothing to train on' in str(failing(empty, error))
    torn = background(root)
    (root / 'none.json').write_text('{')
    text = str(failing(torn, error))
    assert 'none.json (train_dataloader.dataset.datasets.1.ann_file) is not JSON' in text


def test_metrics_are_asked_like_data(root):
    pytest.importorskip('mmdet')
    (root / 'val.json').write_text('{')
    metric = dict(type='CocoMetric', ann_file=f'{root}/val.json')
    error = RuntimeError('oops')
    cfg = make(make_dataset(root, pipeline=[]), 'val', metric)
    with pytest.raises(UserError, match='val.json .* is not JSON'):
        with explain_data_errors(cfg, ('val',)):
            raise error


# classes of users


@pytest.fixture
def own_classes(monkeypatch):
    """Classes of a user: a dataset whose file is a pattern, two like COCO, a wrapper, a metric."""
    datasets = pytest.importorskip('mmdet.datasets')

    class Pattern(datasets.BaseDetDataset):
        def load_data_list(self):
            return [dict(img_path=path, instances=[]) for path in sorted(glob.glob(self.ann_file))]

    class OwnCoco(datasets.CocoDataset):
        pass

    class Renamed(datasets.CocoDataset):
        def __init__(self, ann_file, **kwargs):
            super().__init__(ann_file=f'{ann_file}.json', **kwargs)

    class Wrapper:
        def __init__(self, dataset):
            self.inner = DATASETS.build({**dataset, 'ann_file': 'ann.json'})

        def __len__(self):
            return len(self.inner)

        def __getitem__(self, index):
            return self.inner[index]

    class Table:
        def __init__(self, ann_file):
            pass

    for kind in (Pattern, OwnCoco, Renamed, Wrapper):
        monkeypatch.setitem(DATASETS.module_dict, kind.__name__, kind)
    monkeypatch.setitem(METRICS.module_dict, 'Table', Table)


def test_entries_of_classes_of_users_are_not_judged(root, own_classes):
    error = RuntimeError('out of memory')
    for dataset in (
        dict(type='Pattern', ann_file=f'{root}/*/*.jpg', pipeline=[]),
        make_dataset(root, type='Renamed', ann_file='ann', pipeline=[]),
        dict(type='Wrapper', dataset=make_dataset(root, ann_file='table', pipeline=[])),
    ):
        assert check_train(dataset) is None
        assert failing(dataset, error) is error
    pattern = dict(type='Pattern', ann_file='a,b')
    assert check_train(dict(type='RepeatDataset', times=2, dataset=pattern)) is None
    assert check_train(dict(ann_file='of no type')) is None
    cfg = make(make_dataset(root), 'val', dict(type='Table', ann_file='sql:results'))
    assert find_data_problem(cfg, ('val',)) is None


def test_a_path_that_a_class_of_a_user_lacks_explains_its_failure(root, own_classes):
    error = FileNotFoundError('in a worker')
    for entries, text in (
        (dict(ann_file='no.json'), f'annotation file {root}/no.json is missing'),
        (dict(data_root='/no/such'), 'data directory /no/such is missing'),
    ):
        dataset = make_dataset(root, type='OwnCoco', **entries)
        assert check_train(dataset) is None
        assert text in str(failing(dataset, error))
    # It works, and is not the cause.
    assert failing(make_dataset(root, type='Renamed', ann_file='ann', pipeline=[]), error) is error
