"""The smallest sparse model and data that train through a runner."""
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS

SWIN = dict(type='DynamicSwin', keep_ratios=(0.7, 0.5, 0.3), drop_path_rate=0.0,
            arch=dict(embed_dims=16, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4)))


class ToyModel(BaseModel):
    """The smallest model that trains through a runner."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        features = self.backbone(torch.stack(list(inputs)))[-1]
        if mode == 'loss':
            return dict(loss_task=features.square().mean())
        return features


class Images(torch.utils.data.Dataset):

    def __len__(self):
        return 4

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=torch.randn(3, 64, 64, generator=generator))
