"""Rules that look at each position alone."""

from dataclasses import replace

import pytest
import torch

from decoding.policies.bounds import Factor
from decoding.policies.threshold import EntropyThreshold, MarginThreshold, Threshold
from decoding.state import Reason

EXPLOIT, FORCED = Reason.EXPLOIT, Reason.FORCED


def test_threshold_commits_what_reaches_it_and_nothing_below(committed):
    assert committed(Threshold(0.75), [0.75, 0.7499, 0.9, 0.2]) == {0: EXPLOIT, 2: EXPLOIT}


def test_threshold_falls_back_to_the_best_position_alone_leftmost_of_equals(committed):
    assert committed(Threshold(0.9), [0.3, 0.5, 0.5, 0.4]) == {1: FORCED}


def test_margin_asks_for_a_gap_between_the_two_best(committed):
    second = [0.25, 0.26, 0.0, 0.0]
    assert committed(MarginThreshold(0.5), [0.75, 0.75, 0.5, 0.45], second=second) == {0: EXPLOIT, 2: EXPLOIT}
    assert committed(MarginThreshold(0.5), [0.45, 0.4], second=[0.4, 0.1]) == {1: FORCED}


def test_entropy_threshold_accepts_below_and_falls_back_to_the_lowest(committed):
    assert committed(EntropyThreshold(0.5), [0.9, 0.2, 0.9], entropy=[0.5, 0.25, 0.51]) == {0: EXPLOIT, 1: EXPLOIT}
    assert committed(EntropyThreshold(0.1), [0.9, 0.2, 0.9], entropy=[0.5, 0.25, 0.51]) == {1: FORCED}


def test_positions_that_no_forward_read_are_never_committed(canvas, reading_of):
    reading = reading_of([0.95, 0.95, 0.95])
    unread = replace(reading, rows=torch.tensor([[False, True, False]]))
    assert Threshold().propose(canvas(3), unread).reason.tolist() == [[[0, 1, 0]]]


def published(denoiser, prompt, take):
    """Fast-dLLM's loop for one prompt; `take` maps confidences in descending order to how many of them to commit."""
    x, calls = torch.cat([prompt, prompt.new_full((12,), denoiser.mask_id)]), 0
    for end in range(len(prompt) + 4, len(x) + 1, 4):
        while (x[:end] == denoiser.mask_id).any():
            z, calls = denoiser.logits(x[None])[0], calls + 1
            token = z.index_fill(-1, torch.tensor(denoiser.mask_id), -torch.inf).argmax(-1)
            c = z.softmax(-1).gather(-1, token[:, None])[:, 0]
            c = torch.where((x == denoiser.mask_id) & (torch.arange(len(x)) < end), c, -torch.inf)
            order = c.argsort(descending=True, stable=True)
            chosen = order[: max(1, take([v for v in c[order].tolist() if v >= 0]))]
            x[chosen] = token[chosen]
    return x, calls


@pytest.mark.parametrize(
    ("policy", "take"),
    [
        (Threshold(0.9), lambda c: sum(v >= 0.9 for v in c)),
        (Threshold(0.5), lambda c: sum(v >= 0.5 for v in c)),
        (Factor(1.0), lambda c: max([m for m, v in enumerate(c, 1) if (m + 1) * (1 - v) <= 1.0], default=0)),
        (Factor(0.5), lambda c: max([m for m, v in enumerate(c, 1) if (m + 1) * (1 - v) <= 0.5], default=0)),
    ],
)
@pytest.mark.parametrize("name", ["flat", "sharp", "context"])
def test_tokens_and_forwards_are_those_of_the_published_loop(run, denoisers, prompts, policy, take, name):
    state, counts = run(denoisers[name], policy, prompts, early_stop=False)
    for row, prompt in enumerate(prompts):
        tokens, calls = published(denoisers[name], prompt, take)
        assert torch.equal(state.tokens[row], tokens)
        assert counts.rounds[row] == calls


@pytest.mark.parametrize(
    "make",
    [
        lambda: Threshold(0.0),
        lambda: Threshold(1.01),
        lambda: MarginThreshold(0.0),
        lambda: EntropyThreshold(-0.1),
    ],
)
def test_settings_out_of_range_are_refused_by_name_rule_and_value(make):
    with pytest.raises(ValueError, match=r"^(threshold|margin|entropy_threshold) must .*, got -?[0-9.]+$"):
        make()
