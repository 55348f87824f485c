"""Nuclei, fast and slow paths, with the dense network they started from as the teacher."""

_base_ = './dsb2018_sparse.py'

custom_hooks = [dict(type='SpatialSparsityHook', teacher={{_base_.load_from}})]
