"""StackedMuon against ``torch.optim.Muon``, and what orthogonalising does."""

from __future__ import annotations

import pytest
import torch

from train.base.muon import StackedMuon, orthogonalise

SHAPES = [(16, 16), (48, 16), (16, 16), (16, 48)]


def matrices(seed: int) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def test_three_steps_agree_with_torch() -> None:
    ours, theirs = matrices(0), matrices(0)
    stacked = StackedMuon(ours, lr=0.1, momentum=0.9)
    reference = torch.optim.Muon(theirs, lr=0.1, momentum=0.9, weight_decay=0.0)
    for step in range(3):
        for a, b, g in zip(ours, theirs, matrices(step + 1), strict=True):
            a.grad, b.grad = g.detach().clone(), g.detach().clone()
        stacked.step()
        reference.step()
    for a, b, start in zip(ours, theirs, matrices(0), strict=True):
        assert (a - start).abs().max() > 0.05
        torch.testing.assert_close(
            a, b, atol=3 * 0.1 * 2 * torch.finfo(torch.bfloat16).eps, rtol=0
        )  # three steps at 0.1


def test_singular_values_come_near_one_for_wide_and_tall() -> None:
    for shape in ((2, 8, 24), (2, 24, 8)):
        values = torch.linalg.svdvals(
            orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0))).float()
        )
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_each_matrix_of_a_stack_is_its_own() -> None:
    x = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    both = orthogonalise(torch.cat([x, 2**13 * x]))
    torch.testing.assert_close(both[:3], both[3:])


def test_a_matrix_without_gradient_stays() -> None:
    params = matrices(0)
    params[0].grad = torch.ones(16, 16)
    StackedMuon(params).step()
    assert all(torch.equal(a, b) for a, b in zip(params[1:], matrices(0)[1:], strict=True))
    assert not torch.equal(params[0], matrices(0)[0])


@pytest.mark.parametrize(("shape", "settings"), [((3,), {}), ((3, 3), {"lr": 0.0}), ((3, 3), {"momentum": 1.0})])
def test_wrong_settings_are_refused(shape: tuple[int, ...], settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="got"):
        StackedMuon([torch.nn.Parameter(torch.zeros(shape))], **settings)
