"""The main job on a small generated set: data, training, COCO evaluation, pictures.

    python tools/demo.py            # what `make demo` runs after the installation

Stopped in the middle, it goes on from the last checkpoint when run again; delete work_dirs/demo
to start anew.
"""

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

CONFIG = 'configs/maskrcnn_dyswin_t_demo.py'
OUT = Path('work_dirs/demo')


def environment(root: Path) -> dict:
    """Hides GPUs that mmcv's operators were not built for; makes waiting threads yield."""
    # On a machine with other work, threads that spin at barriers slow training down several times.
    env = dict(os.environ)
    env.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    probe = (
        'import torch; from mmcv.ops import nms\n'
        'if torch.cuda.is_available():\n'
        '    nms(torch.tensor([[0., 0., 1., 1.]]).cuda(), torch.ones(1).cuda(), 0.5)'
    )
    done = subprocess.run([sys.executable, '-c', probe], cwd=root, capture_output=True)
    if done.returncode == 0:
        return env
    print("mmcv's operators do not run on this machine's GPU; using the CPU", flush=True)
    return dict(env, CUDA_VISIBLE_DEVICES='')


def run(title: str, *args: str, root: Path, env: dict) -> None:
    print(f'\n=== {title}: python {" ".join(args)}', flush=True)
    try:
        done = subprocess.run([sys.executable, *args], cwd=root, env=env)
    except KeyboardInterrupt:
        sys.exit('\nstopped; run it again to go on from the last checkpoint')
    if done.returncode:
        sys.exit(
            f'ERROR: this step of the demo failed with status {done.returncode}: '
            f'python {" ".join(args)}'
        )


def scores(root: Path) -> dict:
    """The metrics that the latest test run wrote."""
    files = sorted((root / OUT / 'test').glob('*/*.json'), key=lambda file: file.stat().st_mtime)
    return json.loads(files[-1].read_text())


def main(root: str | os.PathLike) -> None:
    """Runs the demo.

    Args:
        root: Folder that holds ``tools/`` and ``configs/``; results go below its ``work_dirs/``.
    """
    start, root = time.time(), Path(root)
    step = partial(run, root=root, env=environment(root))
    step('1/4 data', 'tools/make_demo_data.py', f'{OUT}/data')
    step('2/4 training', 'tools/train.py', CONFIG, '--resume')
    checkpoint = (root / OUT / 'last_checkpoint').read_text().strip()
    checkpoint = os.path.relpath(checkpoint, root)
    step(
        '3/4 COCO evaluation',
        'tools/test.py',
        CONFIG,
        checkpoint,
        '--work-dir',
        f'{OUT}/test',
        '--show-dir',
        f'{OUT}/detections',
    )
    step(
        '4/4 kept regions',
        'tools/analysis_tools/visualize_decisions.py',
        CONFIG,
        checkpoint,
        '--out-dir',
        f'{OUT}/keep_maps',
        '--num',
        '8',
    )
    result = scores(root)
    print(f"""
=== Done in {(time.time() - start) / 60:.1f} minutes
box AP {result['coco/bbox_mAP']:.3f}, mask AP {result['coco/segm_mAP']:.3f} (COCO metric, 32 \
generated images, trained from scratch)

  {OUT}/keep_maps/    input and, for each of the three decisions, what took the slow path
  {OUT}/detections/   ground truth and detections
  {checkpoint}
  {OUT}/data/         the generated set, COCO 2017 layout

Next, with COCO 2017 at data/coco (annotations/, train2017/, val2017/):
  . .venv/bin/activate
  python tools/train.py configs/maskrcnn_dyswin_t.py          # or tools/dist_train.sh CONFIG GPUS
  python tools/test.py configs/maskrcnn_dyswin_t.py work_dirs/maskrcnn_dyswin_t/epoch_12.pth
COCO elsewhere: see "Your data" in README.md. Another budget, without training again:
  ... --cfg-options model.backbone.keep_ratios=0.5""")
