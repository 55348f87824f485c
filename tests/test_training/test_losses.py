import pytest
import torch

from dynsp_mm.training import keep_ratio_loss, logit_distillation_loss, map_distillation_loss


def test_definition():
    masks = [
        torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]])[..., None],
        torch.tensor([[1.0, 1], [0, 0]])[..., None],
    ]
    expected = (((0.25 - 0.5) ** 2 + (1 - 0.5) ** 2) / 2 + ((1 - 0.3) ** 2 + 0.3**2) / 2) / 2
    assert abs(keep_ratio_loss(masks, [0.5, 0.3]).item() - expected) < 1e-6


def test_needs_a_ratio_for_each_mask():
    with pytest.raises(ValueError, match='1 masks and 2 ratios'):
        keep_ratio_loss([torch.ones(1, 2, 1)], [0.5, 0.5])
    with pytest.raises(ValueError, match='0 masks'):
        keep_ratio_loss([], [])


def test_logits_as_the_release_computes_them():
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    expected = torch.nn.functional.kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), reduction='batchmean', log_target=True
    )
    torch.testing.assert_close(logit_distillation_loss(student, teacher), expected)
    assert logit_distillation_loss(teacher, teacher).abs() < 1e-6
    # Not symmetric: the teacher's probabilities weigh.
    assert logit_distillation_loss(student, teacher) != logit_distillation_loss(teacher, student)


def test_logits_at_positions_are_averaged_over_them():
    student, teacher = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    torch.testing.assert_close(
        logit_distillation_loss(student, teacher), logit_distillation_loss(*flat)
    )


def test_maps():
    student = torch.ones(2, 3, 4, 4, requires_grad=True)
    loss = map_distillation_loss(student, torch.zeros(2, 3, 4, 4))
    assert loss == 1
    loss.backward()
    torch.testing.assert_close(student.grad, torch.full_like(student, 2 / 96))


@pytest.mark.parametrize('loss', [map_distillation_loss, logit_distillation_loss])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_low_precision_is_summed_in_float32(loss, dtype):
    student, teacher = torch.randn(2, 8, 4, 4).to(dtype), torch.randn(2, 8, 4, 4).to(dtype)
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(student.double(), teacher.double()).float())
