"""What is timed: a forward pass or a training step of a model."""
from typing import Any, Callable, Mapping

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from ..layers import TokenPredictor
from ..training import SparseTrainingHook


class BackboneAlone(BaseModel):
    """A backbone as a model of its own, so that it runs and trains as whole models do.

    Args:
        backbone: Returns a tuple of tensors.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        """Its outputs; with ``mode='loss'`` a dict of a loss that reaches every output."""
        outputs = self.backbone(inputs)
        if mode == 'loss':  # of absolute values: the sum of squares after a norm is constant
            return dict(loss=sum(output.float().abs().mean() for output in outputs))
        return outputs


def inference_step(model: BaseModel, batch: Mapping[str, Any], device: torch.device,
                   autocast: torch.dtype = torch.float32) -> Callable[[], Any]:
    """A callable that predicts once.

    Args:
        model: Put into eval mode.
        batch: What its ``data_preprocessor`` returned.
        device: Where both are.
        autocast: Precision of operators that have a choice; float32 is off.
    """
    model.eval()

    @torch.inference_mode()
    def step() -> Any:
        with _autocast(device, autocast):
            return model(**batch, mode='predict')

    return step


def training_step(model: BaseModel, batch: Mapping[str, Any], device: torch.device,
                  autocast: torch.dtype = torch.float32) -> Callable[[], Any]:
    """A callable that computes losses and gradients and steps AdamW.

    Where the model decides between paths, the loss that holds its keep ratio is part of it. The
    rate is 0, so that all steps are alike; gradients are not scaled.

    Args:
        model: Put into training mode.
        batch: What its ``data_preprocessor`` returned for training.
        device: Where both are.
        autocast: Precision of operators that have a choice; float32 is off.
    """
    model.train()
    if any(isinstance(module, TokenPredictor) for module in model.modules()):
        SparseTrainingHook().attach(model)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.0)

    def step() -> None:
        with _autocast(device, autocast):
            losses = model(**batch, mode='loss')
        loss, _ = model.parse_losses(losses)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()  # last, so that no gradients are held between steps

    return step


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    reduced = dtype != torch.float32
    return torch.autocast(device.type, dtype if reduced else torch.bfloat16, enabled=reduced)
