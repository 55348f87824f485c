"""Steps that are timed: a forward pass or a training step of a model."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..checkpoints import load_whole
from ..sparsity import TokenPredictor
from ..training import SpatialSparsityHook
from ..training.new_parameters import is_new
from ..training.teacher import build_dense


@MODELS.register_module()
class BackboneAlone(BaseModel):
    """A backbone as a model of its own, so that it runs and trains as whole models do.

    Args:
        backbone: Module that returns a tuple of tensors; or its config.
    """

    def __init__(self, backbone: nn.Module | Mapping):
        super().__init__()
        self.backbone = backbone if isinstance(backbone, nn.Module) else MODELS.build(backbone)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        """Runs the backbone; ``mode='loss'`` gives a dict of a loss that reaches every output."""
        outputs = self.backbone(inputs)
        if mode == 'loss':  # of absolute values: the sum of squares after a norm is constant
            return dict(loss=sum(output.float().abs().mean() for output in outputs))
        return outputs


def inference_step(
    model: BaseModel,
    batch: Mapping[str, Any],
    device: torch.device,
    autocast: torch.dtype = torch.float32,
) -> Callable[[], Any]:
    """Makes a callable that predicts once.

    Args:
        model: Model that predicts; it is put into eval mode.
        batch: Output of its ``data_preprocessor``.
        device: Device of both.
        autocast: Precision of operators that have a choice; float32 is off.
    """
    model.eval()

    @torch.inference_mode()
    def step() -> Any:
        with _autocast(device, autocast):
            return model(**batch, mode='predict')

    return step


def training_step(
    model: BaseModel,
    batch: Mapping[str, Any],
    device: torch.device,
    autocast: torch.dtype = torch.float32,
    teacher: Config | None = None,
) -> Callable[[], Any]:
    """Makes a callable that computes losses and gradients and steps AdamW.

    Where the model decides between paths, the losses of sparse training are among them. The rate is
    0, so that all steps are alike; gradients are not scaled.

    Args:
        model: Model that learns; it is put into training mode.
        batch: Output of its ``data_preprocessor`` for training.
        device: Device of both.
        autocast: Precision of operators that have a choice; float32 is off.
        teacher: Config of a model that decides between paths; its dense form with the model's
            weights is then the teacher. None for training without one.
    """
    model.train()
    if teacher is not None:
        SpatialSparsityHook(teacher=_dense_twin(model, teacher)).attach(model)
    elif decides(model):
        SpatialSparsityHook().attach(model)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.0
    )

    def step() -> None:
        with _autocast(device, autocast):
            losses = model(**batch, mode='loss')
        loss, _ = model.parse_losses(losses)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()  # last, so that no gradients are held between steps

    return step


def decides(model: nn.Module) -> bool:
    """Tells whether a model has token predictors."""
    return any(isinstance(module, TokenPredictor) for module in model.modules())


def _dense_twin(model: BaseModel, cfg: Config) -> nn.Module:
    """Builds the dense form of a model from its config, with the weights that both share.

    The config may be of a whole model where this one is its backbone alone; what it lacks keeps
    random weights, and nothing is learnt from it.
    """
    twin = build_dense(cfg)
    weights = {name: value for name, value in model.state_dict().items() if not is_new(name)}
    load_whole(twin, weights, optional=lambda name: not hasattr(model, name.partition('.')[0]))
    return twin


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    reduced = dtype != torch.float32
    return torch.autocast(device.type, dtype if reduced else torch.bfloat16, enabled=reduced)
