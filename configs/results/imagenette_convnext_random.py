"""Imagenette, ConvNeXt, fast and slow paths at random positions, with the same teacher."""
_base_ = './imagenette_convnext_sparse_teacher.py'

model = dict(backbone=dict(selection='random'))
