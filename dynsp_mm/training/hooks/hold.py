"""Trains only token predictors and fast paths at first."""

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop

from ...errors import UserError, check_counts
from ..new_parameters import check_has_new, find_unloaded, new_parameters

SCHEDULED = 'scheduled_lr'  # entry of a held group of the optimizer


@HOOKS.register_module()
class HoldPretrainedHook(Hook):
    """Holds pretrained parameters for the first epochs or iterations, while the new ones settle.

    Until then only token predictors and fast paths learn, as in the code of arXiv 2207.01580. All
    parameters follow the schedule as if nothing was held: afterwards the pretrained ones go on
    with the rates that it has reached. The optimizer's moments are gathered from the start. All
    parameters but the new ones count as pretrained, so ``load_from`` should name the whole dense
    model, head included::

        custom_hooks = [dict(type='SpatialSparsityHook'), dict(type='HoldPretrainedHook')]

    Rates are 0 within a held iteration only, in the log (``lr``) too. Between iterations, where
    schedulers step and checkpoints are written, they are the scheduled ones, so a run resumes.
    Where an iteration is interrupted, the next training puts them back.

    Args:
        epochs: Number of epochs to hold; 0 holds nothing. 5 if neither number is given.
        iters: Number of iterations to hold instead, in a loop that counts iterations or epochs.

    Raises:
        UserError: For a negative or broken number, and for both; before training, for a model
            without trained token predictors and fast paths, for ``epochs`` where the loop counts
            iterations, for more than one optimizer, and where new and pretrained parameters share
            an optimizer's group, as they do without ``SpatialSparsityOptimWrapperConstructor``.
    """

    # Before RuntimeInfoHook notes the rates and before ParamSchedulerHook steps.
    priority = 'HIGHEST'

    def __init__(self, epochs: int | None = None, iters: int | None = None):
        if epochs is not None and iters is not None:
            raise UserError(
                f'epochs={epochs!r}, iters={iters!r}: give only one of them, or '
                'epochs=None to replace an inherited one'
            )
        if epochs is None and iters is None:
            epochs = 5
        check_counts(least=0, **(dict(epochs=epochs) if iters is None else dict(iters=iters)))
        self.epochs, self.iters = epochs, iters
        self._groups: list[dict] = []
        self._unloaded: list[str] = []

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Notes what ``load_from`` leaves as it was drawn."""
        self._unloaded = find_unloaded(runner.model, checkpoint)

    def before_train(self, runner) -> None:
        """Finds the groups to hold."""
        restore_rates(type(self).__name__, runner.optim_wrapper)
        if not (self.epochs or self.iters):
            return
        if self.iters is None and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise UserError(
                f'HoldPretrainedHook: epochs={self.epochs} but the training loop '
                'counts iterations; give iters instead, or set epochs=0'
            )
        if not hasattr(runner.optim_wrapper, 'optimizer'):
            raise UserError(
                'HoldPretrainedHook: needs a single optimizer; got '
                f'{type(runner.optim_wrapper).__name__}'
            )
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        check_has_new(model, 'HoldPretrainedHook')
        new = {id(parameter) for parameter in new_parameters(model).values()}
        if not new:
            raise UserError(
                'HoldPretrainedHook: all token predictors and fast paths of this '
                f'{type(model).__name__} are frozen, so nothing would be trained meanwhile; '
                'remove the hook, or freeze only stages below the sparse one'
            )
        self._groups = []
        for group in runner.optim_wrapper.optimizer.param_groups:
            count = sum(id(parameter) in new for parameter in group['params'])
            if 0 < count < len(group['params']):
                raise UserError(
                    'HoldPretrainedHook: new and pretrained parameters share a group of the '
                    'optimizer; set '
                    "optim_wrapper.constructor='SpatialSparsityOptimWrapperConstructor'"
                )
            if not count:
                self._groups.append(group)
        if self._holds(runner):
            end = f'epoch {self.epochs}' if self.iters is None else f'iteration {self.iters}'
            print_log(
                f'HoldPretrainedHook: pretrained parameters are held until {end} is over', 'current'
            )
            length = runner.max_epochs if self.iters is None else runner.max_iters
            if (self.epochs if self.iters is None else self.iters) >= length:
                print_log(
                    f'HoldPretrainedHook: {end} is not over before training ends, at '
                    f'{length}: pretrained parameters will not be trained at all',
                    'current',
                    logging.WARNING,
                )
            if self._unloaded:
                print_log(
                    f'HoldPretrainedHook: {len(self._unloaded)} tensors, such as '
                    f'{self._unloaded[0]}, are not in the checkpoint in their shape, so they are '
                    'random and held all the same; name a checkpoint of the whole dense model, '
                    'or leave the hook out',
                    'current',
                    logging.WARNING,
                )
            if not (runner._load_from or runner._resume):
                print_log(
                    'HoldPretrainedHook: load_from is not set, so parameters that no '
                    'init_cfg loaded, such as heads, are random and held all the same; '
                    'name a checkpoint of the whole dense model, or leave the hook out',
                    'current',
                    logging.WARNING,
                )

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Sets the rates to 0 for the iteration."""
        if self._holds(runner):
            for group in self._groups:
                # In the group, and so in what is saved of it after an interruption.
                group[SCHEDULED] = group['lr']
                group['lr'] = 0.0

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Puts the scheduled rates back: schedulers compute the next ones from them."""
        for group in self._groups:
            _release(group)

    def _holds(self, runner) -> bool:
        if self.iters is None:
            return runner.epoch < self.epochs
        return runner.iter < self.iters


def restore_rates(asker: str, optim_wrapper: object) -> None:
    """Puts back the rates of an optimizer that an interrupted iteration left at 0."""
    optimizer = getattr(optim_wrapper, 'optimizer', None)
    held = [group for group in getattr(optimizer, 'param_groups', ()) if SCHEDULED in group]
    for group in held:
        _release(group)
    if held:
        print_log(
            f'{asker}: {len(held)} groups of the optimizer have their rates again: a '
            f'{HoldPretrainedHook.__name__} was interrupted while it held them at 0',
            'current',
            logging.WARNING,
        )


def _release(group: dict) -> None:
    """Puts the scheduled rate of a group back, if it is held."""
    group['lr'] = group.pop(SCHEDULED, group['lr'])
