#!/usr/bin/env python
"""Convert a published checkpoint into the names of this package's backbones.

    python tools/convert_checkpoint.py SRC DST

Understands the DynamicSwin and DynamicConvNeXt releases (raoyongming/DynamicViT) and the
official dense Swin and ConvNeXt, found by their keys. Every key is mapped, dropped with a
reason, or an error. DST loads as a classifier of mmpretrain, or as a backbone with
init_cfg=dict(type='Pretrained', checkpoint=DST).
"""
import argparse
import os
import pickle
import sys
import tempfile
from pathlib import Path

# The checkout serves without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from dynsp_mm.checkpoints import convert_state_dict, unwrap  # noqa: E402
from dynsp_mm.cli import UserError, run_tool  # noqa: E402
from dynsp_mm.compat import loading_also  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description='Convert a published checkpoint')
    parser.add_argument('src', metavar='SRC', help='checkpoint of a release')
    parser.add_argument('dst', metavar='DST', help='file to write')
    parser.add_argument('--dry-run', action='store_true', help='only print the table')
    parser.add_argument('--force', action='store_true', help='replace an existing DST')
    return parser.parse_args()


def read(src: str):
    """Reads without running code from the file."""
    if not Path(src).is_file():
        raise UserError(f'SRC {src} does not exist')
    try:
        # The releases hold their command line, harmless, as an argparse namespace.
        with loading_also([argparse.Namespace]):
            return torch.load(src, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f'SRC {src} was not read: it holds more than tensors and plain values, or '
                        'is no checkpoint') from error
    except Exception as error:  # torch raises whatever its parser trips over
        raise UserError(f'SRC {src} is damaged or no checkpoint: {first_line(error)}') from error


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [''])[0] or type(error).__name__


def write(checkpoint: dict, dst: Path) -> None:
    """Writes the whole file or nothing."""
    dst.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=dst.parent, prefix=dst.name, suffix='.tmp')
    try:
        with os.fdopen(handle, 'wb') as file:
            torch.save(checkpoint, file)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, dst)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def main():
    args = parse_args()
    dst = Path(args.dst)
    if dst.is_dir():
        raise UserError(f'DST {dst} is a directory: must be a file')
    if dst.exists() and not (args.force or args.dry_run):
        raise UserError(f'DST {dst} exists; --force replaces it')
    try:
        conversion = convert_state_dict(unwrap(read(args.src)))
    except ValueError as error:
        raise UserError(f'SRC {args.src}: {error}') from error
    for old, new in conversion.mapped:
        print(f'mapped   {old} -> {new}')
    for old, reason in conversion.dropped:
        print(f'dropped  {old} ({reason})')
    print(f'{conversion.source}: {len(conversion.mapped)} keys mapped, '
          f'{len(conversion.dropped)} dropped')
    if not args.dry_run:
        checkpoint = dict(meta=dict(source=conversion.source), state_dict=conversion.state_dict)
        try:
            write(checkpoint, dst)
        except OSError as error:
            raise UserError(f'DST {dst} was not written: {error}') from error
        print(f'wrote {dst}')


if __name__ == '__main__':
    run_tool(main)
