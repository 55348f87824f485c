"""Packaging of dynsp_mm; the metadata stands in pyproject.toml."""
from setuptools import setup

setup()
