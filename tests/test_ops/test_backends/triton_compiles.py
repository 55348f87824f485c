"""The kernels compile for GPUs that need not be there; test_triton.py runs this file."""

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dynsp_mm.ops.backends.triton import launch
from dynsp_mm.ops.backends.triton.bias_gelu import bias_gelu
from dynsp_mm.ops.backends.triton.layer_norm import gather_layer_norm
from dynsp_mm.ops.backends.triton.scatter_add import scale_scatter_add_

POINTERS = {
    torch.float32: '*fp32',
    torch.float16: '*fp16',
    torch.bfloat16: '*bf16',
    torch.int64: '*i64',
}


class Compiler:
    """Compiles what would be launched.

    Args:
        capability: Compute capability of the GPU, such as 80.
    """

    def __init__(self, capability):
        self.target = GPUTarget('cuda', capability, 32)
        self.compiled = []

    def launch(self, blocks, kernel, *args):
        """Takes the place of ``Blocks.launch``; specialises on arguments as Triton does."""
        signature, constants, attributes = {}, {}, {}
        sizes = dict(BLOCK_K=blocks.rows, BLOCK_C=blocks.columns)
        for i, (name, value) in enumerate(zip(kernel.arg_names, (*args, *sizes.values()))):
            if value is None or name in sizes or (name, value) == ('C', 1):
                signature[name], constants[name] = 'constexpr', value
            elif isinstance(value, torch.Tensor):
                signature[name] = POINTERS[value.dtype]
            else:
                signature[name] = 'i32' if isinstance(value, int) else 'fp32'
            if isinstance(value, torch.Tensor) or (name == 'C' and value % 16 == 0):
                attributes[(i,)] = [['tt.divisibility', 16]]
        source = ASTSource(kernel, signature, constants, attributes)
        binary = triton.compile(source, self.target, dict(num_warps=blocks.warps))
        assert binary.asm['cubin']
        self.compiled.append(f'{kernel.__module__.split(".")[-1]}{kernel.__name__}')


@pytest.mark.parametrize(
    'C, dtype, capability',
    [(1, torch.float32, 90), (96, torch.float16, 80), (770, torch.bfloat16, 90)],
)
def test_compiles(C, dtype, capability, monkeypatch, tmp_path):
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    compiler = Compiler(capability)
    monkeypatch.setattr(
        launch.Blocks, 'launch', lambda blocks, *args: compiler.launch(blocks, *args)
    )
    x = torch.zeros(40, C, dtype=dtype)
    vector = torch.zeros(C, dtype=dtype)
    rows = torch.arange(30)
    gather_layer_norm(x, rows, vector, vector)
    bias_gelu(x, vector)
    scale_scatter_add_(x, rows, x[:30], vector, vector)
    assert compiler.compiled == ['layer_norm_forward', 'bias_gelu_forward', 'scatter_add_forward']
    # Without rows, without some of the vectors, and without any.
    gather_layer_norm(x)
    gather_layer_norm(x, None, vector)
    gather_layer_norm(x, rows)
    scale_scatter_add_(x, None, x)
    scale_scatter_add_(x, rows, x[:30], None, vector)
    assert len(compiler.compiled) == 8
