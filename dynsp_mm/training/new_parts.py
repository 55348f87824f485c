"""Which parameters of a sparse model are new, the others coming from a dense checkpoint."""
import re
from typing import Dict

import torch.nn as nn

from ..checkpoints.adapt import NEW_PARTS

# The parts that no dense network has, at any depth of a detector, segmentor or classifier.
_NEW = re.compile(rf'(.*\.)?({NEW_PARTS["fast and slow paths"]})')


def is_new(name: str) -> bool:
    """Whether a parameter belongs to a token predictor or a fast path, by its name.

    Those lie under ``token_predictors`` and ``fast_path`` and in ``fast_gamma``.
    """
    return _NEW.match(name) is not None


def new_parameters(model: nn.Module) -> Dict[str, nn.Parameter]:
    """Name -> parameter of the token predictors and fast paths of a model.

    Those that are not trained, such as a frozen teacher's, do not count.
    """
    return {name: parameter for name, parameter in model.named_parameters()
            if parameter.requires_grad and is_new(name)}
