"""Fast tests first; slow ones last."""

import pytest
import torch


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker('slow') is not None)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def deterministic_gumbel(monkeypatch):
    """Replaces sampling by straight-through argmax of the same scores, as golden files do."""

    def argmax(logits, tau=1, hard=False, eps=1e-10, dim=-1):
        soft = logits.softmax(dim)
        index = soft.max(dim, keepdim=True)[1]
        one_hot = torch.zeros_like(logits).scatter_(dim, index, 1.0)
        return one_hot - soft.detach() + soft

    monkeypatch.setattr(torch.nn.functional, 'gumbel_softmax', argmax)
