"""Release of weights that prepared forms hold in another layout."""

import math

import torch.nn as nn

from .lifetime import Preparable, refuse


def release_weights(model: nn.Module) -> None:
    """Lets go of weights of linear layers that prepared forms hold in another layout.

    A weight stays where something without a prepared form has it too. The parameters of the others
    become NaN of their shape, which take no memory. Using, saving or copying what lost its weights
    raises a RuntimeError from then on.

    Args:
        model: Module with all modules that may share weights.
    """
    needed = set()

    def collect(module: nn.Module) -> None:
        if not (isinstance(module, Preparable) and module._form is not None):
            needed.update(map(id, module._parameters.values()))
            for child in module.children():
                collect(child)

    collect(model)
    prepared = [m for m in model.modules() if isinstance(m, Preparable) and m._form is not None]
    released = set()
    for module in prepared:
        for layer in module.modules():
            # Tensors of inference mode cannot be exchanged.
            if (
                isinstance(layer, nn.Linear)
                and id(layer.weight) not in needed
                and not layer.weight.is_inference()
            ):
                released.add(module)
                _release(layer)
    for module in released:  # when all are gone, for modules may share layers
        module._form = module._form.released_from(module)


def _release(layer: nn.Linear) -> None:
    if layer.weight.stride() != (0, 0):  # the layer may be shared
        layer.weight.data = layer.weight.new_full((1, 1), math.nan).expand_as(layer.weight)
    layer.register_forward_pre_hook(refuse)
    # Called by mmengine's way to make state dicts, too.
    layer._register_state_dict_hook(refuse)
