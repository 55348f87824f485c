"""Imagenette, fast and slow paths at random positions, with the same teacher."""

_base_ = './imagenette_sparse_teacher.py'

model = dict(backbone=dict(selection='random'))
