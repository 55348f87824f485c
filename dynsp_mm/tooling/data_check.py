"""Say in one sentence what is wrong with the data that a config names.

Runners report missing files and broken annotations from deep inside registries and workers.
:func:`find_data_problem` looks at the config instead: before anything is built only at what
exists, and, once something has failed, also into COCO annotation files.

What the entries of a dataset or metric mean is known of the libraries' classes. Classes of others
may take a pattern, a table or a list for a file, so they are built first, and a path counts as
missing only if that fails for want of it.
"""

import copy
import importlib.util
import os.path as osp
import shlex
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from mmengine.hooks import Hook
from mmengine.registry import DATASETS, METRICS, DefaultScope, Registry

from ..configuration import LIBRARIES, leaf_datasets
from ..configuration.types import find_type, is_type, type_name
from ..errors import UserError
from .coco_file import COCO_KEYS, summarise_coco

# Where a configured dataset type is the original, and not somebody's own data in its format.
DATASET_NAMES = {
    'CocoDataset': 'COCO 2017',
    'CocoPanopticDataset': 'COCO 2017',
    'LVISV1Dataset': 'LVIS v1',
    'VOCDataset': 'Pascal VOC',
    'CityscapesDataset': 'Cityscapes',
    'ADE20KDataset': 'ADE20K',
    'ImageNet': 'ImageNet-1k',
}
# Those of them that tools/prepare_data.py knows, and how it calls them.
PREPARED = {'COCO 2017': 'coco', 'ADE20K': 'ade20k', 'ImageNet-1k': 'imagenet'}
# mmpretrain downloads these itself, unless told not to.
SELF_DOWNLOADING = ('MNIST', 'FashionMNIST', 'CIFAR10', 'CIFAR100')
IMAGE_PREFIXES = ('img', 'img_path')  # mmdet; mmseg and mmpretrain
MASK_PREFIXES = ('seg', 'seg_map_path')


class Problem(NamedTuple):
    """What may be wrong with the data of a config.

    Attributes:
        text: One sentence.
        config: Config of the dataset or metric.
        registry: Its registry.
        whole: For a dataset, the config of the whole that it is a part of, such as a ConcatDataset.
        missing: A path that is not there, if the class may mean something else by it.
    """

    text: str
    config: dict[str, Any]
    registry: Registry
    whole: dict[str, Any] | None = None
    missing: str | None = None


def find_data_problem(cfg, splits=('train',), deep=False, confirm=None):
    """Find the first problem with the data of ``cfg``.

    Args:
        cfg (Config): A config with ``<split>_dataloader`` and, optionally, ``<split>_evaluator``.
        splits (Sequence[str]): Of 'train', 'val', 'test'; those the config lacks are skipped.
        deep (bool): Also read COCO annotation files and look for mask folders and images. Without
            it the check only asks whether data_root, annotation files and image folders exist.
        confirm (Callable): Function that says whether a problem counts; None counts all. It is
            called with the :class:`Problem`.

    Returns:
        str or None: One sentence which names path and config key; None if nothing was found.
        What is not on a local disk is not checked.
    """
    for problem in _problems(cfg, splits, deep):
        if confirm is None or confirm(problem):
            return problem.text
    return None


def _problems(cfg, splits, deep):
    """Yield the :class:`Problem` of each dataset and metric with one."""
    scope = cfg.get('default_scope')
    read = {}  # annotation path -> outcome; evaluators often name the file of their dataset
    for split in splits:
        datasets = list(_datasets(cfg, split))
        evaluators = list(_evaluators(cfg, split))
        # Submissions to a test server have no annotations.
        coco_keys = [
            key
            for key in COCO_KEYS
            if key != 'annotations'
            or not any(evaluator.get('format_only') for _, evaluator in evaluators)
        ]
        for key, dataset in datasets:
            chain = _chain(cfg, key)
            known = all(_is_known(config, DATASETS, scope) for config in chain)
            missing = text = None
            if known or deep:
                missing = _missing_path(cfg, splits, key, dataset)
            if not missing and deep:
                missing = _missing_folder('mask folder', key, dataset, scope, MASK_PREFIXES)
                text = _coco_problem(key, dataset, dataset, scope, coco_keys, read)
            if missing or text:
                yield _problem(missing, text, known, dataset, DATASETS, chain[0])
        if deep and split == 'train':
            yield from _nothing_to_train_on(cfg, datasets, scope, read)
        for key, evaluator in evaluators:
            known = _is_known(evaluator, METRICS, scope)
            missing = text = None
            if known or deep:
                missing = _missing_ann_file(key, evaluator, scope)
            if not missing and deep and datasets:
                text = _coco_problem(key, evaluator, datasets[0][1], scope, coco_keys, read)
            if missing or text:
                yield _problem(missing, text, known, evaluator, METRICS)


