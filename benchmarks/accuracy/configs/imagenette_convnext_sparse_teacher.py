"""Imagenette, ConvNeXt with fast and slow paths and the dense network as the teacher."""

_base_ = './imagenette_convnext_sparse.py'

custom_hooks = [dict(type='SpatialSparsityHook', teacher={{_base_.load_from}})]
