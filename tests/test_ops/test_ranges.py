from contextlib import nullcontext

import pytest
import torch
from torch.profiler import ProfilerActivity

from dynsp_mm.analysis.memory import quiet_profile
from dynsp_mm.ops import named_range


def names(profiler):
    return {event.name for event in profiler.events()}


def test_marks_a_trace():
    with quiet_profile(activities=[ProfilerActivity.CPU]) as profiler:
        with named_range('ours'):
            torch.zeros(3).add(1)
    assert {'ours', 'aten::add'} <= names(profiler)
    inside = next(event for event in profiler.events() if event.name == 'aten::add')
    assert inside.cpu_parent.name == 'ours'


def test_is_nothing_without_a_profiler():
    assert isinstance(named_range('ours'), nullcontext)
    with quiet_profile(activities=[ProfilerActivity.CPU]):
        assert not isinstance(named_range('ours'), nullcontext)
    assert isinstance(named_range('ours'), nullcontext)


@pytest.mark.parametrize('profiled', [False, True])
def test_is_nothing_in_a_graph(profiled):
    """One graph, whether a profiler runs while it is compiled or exported."""

    def double(x):
        with named_range('ours'):
            return 2 * x

    graphs = []

    def keep(graph, inputs):
        graphs.append([node.op for node in graph.graph.nodes])
        return graph

    class Module(torch.nn.Module):
        def forward(self, x):
            return double(x)

    compiled = torch.compile(double, backend=keep, fullgraph=True)
    with quiet_profile(activities=[ProfilerActivity.CPU]) if profiled else nullcontext():
        assert compiled(torch.ones(3)).tolist() == [2, 2, 2]
        exported = torch.export.export(Module(), (torch.ones(3),))
        traced = torch.jit.trace(double, torch.ones(3))
    assert [ops.count('call_function') for ops in graphs] == [1]
    calls = [node for node in exported.graph.nodes if node.op == 'call_function']
    assert len(calls) == 1
    assert not any('profiler' in node.kind() for node in traced.graph.nodes())
