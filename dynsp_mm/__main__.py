"""``python -m dynsp_mm COMMAND``: the commands of this package."""

import importlib
import sys

from .errors import UserError
from .tooling.runs import run_tool

# Name -> module in tooling/commands and what the command does.
COMMANDS = {
    'train': ('train', 'train a model of mmdet, mmseg or mmpretrain'),
    'test': ('test', 'test a checkpoint'),
    'sparsify': ('sparsify', 'print a config with its backbone swapped for the sparse counterpart'),
    'convert': ('convert', 'convert a checkpoint of another program'),
    'flops': ('flops', 'count multiply-adds and memory of a backbone'),
    'benchmark': ('benchmark', 'compare speed, multiply-adds and memory of networks'),
    'profile': ('profile', 'show where the time of a forward pass goes'),
    'plot': ('plot', 'plot JSON files of benchmark'),
    'draw': ('draw', 'draw which regions a trained sparse model keeps'),
    'prepare-data': ('prepare_data', 'check COCO, ADE20K or ImageNet and unpack their archives'),
    'demo-data': ('demo_data', 'make a small synthetic data set in COCO layout'),
}
PROGRAM = f'python -m {__package__}'


def usage():
    """How to call a command, and which commands there are."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {help}' for name, (_, help) in COMMANDS.items()]
    return '\n'.join(
        [
            f'usage: {PROGRAM} COMMAND [arguments]',
            '',
            'commands:',
            *lines,
            '',
            f'{PROGRAM} COMMAND --help lists the arguments of a command.',
        ]
    )


def main(argv=None):
    """Run the command that the first argument names with the other arguments.

    Raises:
        UserError: there is no such command.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ('-h', '--help'):
        print(usage())
        return
    name, *arguments = argv
    if name not in COMMANDS:
        raise UserError(f'unknown command {name!r}: must be one of {", ".join(COMMANDS)}')
    module = importlib.import_module(f'.tooling.commands.{COMMANDS[name][0]}', __package__)
    # Usage messages and files of measurements name the program as it was called.
    sys.argv = [f'{PROGRAM} {name}', *arguments]
    module.main(arguments)


if __name__ == '__main__':
    run_tool(main)
