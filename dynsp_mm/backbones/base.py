"""What all backbones share: arguments, input checks, the plan of sparsity, weights."""

import logging
from collections.abc import Mapping, Sequence

import torch
import torch.nn as nn
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor

from .. import families
from ..checkpoints import adapt_state_dict, is_pretrained, load_pretrained, warn_of_stems
from ..compat import is_capturing, is_tracing
from ..errors import UserError, check_choice
from ..layers import FastPath
from ..ops import Selection, find_backend, find_content
from ..prepared import Preparable
from ..prepared import release_weights as release
from ..sparsity import SparsityPlan, TokenPredictor
from ..sparsity.checkpointing import adopt_checkpointing
from ..sparsity.plan import ARGUMENTS, MIXINGS, Batch, KeepRatios


class Backbone(BaseModule):
    """Base of the backbones: output stages, input checks, initialisation and loading.

    A subclass calls :meth:`_plan_sparsity` before it builds its stages where it has a plan other
    than that of a dense network.

    Attributes:
        plan: Where the backbone decides, and what decisions gate.
        strides: Rows and columns of pixels to a position, of each stage.
    """

    def __init__(self, init_cfg: None | Mapping | Sequence[Mapping] = None):
        super().__init__(init_cfg)
        self.plan = SparsityPlan()
        self.strides: tuple[tuple[int, int], ...] = ()
        self._looked_at: set[bool] = set()  # modes in which it has looked for what to warn of
        self._noted: list[str] = []
        self._padded = False

    @staticmethod
    def _resolve_out_indices(out_indices: int | Sequence[int], num_stages: int) -> tuple[int, ...]:
        """Non-negative stage indices."""
        if not isinstance(out_indices, (int, list, tuple)):
            raise UserError(f'out_indices={out_indices!r}: must be a stage index or a sequence')
        indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
        for index in indices:
            if not isinstance(index, int) or not -num_stages <= index < num_stages:
                raise UserError(
                    f'out_indices={indices!r}: stage {index!r} does not exist; the '
                    f'stages are 0 .. {num_stages - 1}'
                )
        return tuple(index % num_stages for index in indices)

    # ------------------------------------------------------------------ sparsity
    def _plan_sparsity(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        arguments: Mapping[str, object],
        predictor_eps: float,
    ) -> None:
        """Sets :attr:`plan` and makes its predictors.

        Args:
            depths: Blocks of each stage.
            widths: Channels of each stage.
            arguments: Arguments of :meth:`SparsityPlan.parse`.
            predictor_eps: Epsilon of the predictors' layer norms.

        Raises:
            UserError: An argument has another name, or is out of its range.
        """
        refuse_unknown(type(self), {k: v for k, v in arguments.items() if k not in ARGUMENTS})
        card = families.of(self)
        rule = card.ratios if card else 'hierarchical'
        self.plan = SparsityPlan.parse(depths, **arguments, rule=rule)
        # Outside the stages, where the libraries' layer-decay constructors parse names.
        self.token_predictors = self.plan.make_predictors(widths, predictor_eps)

    @property
    def keep_ratios(self) -> tuple[float, ...] | None:
        """One ratio for each predictor, None when dense. May be set on a sparse model."""
        return self.plan.keep_ratios

    @keep_ratios.setter
    def keep_ratios(self, value: KeepRatios) -> None:
        self.plan.keep_ratios = value

    @property
    def selection(self) -> Selection:
        """Rule of selection at inference. May be set."""
        return self.plan.selection

    @selection.setter
    def selection(self, value: str | Mapping | Selection) -> None:
        self.plan.selection = Selection.parse(value)

    @property
    def mixing(self) -> str:
        """How both paths run in training. May be set."""
        return self.plan.mixing

    @mixing.setter
    def mixing(self, value: str) -> None:
        self.plan.mixing = check_choice('mixing', value, MIXINGS)

    # ------------------------------------------------------------------ input
    def _look_at(self, images: Tensor) -> Batch:
        """What the plan needs to know of (B, C, H, W) images."""
        # Noted before the stages: the first run of a reentrant checkpoint has no gradients and must
        # decide as the second, which has; its images have.
        learns = torch.is_grad_enabled() or images.requires_grad
        if not self.plan.gates or self.selection.count_padding:
            return Batch(learns=learns)
        contents = find_content(images, self.strides)
        if contents is not None and not self._padded:
            self._padded = True
            print_log(
                f'{type(self).__name__}: images of other sizes in a batch are treated as alone, '
                'without the rows and columns of zeros that pad them; '
                "selection=dict(type='topk', count_padding=True) counts these",
                'current',
            )
        return Batch(contents, learns)

    @property
    def min_side(self) -> int:
        """Least side of an image in pixels, by the family's card."""
        card = families.of(self)
        return card.min_side if card else families.MIN_SIDE

    def _check_input(self, x: Tensor, channels: int) -> None:
        """Raises a UserError for what no stage could process; warns of predictors nobody trains."""
        name = type(self).__name__
        if x.dim() != 4 or x.shape[1] != channels:
            raise UserError(f'{name}: input shape {tuple(x.shape)}: must be (B, {channels}, H, W)')
        if x.shape[0] == 0:
            raise UserError(f'{name}: input shape {tuple(x.shape)}: the batch is empty')
        least = self.min_side
        if min(x.shape[2:]) < least:
            raise UserError(
                f'{name}: input shape {tuple(x.shape)}: each side must have at least {least} pixels'
            )
        if self.plan.gates and not self.plan.supervised and self.training not in self._looked_at:
            self._look()

    def parts_at_start(self) -> dict[str, TokenPredictor | FastPath]:
        """Name -> predictor or fast path, of those whose values are as they were drawn.

        Predictors count only where they are asked. Waits for the device.
        """
        return {
            name: module
            for name, module in self.named_modules()
            if isinstance(module, (TokenPredictor, FastPath))
            and not (isinstance(module, TokenPredictor) and self.selection.type == 'random')
            and module.is_at_start()
        }

    def _look(self) -> None:
        """Warns, once for each mode, of predictors that nothing holds or that nobody trained."""
        traced = is_tracing() or is_capturing()  # values cannot be looked at
        if traced and not self.training:
            return
        self._looked_at.add(self.training)
        if self.selection.type == 'random':
            return
        name = type(self).__name__
        if any(predictor.learns for predictor in self.token_predictors):
            print_log(
                f'{name} is trained with keep_ratios={self.keep_ratios} '
                'but nothing holds its keep ratio; add custom_hooks = '
                "[dict(type='SpatialSparsityHook')] to the config.",
                'current',
                logging.WARNING,
            )
        if traced:
            return
        parts = {
            key: part
            for key, part in self.parts_at_start().items()
            if not (self.training and any(p.requires_grad for p in part.parameters()))
        }
        if parts:
            print_log(
                f'{name}: {describe_parts(parts)} '
                + ('are new and frozen' if self.training else 'were never trained')
                + ' and are as they were drawn: what they decide and compute is random; load a '
                'sparse checkpoint, or train them with the SpatialSparsityHook; '
                "selection='random' needs no predictors",
                'current',
                logging.WARNING,
            )

    # ------------------------------------------------------------------ inference
    def prepare_for_inference(
        self, backend: str = 'auto', release_weights: bool = False
    ) -> 'Backbone':
        """Gives modules a second form that computes the same (to 1e-5) in less time.

        The forms are made of the weights as they are now, beside them: parameters and state dict
        stay what they are, and weights of linear layers are held twice. They run in forwards
        without gradients and autocast; others run the modules themselves. Training mode, loading
        weights, writing to them, other layers in their place, and moving to another device or
        dtype drop them; after writing into ``.data``, and after a step of a fused optimizer in
        eval mode, call this again. Copies and pickles of the backbone have none. Blocks with
        modules that this package does not know, such as adapters, have none either.

        Args:
            backend: 'eager', 'onednn' (CPU), 'triton' (CUDA), or 'auto': 'onednn' where that runs,
                else 'eager'.
            release_weights: Hold weights of linear layers once, in the forms. The backbone then
                does nothing but run prepared: gradients, training mode, saving, loading, copying
                and moving raise a RuntimeError, which may leave the rest of a model around it
                half changed. Its ``parameters()`` are NaN where they were released.

        Returns:
            This backbone, in eval mode.

        Raises:
            UserError: For an unknown backend, or one that cannot run here.
            RuntimeError: The weights were released before.
        """
        parameter = next(self.parameters())
        found = find_backend(backend, parameter.device, parameter.dtype)
        self.eval()
        forms = {name: module.prepare(found) for name, module in self._preparable()}
        if release_weights:
            release(self)
        left = [name for name, done in forms.items() if not done]
        print_log(
            f'{type(self).__name__} is prepared for inference ({found.name})'
            + (f'; modules without a prepared form: {", ".join(left)}' if left else ''),
            'current',
        )
        return self

    def discard_prepared(self) -> None:
        """Drops what :meth:`prepare_for_inference` made.

        Raises:
            RuntimeError: The weights were released.
        """
        for _, module in self._preparable():
            module.discard_prepared()

    def _check_weights(self) -> None:
        """Raises a RuntimeError if weights were released, before anything changes."""
        for _, module in self._preparable():
            module.check_weights()

    def train(self, mode: bool = True) -> 'Backbone':
        if mode:
            self._check_weights()
            self._adopt_checkpointing()
        return super().train(mode)

    def _adopt_checkpointing(self) -> None:
        """Says what of mmengine's ``activation_checkpointing`` is done with ``with_cp`` instead."""
        adopted = adopt_checkpointing(self)
        if adopted:
            names = ', '.join(name or 'the backbone' for name in adopted)
            print_log(
                f'{type(self).__name__}: activation_checkpointing of {names} is done as '
                'with_cp=True of the blocks there and not for token predictors, since mmengine '
                'would cut decisions off from their loss; with_cp=True of the backbone asks for '
                'it everywhere',
                'current',
                logging.WARNING,
            )

    def _apply(self, *args, **kwargs):
        self._check_weights()
        return super()._apply(*args, **kwargs)

    def _preparable(self) -> list[tuple[str, Preparable]]:
        return [
            (name, module)
            for name, module in self.named_modules()
            if isinstance(module, Preparable)
        ]

    # ------------------------------------------------------------------ weights
    def init_weights(self) -> None:
        """Initialises, then loads ``init_cfg=dict(type='Pretrained', checkpoint=...)``."""
        if self._is_init:  # as mmengine's modules do
            print_log(
                f'init_weights of {type(self).__name__} was called again; weights are kept',
                'current',
                logging.WARNING,
            )
            return
        configs = self.init_cfg if isinstance(self.init_cfg, (list, tuple)) else [self.init_cfg]
        for config in configs:
            if config and not (isinstance(config, dict) and 'type' in config):
                raise UserError(
                    f'init_cfg={self.init_cfg!r}: must be None, a dict such as '
                    "dict(type='Pretrained', checkpoint=FILE), or a list of those"
                )
        pretrained = [config for config in configs if is_pretrained(config)]
        if pretrained or not self.init_cfg:
            self._init_from_scratch()
        else:
            super().init_weights()
        self._init_sparsity()
        for config in pretrained:
            load_pretrained(self, config['checkpoint'], config.get('prefix'))
        self._is_init = True

    def _init_from_scratch(self) -> None:
        """Initialises all parameters; by default they keep the start that constructors drew."""

    def _init_sparsity(self) -> None:
        """Gives what no dense network has its own start, which no init_cfg may alter."""
        for module in self.modules():
            if isinstance(module, (TokenPredictor, FastPath)):
                module.reset_parameters()

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        self._check_weights()
        repairs = adapt_state_dict(state_dict, prefix, self)
        if repairs.notes() != self._noted:  # weights may be loaded to be checked, then again
            self._noted = repairs.notes()
            warn_of_stems(self, repairs)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def num_frozen(self) -> int:
        """Number of its first stages that ``frozen_stages`` freezes."""
        return 0

    @staticmethod
    def _freeze(*modules: nn.Module) -> None:
        for module in modules:
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad = False


def describe_parts(parts: Mapping[str, nn.Module]) -> str:
    """Counts and names predictors and fast paths for a message, the first few of each."""
    texts = []
    for kind, title in ((TokenPredictor, 'token predictor'), (FastPath, 'fast path')):
        names = [name for name, part in parts.items() if isinstance(part, kind)]
        if names:
            more = ', ...' if len(names) > 3 else ''
            texts.append(
                f'{len(names)} {title}{"s" if len(names) > 1 else ""} '
                f'({", ".join(names[:3])}{more})'
            )
    return ' and '.join(texts)


def refuse_unknown(cls: type, unknown: Mapping[str, object]) -> None:
    """Raises a UserError for arguments that a class does not know."""
    if unknown:
        raise UserError(
            f'{cls.__name__}: unknown argument(s) '
            + ', '.join(f'{key}={value!r}' for key, value in unknown.items())
        )
