"""What belongs to a config without data; whole models are built in test_swap_check.py."""

import pytest
from in_memory import SCOPE
from mmengine.registry import HOOKS, MODELS, init_default_scope

from dynsp_mm.errors import UserError
from dynsp_mm.tooling.harness import build, check_arguments


class Known:
    """Stands for a class of this package."""

    __module__ = 'dynsp_mm.anything'

    def __init__(self, depth=1):
        self.depth = depth


class Takes(Known):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)


class Foreign:
    def __init__(self, depth=1):
        pass


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    init_default_scope(SCOPE)
    for kind in (Known, Takes, Foreign):
        name = f'HarnessTest{kind.__name__}'
        monkeypatch.setitem(MODELS.module_dict, name, kind)
    Takes.__module__ = 'dynsp_mm.anything'


def test_arguments_of_this_package_are_checked_wherever_they_stand():
    bad = dict(type='HarnessTestKnown', depth=2, widht=3)
    for config in (bad, [bad], dict(type='HarnessTestForeign', inner=(dict(x=bad),))):
        with pytest.raises(UserError, match=r'^Known: unknown argument\(s\) widht=3$'):
            check_arguments(config)
    with pytest.raises(UserError, match='widht=3'):
        build(bad)
    with pytest.raises(UserError, match=r'argument\(s\) detph=2, x=1; near are depth$'):
        check_arguments(dict(type='HarnessTestKnown', detph=2, x=1))


def test_arguments_of_hooks():
    with pytest.raises(UserError, match=r'^SpatialSparsityHook: unknown argument\(s\) foo=1$'):
        check_arguments(dict(type='SpatialSparsityHook', foo=1), HOOKS)
    check_arguments(dict(type='SpatialSparsityHook', keep_ratio_weight=1), HOOKS)


def test_what_is_left_to_others():
    for config in (
        None,
        dict(type='HarnessTestForeign', widht=3),  # its library says so itself
        dict(type='HarnessTestTakes', widht=3),  # looks at its arguments itself
        dict(type='HarnessTestNothing', widht=3),  # the registry says so
        dict(type=Known, depth=3, _scope_='mmengine'),
        dict(widht=3),
    ):
        check_arguments(config)
    assert build(dict(type='HarnessTestKnown', depth=2)).depth == 2
