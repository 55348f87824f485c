"""What becomes of predictions: painted, shown, pickled, averaged over test-time augmentations."""

import os
import os.path as osp
import sys

from mmengine.config import ConfigDict

from ..configuration import LIBRARIES, leaf_datasets
from ..configuration.types import library_of
from ..errors import UserError
from .options import require


def add_prediction_options(parser):
    """Add ``--out``, ``--show``, ``--show-dir``, ``--wait-time`` and ``--tta``."""
    parser.add_argument('--out', metavar='FILE.pkl', help='pickle all predictions to this file')
    parser.add_argument('--show', action='store_true', help='show each painted image in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='save the painted images under DIR')
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2.0,
        metavar='SECONDS',
        help='how long --show leaves a window open (default: %(default)s)',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation by the config's tta_model and tta_pipeline",
    )


def enable_visualization(cfg, show=False, show_dir=None, wait_time=2.0):
    """Make the library's visualization hook paint predictions in windows and/or into files.

    Args:
        cfg (Config): The complete config.
        show (bool): Open a window per image.
        show_dir (str, optional): Directory of the painted images, relative to the current one.
        wait_time (float): Seconds that a window stays.
    """
    if not show and show_dir is None:
        return
    option = '--show' if show else '--show-dir'
    scope = library_of(cfg)
    if scope not in LIBRARIES:
        raise UserError(
            f'{cfg.filename}: {option} works with {", ".join(LIBRARIES)}; '
            f'got default_scope={scope!r}'
        )
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        hook_type = dict(
            mmdet='DetVisualizationHook',
            mmseg='SegVisualizationHook',
            mmpretrain='VisualizationHook',
        )[scope]
        raise UserError(
            f'{cfg.filename}: {option} needs a visualization hook: '
            f"default_hooks = dict(visualization=dict(type='{hook_type}'))"
        )
    displays = ('DISPLAY', 'WAYLAND_DISPLAY', 'MPLBACKEND')
    if show and sys.platform == 'linux' and not any(os.environ.get(name) for name in displays):
        raise UserError('--show opens windows, but DISPLAY is not set; use --show-dir DIR')

    hook['enable' if scope == 'mmpretrain' else 'draw'] = True
    if show:
        hook.update(show=True, wait_time=wait_time)
    if scope == 'mmpretrain':
        hook.interval = 1  # its default paints every 5000th image
    if show_dir is None:
        return
    # mmdet puts a relative path under work_dir/<timestamp>; an absolute one means the same to all.
    show_dir = osp.abspath(show_dir)
    if scope == 'mmseg':
        require(cfg, 'visualizer')
        if show:
            raise UserError(
                '--show and --show-dir exclude each other with mmseg: '
                'its hook stops saving when it shows'
            )
        cfg.visualizer.save_dir = show_dir
    else:
        hook['test_out_dir' if scope == 'mmdet' else 'out_dir'] = show_dir


def enable_tta(cfg):
    """Wrap the model and replace the test pipeline as the config's TTA entries say."""
    missing = [key for key in ('tta_model', 'tta_pipeline') if cfg.get(key) is None]
    if missing:
        raise UserError(
            f'{cfg.filename}: --tta needs tta_model and tta_pipeline in the config; '
            f'{" and ".join(missing)} not set'
        )
    require(cfg, 'test_dataloader')
    cfg.model = ConfigDict(cfg.tta_model, module=cfg.model)
    for _, dataset in leaf_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline


def enable_dump(cfg, out):
    """Add a metric that pickles all predictions to ``out``."""
    if not out.endswith(('.pkl', '.pickle')):
        hint = (
            '; label maps as PNG: --cfg-options test_evaluator.output_dir=DIR'
            if library_of(cfg) == 'mmseg'
            else ''
        )
        raise UserError(f'--out takes a file that ends in .pkl or .pickle; got {out}{hint}')
    require(cfg, 'test_evaluator')
    # mmdet's own stores masks run-length encoded.
    dump = ConfigDict(
        type='mmdet.DumpDetResults' if library_of(cfg) == 'mmdet' else 'DumpResults',
        out_file_path=out,
    )
    evaluator = cfg.test_evaluator
    if isinstance(evaluator, dict) and 'metrics' in evaluator:
        evaluator.metrics = [*_as_list(evaluator.metrics), dump]
    else:
        cfg.test_evaluator = [*_as_list(evaluator), dump]


def _as_list(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]
