"""Triton kernels of the sparse dual-path blocks, with gradients.

Importing this package imports triton; nothing else in dynsp_mm does, and
:func:`dynsp_mm.ops.backends.resolve.resolve_backend` says where it can run.

The kernels have run in Triton's interpreter on a CPU (Triton 3.6), and compiled for NVIDIA GPUs of
compute capability 8.0 (Triton 2.1, 3.6) and 9.0 (3.6). They have not run on a GPU, and nothing is
known of their speed.
"""

from .bias_gelu import bias_gelu
from .layer_norm import gather_layer_norm
from .scatter_add import scale_scatter_add, scale_scatter_add_

__all__ = ['bias_gelu', 'gather_layer_norm', 'scale_scatter_add', 'scale_scatter_add_']
