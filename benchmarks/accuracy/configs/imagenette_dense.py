"""Imagenette, dense, trained on as long as the sparse rows are."""

_base_ = './_base_/imagenette_rows.py'