def _problem(missing, text, known, *what):
    """A problem of something missing, or of another kind."""
    if missing:
        return Problem(missing.text, *what)._replace(missing=None if known else missing.path)
    return Problem(text, *what)


class _Missing(NamedTuple):
    """A path that is not there, and the sentence on it."""

    text: str
    path: str


def _is_known(config, registry, scope):
    """Whether a class is the libraries' own, so that its entries mean what they mean there."""
    found = find_type(config, registry, scope)
    if found is None:  # it cannot be built, but it may be of a library that is not the scope
        installed = [name for name in LIBRARIES if importlib.util.find_spec(name)]
        others = (find_type(type_name(config), registry, name) for name in installed)
        found = next(filter(None, others), None)
    return str(getattr(found, '__module__', '')).partition('.')[0] in ('mmengine', *LIBRARIES)


@contextmanager
def explain_data_errors(cfg, splits=('train',)):
    """Context in which an exception caused by broken data becomes a :class:`UserError`.

    Yields a hook; registered with the runner, it ends the watch when the first batch is loaded,
    so that annotation files are read a second time only when a run has failed to start. What the
    deep check finds explains the failure only if that dataset or metric fails by itself, too.
    Otherwise the exception passes unchanged.
    """
    first_iteration = _FirstIteration()
    try:
        yield first_iteration
    except UserError:
        raise
    except Exception as error:
        problem = None
        if not first_iteration.passed:
            # The error at hand matters more than why it could not be explained.
            with suppress(Exception):
                problem = find_data_problem(cfg, splits, deep=True, confirm=_FailsAlone(cfg))
        if problem is None:
            raise
        raise UserError(problem) from error


class _FailsAlone:
    """Says of a dataset or metric whether it fails without the rest of the run.

    Args:
        cfg (Config): The config that has it.
    """

    def __init__(self, cfg):
        self.scope = cfg.get('default_scope')

    def __call__(self, problem):
        registry = problem.registry
        try:
            with DefaultScope.overwrite_default_scope(self.scope):
                # What a class of a user gives to those in it, only the whole knows.
                config = (problem.missing and problem.whole) or problem.config
                built = registry.build(copy.deepcopy(config))
                if registry is DATASETS:
                    if not len(built):  # one that has no item is sound beside others
                        built = registry.build(copy.deepcopy(problem.whole))
                    built[0]
        except Exception as error:  # datasets raise whatever they trip over
            return problem.missing is None or problem.missing in str(error)
        return False


class _FirstIteration(Hook):
    """Remembers whether any loop has begun an iteration, that is, has loaded a batch."""

    passed = False

    def _before_iter(self, runner, batch_idx, data_batch=None, mode='train'):
        self.passed = True


def _datasets(cfg, split):
    """Yield (config key, config) of the split's innermost datasets."""
    for key, loader in _with_keys(cfg.get(f'{split}_dataloader'), f'{split}_dataloader'):
        yield from leaf_datasets(loader.get('dataset'), f'{key}.dataset')


def _chain(cfg, key):
    """Configs from the outermost dataset around that of a key to its own, without lists."""
    outer, _, inner = key.partition('.dataset')
    config, found = cfg, []
    for name in [*outer.split('.'), 'dataset', *inner.split('.')[1:]]:
        config = config[int(name) if isinstance(config, (list, tuple)) else name]
        found.append(config)
    return [item for item in found[len(outer.split('.')) :] if isinstance(item, dict)]


def _evaluators(cfg, split):
    """Yield (config key, config) of the split's metrics."""
    for key, evaluator in _with_keys(cfg.get(f'{split}_evaluator'), f'{split}_evaluator'):
        if 'metrics' in evaluator:
            yield from _with_keys(evaluator['metrics'], f'{key}.metrics')
        else:
            yield key, evaluator


