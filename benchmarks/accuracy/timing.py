"""Times the backbones of a set's rows in turns with the dense one."""

from pathlib import Path

import torch
from mmengine.registry import MODELS, init_default_scope

from dynsp_mm.analysis import time_in_turns
from dynsp_mm.analysis.machine import own_version
from dynsp_mm.checkpoints import load_pretrained
from dynsp_mm.tooling import options as cli

from . import rows as table


def time_backbones(dataset, rows):
    """Times the backbones of all rows that have a result, in turns with the dense one.

    All prepared for inference, batch 1 at the size of the test, one thread.
    """
    torch.set_num_threads(1)
    init_default_scope('mmengine')
    backbones = {}
    for row in rows[dataset]['rows']:
        if table.result_path(dataset, row, 0).is_file():
            cfg, _ = table.make_config(dataset, row, 0, rows)
            backbone = MODELS.build(dict(cfg.model.backbone, init_cfg=None)).eval()
            checkpoint = (Path(cfg.work_dir) / 'last_checkpoint').read_text().strip()
            load_pretrained(backbone, checkpoint, 'backbone.', name='checkpoint')
            backbones[row] = backbone.prepare_for_inference()
    if 'dense' not in backbones:
        raise cli.UserError(f'{dataset}/dense has no result yet to compare with')
    names = ['dense', *(name for name in backbones if name != 'dense')]
    shape = [1, 3, *rows[dataset]['shape']]
    image = torch.rand(shape)
    with torch.inference_mode():
        timings = time_in_turns(
            [lambda name=name: backbones[name](image) for name in names], rounds=60, warmup=5
        )
    result = dict(
        shape=shape,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        commit=own_version()['commit'],
        rows={name: timing._asdict() for name, timing in zip(names, timings)},
    )
    table.write_json(table.timing_path(dataset), result)
