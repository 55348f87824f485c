"""Hooks of the runner.

``spatial`` adds the losses of spatially sparse training, ``annealing`` lowers keep ratios, ``hold``
lets new parameters learn alone at first, ``keep_maps`` shows what is kept.
"""