def _with_keys(value, key):
    """Yield (key, item) for a config or each of a list of configs; skips built objects."""
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _with_keys(item, f'{key}.{i}')
    elif isinstance(value, dict):
        yield key, value


def _is_local(path, *cfgs):
    backends = [cfg.get(name) for cfg in cfgs for name in ('backend_args', 'file_client_args')]
    return '://' not in path and all(
        (args or {}).get('backend', 'local') in ('local', 'disk') for args in backends
    )


def _images_local(folder, dataset):
    """Images may be remote where annotations are not: ask the transforms that read them, too."""
    steps = [step for step in dataset.get('pipeline') or () if isinstance(step, dict)]
    return _is_local(folder, dataset, *steps)


def _join(root, path, scope):
    """Join as the libraries do; only mmpretrain expands '~'."""
    return osp.join(root or '', osp.expanduser(path) if scope == 'mmpretrain' else path)


def _prefixes(dataset, names=IMAGE_PREFIXES):
    """Yield (name, value) of those of the dataset's ``data_prefix`` entries that are set."""
    prefix = dataset.get('data_prefix') or {}
    if isinstance(prefix, str):
        prefix = {'img_path': prefix}
    for name in names:
        if isinstance(prefix.get(name), str):
            yield name, prefix[name]


def _missing_path(cfg, splits, key, dataset):
    """Existence of data_root, annotation file and image folder of one dataset."""
    scope = cfg.get('default_scope')
    if type_name(dataset) in SELF_DOWNLOADING and dataset.get('download', True):
        return None
    root = dataset.get('data_root') or ''
    paths = [path for _, path in _prefixes(dataset, IMAGE_PREFIXES + MASK_PREFIXES)]
    if isinstance(dataset.get('ann_file'), str) and dataset['ann_file']:
        paths.append(dataset['ann_file'])
    # Absolute paths leave data_root without a meaning.
    root_used = not paths or any(
        '://' not in path and not osp.isabs(_join('', path, scope)) for path in paths
    )
    if root and root_used and _is_local(root, dataset) and not osp.isdir(root):
        return _missing_root(cfg, splits, key, dataset)
    return _missing_ann_file(key, dataset, scope) or _missing_folder(
        'image folder', key, dataset, scope
    )


def _missing_root(cfg, splits, key, dataset):
    """The sentence on a missing data_root, with every option that has to name the new place."""
    root = dataset['data_root']
    options = []
    for split in splits:
        options += [
            f'{other}.data_root=DIR'
            for other, config in _datasets(cfg, split)
            if config.get('data_root') == root
        ]
        for other, config in _evaluators(cfg, split):
            ann_file = config.get('ann_file')
            if isinstance(ann_file, str) and ann_file.startswith(root):
                options.append(f'{other}.ann_file=DIR/{ann_file[len(root) :].lstrip("/")}')
    own_classes = (dataset.get('metainfo') or {}).get('classes') is not None
    name = 'the data set' if own_classes else DATASET_NAMES.get(type_name(dataset), 'the data set')
    hint = ''
    if name in PREPARED:
        hint = (
            f' (python tools/prepare_data.py {PREPARED[name]} --root {shlex.quote(root)} says how)'
        )
    return _Missing(
        f'data directory {osp.abspath(root)} is missing ({key}.data_root={root!r}): download '
        f'{name} there{hint} or pass --cfg-options {" ".join(options)}',
        root,
    )


def _missing_ann_file(key, config, scope):
    """The annotation file(s) of a dataset or metric; mmseg and mmdet also take folders."""
    files = config.get('ann_file')
    for value in files if isinstance(files, (list, tuple)) else [files]:
        if not isinstance(value, str) or not value:
            continue
        path = _join(config.get('data_root'), value, scope)
        if _is_local(path, config) and not osp.exists(path):
            return _missing('annotation file', path, key, 'ann_file', value)
    return None


def _missing_folder(what, key, dataset, scope, names=IMAGE_PREFIXES):
    for name, value in _prefixes(dataset, names):
        folder = _join(dataset.get('data_root'), value, scope)
        if folder and _images_local(folder, dataset) and not osp.isdir(folder):
            return _missing(what, folder, f'{key}.data_prefix', name, value)
    return None


def _missing(what, path, key, name, value):
    return _Missing(f'{what} {osp.abspath(path)} is missing ({key}.{name}={value!r})', path)


