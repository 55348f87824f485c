"""Triton kernels for what lies between the matrix products of prepared modules.

The modules with kernels import triton; nothing else in dynsp_mm does, and importing this package
does not. :meth:`TritonBackend.not_supported_reasons` says where the kernels can run. They serve
inference and have no gradients.

The kernels have run in Triton's interpreter on a CPU (Triton 3.6), and compiled for NVIDIA GPUs of
compute capability 8.0 (Triton 2.1, 3.6) and 9.0 (3.6). They have not run on a GPU, and nothing is
known of their speed.
"""

from .backend import TritonBackend

__all__ = ['TritonBackend']
