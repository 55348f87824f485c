"""Running a single block."""

from dynsp_mm.sparsity import TokenStream, find_unit
from dynsp_mm.sparsity.units import DENSE


def run_block(block, tokens, grid, decision=None, unit='dual_path', fast=None, owned=False):
    """The stream after a block; dense without a decision."""
    stream = TokenStream(tokens, grid, fast=fast, owned=owned)
    return block(stream, DENSE if decision is None else find_unit(unit), decision)
