"""The smallest sparse model and data that train through a runner."""

import itertools

import torch
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner

RUNNERS = itertools.count()

SWIN = dict(
    type='DynamicSwin',
    keep_ratios=(0.7, 0.5, 0.3),
    drop_path_rate=0.0,
    arch=dict(embed_dims=16, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4)),
)


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


def toy_runner(work_dir, hooks, backbone=SWIN, **kwargs):
    """A runner that logs each iteration, two iterations an epoch."""
    return Runner(
        **{
            **dict(
                model=ToyModel(backbone) if isinstance(backbone, dict) else backbone,
                work_dir=str(work_dir),
                train_dataloader=dict(
                    dataset=Images(),
                    batch_size=2,
                    collate_fn=lambda batch: pseudo_collate(batch),
                    sampler=dict(type='DefaultSampler', shuffle=False),
                ),
                train_cfg=dict(by_epoch=True, max_epochs=2),
                optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
                custom_hooks=hooks,
                default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
                randomness=dict(seed=0),
                experiment_name=f'toy_{next(RUNNERS)}',  # mmengine shares what has the same name
                default_scope='mmengine',
            ),
            **kwargs,
        }
    )
