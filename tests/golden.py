"""Golden files of the published programs, and our models built from their settings."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dynsp_mm import DynamicConvNeXt, DynamicSwin
from dynsp_mm.checkpoints import convert_state_dict

GOLDEN = Path(__file__).parent / 'data' / 'golden'


def load(name: str) -> dict:
    return torch.load(GOLDEN / f'{name}.pt', weights_only=True)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value."""
    assert ours.shape == theirs.shape, f'{tuple(ours.shape)} is not {tuple(theirs.shape)}'
    ours, theirs = ours.detach().double(), theirs.double()
    return float((ours - theirs).abs().max() / theirs.abs().max())


def release(name: str) -> dict:
    """The state dict of a golden file, 'stvit_cls-0' for one of several in a file, as released."""
    golden = load(name.split('-')[0])
    stored = golden['cases'][int(name[-1])] if '-' in name else golden
    return {
        key: value.float() if value.dtype == torch.float16 else value
        for key, value in stored['state_dict'].items()
    }


class Classifier(nn.Module):
    """A backbone and the release's classification head (``head.fc``)."""

    def __init__(self, golden: dict):
        super().__init__()
        config = golden['config']
        self.swin = 'embed_dim' in config
        common = dict(
            keep_ratios=tuple(config['keep_ratios']),
            prune_blocks=config['pruning_loc'],
            mixing='two_stream',
            drop_path_rate=0.0,
        )
        if self.swin:
            self.backbone = DynamicSwin(
                arch=dict(
                    embed_dims=config['embed_dim'],
                    depths=config['depths'],
                    num_heads=config['num_heads'],
                ),
                window_size=config['window_size'],
                **common,
            )
        else:
            self.backbone = DynamicConvNeXt(
                arch=dict(depths=config['depths'], channels=config['dims']),
                gap_before_final_norm=False,
                **common,
            )
        weights = convert_state_dict(golden['state_dict']).state_dict
        classes, width = weights['head.fc.weight'].shape
        self.head = nn.ModuleDict(dict(fc=nn.Linear(width, classes)))
        self.load_state_dict(weights, strict=True)

    def features(self, image: Tensor) -> Tensor:
        """(B, C, H, W) normalised map of the last stage."""
        return self.backbone(image)[-1]

    def forward(self, image: Tensor) -> Tensor:
        if self.swin:
            return self.head.fc(self.features(image).mean((2, 3)))
        # ConvNeXt averages before the norm.
        self.backbone.gap_before_final_norm = True
        pooled = self.features(image)
        self.backbone.gap_before_final_norm = False
        return self.head.fc(pooled)


def stvit_input(stored: Tensor) -> Tensor:
    """The network's input from the bytes of an STViT-R golden file."""
    return stored.float() / 64 - 2
