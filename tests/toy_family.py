"""A family that the package does not know: its backbone, its card and a table of checkpoints."""

import torch.nn as nn
from mmengine.registry import MODELS
from torch import Tensor

from dynsp_mm.backbones.base import Backbone
from dynsp_mm.checkpoints.rules import Rule, Source, register
from dynsp_mm.families import SPATIAL, Dense, Family, Measured, Names, Told, resolve_size
from dynsp_mm.layers import Block
from dynsp_mm.sparsity import TokenStream, run_blocks


class ToyBlock(Block):
    """A linear layer at each position, and a cheaper one where it is wanted."""

    locality = 'position'

    def __init__(self, channels: int, cheap: bool, bias: bool):
        super().__init__()
        self.slow = nn.Linear(channels, channels, bias=bias)
        if cheap:
            self.fast_path = nn.Sequential(nn.Linear(channels, channels))

    def mix(self, x, grid, content=None):
        return x, None

    def mlp(self, tokens, rows=None):
        return self.slow(tokens)

    def _prepare(self, backend):
        return None


@MODELS.register_module()
class ToyNet(Backbone):
    """Two levels of blocks; those of the second have predictors before them but for the first."""

    def __init__(
        self,
        arch='tiny',
        keep_ratios=None,
        block_bias=True,
        kernel=4,
        out_indices=(1,),
        pooled=True,
        init_cfg=None,
        **sparsity,
    ):
        super().__init__(init_cfg)
        size = resolve_size('toy', arch)
        width, self.depths = size['width'], size['blocks']
        self.out_indices = self._resolve_out_indices(out_indices, len(self.depths))
        self.pooled = pooled
        self.strides = tuple((4 * 2**i,) * 2 for i in range(len(self.depths)))
        arguments = {'prune_stage': 1, 'keep_ratios': keep_ratios, **sparsity}
        self._plan_sparsity(self.depths, (width, 2 * width), arguments, predictor_eps=1e-5)
        self.stem_of_toys = nn.Conv2d(3, width, kernel, stride=4, padding=(kernel - 4) // 2)
        self.shrink = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.levels = nn.ModuleList(
            nn.ModuleList(
                ToyBlock(width * 2**i, self.plan.needs_fast_path(i, j), block_bias)
                for j in range(depth)
            )
            for i, depth in enumerate(self.depths)
        )
        for i, level in enumerate(self.levels):
            self.plan.check(i, level)
        for i in self.out_indices:
            self.add_module(f'out{i}', nn.LayerNorm(width * 2**i))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self._check_input(x, 3)
        batch = self._look_at(x)
        x, outs = self.stem_of_toys(x), []
        for i, level in enumerate(self.levels):
            x = self.shrink(x) if i else x
            hw, tokens = tuple(x.shape[2:]), x.flatten(2).transpose(1, 2)
            schedule = self.plan.schedule(i, self.token_predictors, batch)
            tokens = run_blocks(level, TokenStream(tokens, hw), schedule).tokens
            x = tokens.transpose(1, 2).unflatten(2, hw)
            if i in self.out_indices:
                out = getattr(self, f'out{i}')(tokens).transpose(1, 2)
                outs.append(out.mean(2) if self.pooled else out.unflatten(2, hw).contiguous())
        return tuple(outs)


@MODELS.register_module()
class DenseToy(ToyNet):
    """What the libraries would have."""

    def __init__(self, arch='tiny', out_indices=(0, 1), block_bias=True):
        super().__init__(arch, out_indices=out_indices, block_bias=block_bias)


BLOCK = r'levels\.(\d+)\.(\d+)\.'
CARD = Family(
    name='toy',
    cls='ToyNet',
    title='Toy',
    sizes={'tiny': dict(width=8, blocks=(1, 4)), 'huge': dict(width=16, blocks=(1, 6))},
    size_keys=dict(width='width', blocks='depths'),
    dense=(Dense('DenseToy', dict(mmseg=dict(out_indices=(0, 1)))),),
    unlike={'MaskedToy': 'it is a toy in a mask'},
    sources=('toy_family',),
    pooled='pooled',
    strides=(4, 8),
    samples=(dict(keep_ratios=0.7, out_indices=(0, 1), pooled=False),),
    names=Names(
        stem='stem_of_toys.weight',
        block=BLOCK,
        source='files of toys',
        signature=r'levels\.\d+\.\d+\.slow\.',
        needed=('levels.', 'token_predictors.', 'shrink.', 'stem_of_toys.'),
        told=(Told(BLOCK + r'slow\.bias', dict(block_bias=True), dict(block_bias=False)),),
        measured=(Measured('kernel', r'stem_of_toys\.weight', 2, 'side'),),
        may_lack=(SPATIAL,),
        dropped={'toy_buffer': 'nobody needs it'},
        out_norm='out{}',
        sparse_stage=1,
    ),
)
register(
    Source(
        "toymaker's release",
        (r'toystem\.', r'toys\.'),
        (
            Rule(r'toystem\.(weight|bias)', r'backbone.stem_of_toys.\1'),
            Rule(r'toys\.(\d+)\.(\d+)\.(weight|bias)', r'backbone.levels.\1.\2.slow.\3'),
            Rule(r'(shrink|out\d)\.(weight|bias)', r'backbone.\g<0>'),
            Rule('toy_buffer', None, 'nobody needs it'),
        ),
    )
)
