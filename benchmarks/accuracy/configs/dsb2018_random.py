"""Nuclei, fast and slow paths at random positions, with the same teacher."""

_base_ = './dsb2018_sparse_teacher.py'

model = dict(backbone=dict(selection='random'))
