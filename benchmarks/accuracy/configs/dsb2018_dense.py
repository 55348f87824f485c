"""Nuclei, dense, trained on as long as the sparse rows are."""

_base_ = './_base_/dsb2018_rows.py'
