"""Keep maps of the images that a model trains on."""

import logging
from contextlib import ExitStack

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.visualization import BaseVisBackend, Visualizer

from ...errors import check_counts
from ...recording import DecisionLog, Recorder
from ...sparsity import TokenPredictor
from ...visualization.keep_maps import draw_decisions
from ...visualization.panels import input_as_image
from ..new_parameters import find_sparse_backbones


@HOOKS.register_module()
class KeepMapHook(Hook):
    """Shows in TensorBoard, or among the run's files, which regions a model keeps as it trains.

    Draws the images of a batch as the network saw them, augmented and with padding, beside the
    keep map of each decision, and gives them to all backends of the runner's visualizer as
    ``keep_maps_0``, ``keep_maps_1``, ...::

        custom_hooks = [dict(type='SpatialSparsityHook'), dict(type='KeepMapHook')]
        visualizer = dict(vis_backends=[dict(type='LocalVisBackend'),
                                        dict(type='TensorboardVisBackend')])

    Decisions of training are drawn at random by the scores, so maps are noisier than at
    inference. Images of one or two channels are drawn in grey, of more than three the first three.
    Where a backbone runs several times in an iteration, the first time counts; of
    several sparse backbones, the first.

    Args:
        interval: Number of iterations from one drawing to the next. The first iteration is drawn,
            and each whose number (counted from 1, as in the log) is a multiple of it.
        max_images: Number of images to draw of a batch.

    Raises:
        UserError: For numbers that are not positive; before training, for a model without token
            predictors.
    """

    priority = 'NORMAL'

    def __init__(self, interval: int = 500, max_images: int = 4):
        check_counts(interval=interval, max_images=max_images)
        self.interval, self.max_images = interval, max_images
        self._active = False  # whether this process draws
        self._listening = ExitStack()
        self._input: torch.Tensor | None = None
        self._log = DecisionLog()

    def before_train(self, runner) -> None:
        """Finds the backbone, and whether there is a place for pictures."""
        self._stop()
        self._model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        backbones = find_sparse_backbones(self._model, type(self).__name__)
        self._backbone = next(iter(backbones.values()))
        self._active = is_main_process() and _takes_images(runner.visualizer)
        if is_main_process() and not self._active:
            print_log(
                'KeepMapHook: no backend of the visualizer takes images, so none are drawn; '
                "set visualizer=dict(vis_backends=[dict(type='LocalVisBackend')])",
                'current',
                logging.WARNING,
            )

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Listens to the backbone if this iteration is due."""
        self._stop()  # an iteration that raised has no end
        step = runner.iter + 1
        if self._active and (step == 1 or step % self.interval == 0):
            self._listen()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Draws what was heard."""
        x, log = self._input, self._log
        self._stop()
        if x is None or not log:
            return
        preprocessor = getattr(self._model, 'data_preprocessor', None)
        for i, image in enumerate(x[: self.max_images]):
            picture = draw_decisions(input_as_image(image, preprocessor), log.decisions, i)
            # No slash in the name: the local backend takes it for a folder that is not there.
            runner.visualizer.add_image(f'keep_maps_{i}', picture, runner.iter + 1)

    def after_train(self, runner) -> None:
        """Leaves the model as it was found."""
        self._stop()

    def _listen(self) -> None:
        listeners = {TokenPredictor: self._log.note, self._backbone: self._finish}
        self._listening.enter_context(Recorder(self._backbone, listeners))

    def _finish(self, name: str, backbone: torch.nn.Module, args: tuple, output) -> None:
        self._input = args[0].detach()
        self._listening.close()  # later forwards of the iteration do not count

    def _stop(self) -> None:
        self._listening.close()
        self._input, self._log = None, DecisionLog()


def _takes_images(visualizer: Visualizer) -> bool:
    return any(
        type(backend).add_image is not BaseVisBackend.add_image
        for backend in visualizer._vis_backends.values()
    )
