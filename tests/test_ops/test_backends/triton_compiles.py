"""The kernels compile for GPUs that need not be there; test_triton.py runs this file."""

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dynsp_mm.ops.backends.triton import bias_gelu, gather_layer_norm, launch, scale_scatter_add

POINTERS = {
    torch.float32: '*fp32',
    torch.float16: '*fp16',
    torch.bfloat16: '*bf16',
    torch.int64: '*i64',
}


class Compiler:
    """Compiles what would be launched.

    Args:
        capability: Of the GPU, such as 80.
    """

    def __init__(self, capability):
        self.target = GPUTarget('cuda', capability, 32)
        self.compiled = []

    def launch(self, blocks, kernel, grid, *args):
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
    x = torch.zeros(40, C, dtype=dtype, requires_grad=True)
    vector = torch.zeros(C, dtype=dtype, requires_grad=True)
    rows = torch.arange(30)
    gather_layer_norm(x, rows, vector, vector).sum().backward()
    bias_gelu(x, vector).sum().backward()
    scale_scatter_add(x, rows, x[:30], vector, vector).sum().backward()
    names = [
        f'{module}_{direction}'
        for module in ('layer_norm', 'bias_gelu', 'scatter_add')
        for direction in ('forward', 'backward')
    ]
    assert compiler.compiled == names
    # Without rows and vectors, and without a gradient of the tokens.
    gather_layer_norm(x).sum().backward()
    gather_layer_norm(x.detach(), None, vector).sum().backward()
    scale_scatter_add(x, None, x).sum().backward()
    assert len(compiler.compiled) == 12
