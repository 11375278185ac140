"""Rules that fix how many positions a round commits."""

import pytest
import torch

from decoding.policies.quota import Quota, Sequential
from decoding.state import Reason

FIGURES = {
    "second": [0.1, 0.45, 0.3, 0.0],
    "entropy": [0.9, 0.2, 0.8, 1.0],
    "noise": [0.1, 0.2, 0.3, 0.9],
}


@pytest.mark.parametrize(
    ("order", "first", "second"),
    [
        ("confidence", 2, 1),
        ("margin", 0, 3),
        ("entropy", 1, 2),
        ("random", 3, 2),
        ("left_to_right", 0, 1),
        ("right_to_left", 3, 2),
    ],
)
def test_the_order_decides_which_position_comes_first(committed, order, first, second):
    confidence = [0.5, 0.6, 0.61, 0.35]
    assert committed(Sequential(order=order), confidence, **FIGURES) == {first: Reason.EXPLOIT}
    both = committed(Quota(steps=2, order=order), confidence, **FIGURES)
    assert both == dict.fromkeys(sorted((first, second)), Reason.EXPLOIT)


def test_only_the_random_order_draws():
    assert Quota(order="random").needs.noise
    assert Sequential(order="random").needs.noise
    assert not Quota().needs.noise


@pytest.mark.parametrize(
    ("steps", "per_round"),
    [(3, [4, 4, 4]), (6, [2, 2] * 3), (9, [2, 1, 1] * 3), (12, [1] * 12), (24, [1] * 12)],
)
def test_quota_spreads_each_block_over_its_steps_with_the_remainder_first(run, denoisers, prompts, steps, per_round):
    state, counts = run(denoisers["flat"], Quota(steps=steps), prompts, early_stop=False)
    canvas = state.committed_round[:, 4:]
    assert counts.nfe == len(per_round)
    for i, size in enumerate(per_round, 1):
        assert ((canvas == i).sum(-1) == size).all()
    assert (canvas.view(3, 3, 4).amax(-1)[:, :-1] < canvas.view(3, 3, 4).amin(-1)[:, 1:]).all()


def llada(denoiser, prompt, steps):
    """LLaDA's generate for one prompt, low-confidence remasking, canvas 12 in blocks of 4."""
    x, mask = torch.cat([prompt, prompt.new_full((12,), denoiser.mask_id)]), denoiser.mask_id
    for end in range(len(prompt) + 4, len(x) + 1, 4):
        for step in range(steps // 3):
            quota = 4 // (steps // 3) + (step < 4 % (steps // 3))
            z = denoiser.logits(x[None])[0]
            token = z.index_fill(-1, torch.tensor(mask), -torch.inf).argmax(-1)
            c = z.softmax(-1).gather(-1, token[:, None])[:, 0]
            c = torch.where((x == mask) & (torch.arange(len(x)) < end), c, -torch.inf)
            chosen = c.topk(quota).indices
            x[chosen] = token[chosen]
    return x


@pytest.mark.parametrize("steps", [3, 6, 9, 12])
def test_quota_is_llada_low_confidence_remasking(run, denoisers, prompts, steps):
    state, _ = run(denoisers["context"], Quota(steps=steps), prompts, early_stop=False)
    assert torch.equal(state.tokens, torch.stack([llada(denoisers["context"], p, steps) for p in prompts]))


def test_a_step_for_every_position_is_sequential(run, denoisers, prompts):
    one, _ = run(denoisers["context"], Quota(steps=12, order="margin"), prompts)
    two, _ = run(denoisers["context"], Sequential(order="margin"), prompts)
    assert torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.committed_round, two.committed_round)


def test_random_orders_differ_between_seeds_and_draw_every_position(run, denoisers, prompts):
    decodes = [run(denoisers["flat"], Sequential(order="random"), prompts, seed=s, early_stop=False)[0] for s in (1, 2)]
    assert not torch.equal(decodes[0].committed_round, decodes[1].committed_round)


def test_steps_that_the_blocks_cannot_share_are_refused(run, denoisers, prompts):
    with pytest.raises(ValueError, match=r"steps must be a multiple of the number of blocks \(3\), got 7"):
        run(denoisers["flat"], Quota(steps=7), prompts)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        Quota(steps=0)