def _coco_problem(key, config, dataset, scope, coco_keys, read):
    """What is wrong inside the COCO file of a dataset or of a metric on that dataset.

    Args:
        key (str): Dotted key of ``config``, for the message.
        config (ConfigDict): The config with the ``ann_file``.
        dataset (ConfigDict): The one with classes and images; of a dataset the same.
        scope (str): Library whose registries know the types.
        coco_keys (list[str]): What the file must hold.
        read (dict): Outcomes of files already read, extended here.
    """
    path = config.get('ann_file')
    base, registry = ('CocoDataset', DATASETS) if config is dataset else ('CocoMetric', METRICS)
    if not isinstance(path, str) or not is_type(config, [base], registry, scope):
        return None
    path = _join(config.get('data_root'), path, scope)
    if not _is_local(path, config) or not osp.isfile(path):
        return None
    if path not in read:
        read[path] = summarise_coco(path)
    coco, problem = read[path]
    where = f'annotation file {osp.abspath(path)} ({key}.ann_file)'
    if problem:
        return f'{where} {problem}'
    lacking = [name for name in coco_keys if name not in coco['keys']]
    if lacking:
        return (
            f'{where} lacks {", ".join(map(repr, lacking))}; it must hold the lists '
            f'{", ".join(coco_keys)}'
        )
    problem = _class_problem(where, coco, dataset, scope)
    if not problem and config is dataset:
        problem = _image_problem(where, coco, dataset, scope)
    return problem


def _nothing_to_train_on(cfg, datasets, scope, read):
    """Yield the problems of annotation files of a training that hold not one annotation.

    Those are background images where another dataset has some and the filter lets them through.
    """
    contents = {
        key: read.get(_join(dataset.get('data_root'), dataset.get('ann_file'), scope), (None,))[0]
        for key, dataset in datasets
        if isinstance(dataset.get('ann_file'), str)
    }
    # Of what was not read nobody knows.
    nothing = len(contents) == len(datasets) and not any(
        content is None or content['num_annotations'] for content in contents.values()
    )
    for key, dataset in datasets:
        content = contents.get(key)
        if content is None or content['num_annotations']:
            continue
        path = osp.abspath(_join(dataset.get('data_root'), dataset['ann_file'], scope))
        problem = (
            f'annotation file {path} ({key}.ann_file) holds {content["num_images"]} images and no '
            'annotation: '
        )
        if nothing:
            problem += 'there is nothing to train on'
        elif (dataset.get('filter_cfg') or {}).get('filter_empty_gt'):
            problem += (
                f'{key}.filter_cfg.filter_empty_gt=True takes all of them out, and False keeps '
                'them as background'
            )
        else:
            continue
        yield Problem(problem, dataset, DATASETS, _chain(cfg, key)[0])


def _class_problem(where, coco, dataset, scope):
    """Classes of which the file knows none, which leaves a dataset without a single object."""
    classes = (dataset.get('metainfo') or {}).get('classes')
    source = 'metainfo.classes'
    if classes is None:
        classes = getattr(find_type(dataset, DATASETS, scope), 'METAINFO', {}).get('classes')
        source = f'the default classes of {type_name(dataset)}'
    if isinstance(classes, str):
        if not osp.isfile(classes):  # neither a tuple nor a file with a class per line
            return f'metainfo.classes={classes!r} is one string; write classes=({classes!r},)'
        with open(classes, encoding='utf-8') as file:
            classes = file.read().splitlines()
    if not classes or set(classes) & set(coco['names']):
        return None
    return (
        f'{where} has none of {source} ({_some(classes)}) among its categories '
        f'({_some(coco["names"])})'
    )


def _some(names):
    return ', '.join(map(str, names[:5])) + (', ...' if len(names) > 5 else '')


def _image_problem(where, coco, dataset, scope):
    """The first image that the file lists; one look suffices to see a wrong folder."""
    if not isinstance(coco['file_name'], str):
        return None
    for _, value in _prefixes(dataset):
        folder = _join(dataset.get('data_root'), value, scope)
        image = osp.join(folder, coco['file_name'])
        if _images_local(folder, dataset) and not osp.isfile(image):
            return (
                f'{where} lists {coco["file_name"]}, which is not in the image folder '
                f'{osp.abspath(folder)}'
            )
    return None
