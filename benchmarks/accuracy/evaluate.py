"""What is measured of a trained network: metrics, realised keep ratios, multiply-adds."""

from mmengine.hooks import Hook

from dynsp_mm import record_decisions
from dynsp_mm.analysis import count_macs

COUNTED = 20  # images on which multiply-adds are averaged


class Meter(Hook):
    """Realised keep ratios over all tested images."""

    priority = 'VERY_LOW'

    def __init__(self, log):
        self.log = log
        self.sums, self.images = {}, 0

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for name, decisions in self.log.by_predictor().items():
            total = sum(float(decision.keep_ratio.sum()) for decision in decisions)
            self.sums[name] = self.sums.get(name, 0.0) + total
            self.images += sum(len(decision.keep_ratio) for decision in decisions) * (
                name == next(iter(self.sums))
            )
        self.log.clear()

    @property
    def ratios(self):
        return [round(total / self.images, 6) for total in self.sums.values()]


def mean_macs(backbone, images):
    """Multiply-adds of a backbone, averaged over the first images of a test."""
    counts = [count_macs(backbone, image) for image in images]
    return sum(counts) / len(counts)


def evaluate(runner):
    """Metrics of a runner's model on the test set, realised ratios and multiply-adds."""
    images = []

    def keep(module, args):
        images.extend(image[None] for image in args[0][: max(0, COUNTED - len(images))])

    with record_decisions(runner.model) as log:
        meter = Meter(log)
        runner.register_hook(meter)
        handle = runner.model.backbone.register_forward_pre_hook(keep)
        metrics = runner.test()
        handle.remove()
    return metrics, meter.ratios, mean_macs(runner.model.backbone, images)
