"""What a cascade learns from: rounds and the forwards after them, with the tokens committed and the positions left."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice, pairwise

import pytest
import torch

from decoding.policies.threshold import Threshold
from decoding.policies.verified import Verified
from decoding.policy import Policy, best
from decoding.state import Proposal
from models.denoiser import Prediction
from train.cascade.examples import LAST, TaskPrompts, candidates, divergence, examples
from train.cascade.leading import CascadeExamples
from train.head.settings import CascadeFitting, TaskRun
from train.traces.drivers import policy_of


class FixedSteps(Policy):
    """Commits the surest position of a row a round, and opens a block a round."""

    step_budget = 1

    def propose(self, state, reading):
        return Proposal.single(state, reading, best(reading.confidence, reading.rows).long())


pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|num_workers|enable_nested_tensor|IterableDataset)")


def test_the_target_is_the_mass_of_the_candidates_and_of_the_rest():
    logits = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.05, 0.04, 0.01], [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]]).log()
    rows = torch.tensor([[True, False, True]])
    prediction = Prediction(logits, rows, torch.tensor([3]))
    tokens = torch.tensor([[[6, 5, 4, 3, 2]] * 3])
    known = torch.full((1, 3, 5), -1.0)
    known[0, 0, 4] = -100.0  # no candidate
    left = torch.tensor([[True, False, False]])
    expected = torch.tensor([[0.01, 0.04, 0.05, 0.1, 0.0, 0.8]])
    torch.testing.assert_close(candidates(prediction, tokens, known, left).exp(), expected)


def test_divergence_is_in_nats():
    one, other = (
        torch.tensor([[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]]).log(),
        torch.tensor([[0.25, 0.35, 0.1, 0.1, 0.1, 0.1]]).log(),
    )
    assert divergence(one, other).item() == pytest.approx(0.5 * math.log(2) + 0.1 * math.log(0.1 / 0.35))
    assert divergence(one, one).item() == 0


def test_a_lesson_is_a_round_and_the_forward_after_it(base, countdown, taught):
    assert len(taught) > 2
    for example in taught:
        reading = example.reading
        assert not (example.left & example.committed).any()
        assert not ((example.left | example.committed) & ~reading.rows).any()
        assert example.committed.any(-1).all()
        assert example.left.any(-1).all()  # rows that are done have left
        assert torch.allclose(example.target.exp().sum(-1), torch.ones(len(example.target)), atol=1e-5)
    first = taught[0]
    width = first.reading.rows.shape[1]
    prompts = base.encode(countdown.texts)
    tokens = torch.full((len(prompts), width), base.mask_id)
    for row, ids in enumerate(prompts):
        tokens[row, width - countdown.gen_length - len(ids) : width - countdown.gen_length] = torch.tensor(ids)
    mask = torch.arange(width) >= width - countdown.gen_length - torch.tensor([[len(ids)] for ids in prompts])
    known = torch.where(first.committed, first.reading.token, tokens)
    after = base.logits(known, mask)[first.left].log_softmax(-1)
    expected = after.gather(-1, first.reading.top_tokens[first.left])
    torch.testing.assert_close(first.target[:, :5], expected.clamp(min=-100), atol=1e-3, rtol=1e-3)


def test_what_follows_drafts_is_foretold_from_the_reading_before_them(base, countdown):
    """At depth 2 the label is the base's forward of the canvas with a draft in place."""
    policy = Verified(Threshold(0.6), head=base.head, canvases=3)
    led = list(examples(base, countdown, countdown.texts, policy, base.head.taps_ahead, whole=True))
    deeper = [example for example in led if example.depth > 1]
    assert {example.depth for example in led} == {1, 2, 3}
    for example in deeper:
        assert not (example.left & example.committed).any()
        assert example.committed.any(-1).all()
    width = led[0].reading.rows.shape[1]
    draft = next(example for example in deeper if example.committed.shape[0] == len(countdown.texts))
    prompts = base.encode(countdown.texts)
    tokens = torch.full((len(prompts), width), base.mask_id)
    for row, ids in enumerate(prompts):
        tokens[row, width - countdown.gen_length - len(ids) : width - countdown.gen_length] = torch.tensor(ids)
    assert draft.reading.rows.sum() == len(prompts) * countdown.gen_length  # the first round: nothing else is committed
    mask = torch.arange(width) >= width - countdown.gen_length - torch.tensor([[len(ids)] for ids in prompts])
    logits = base.logits(torch.where(draft.committed, draft.reading.token, tokens), mask)[draft.left]
    torch.testing.assert_close(draft.logits, logits, atol=1e-3, rtol=1e-3)
    expected = logits.log_softmax(-1).gather(-1, draft.reading.top_tokens[draft.left])
    torch.testing.assert_close(draft.target[:, :5], expected.clamp(min=-100), atol=1e-3, rtol=1e-3)


def test_a_driver_that_can_be_checked_leads_with_drafts(base, countdown):
    stream = CascadeExamples(base, [countdown], [Threshold(0.6)], base.head.taps_ahead, batch_size=6, seed=0, depth=2)
    assert stream.leader(Threshold(0.6), 0.5) == Verified(Threshold(0.6), head=base.head, canvases=2)
    assert max(example.depth for example in islice(stream, 12)) == 2
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        CascadeFitting(depth=0)


def test_the_label_of_every_round_is_the_forward_of_what_it_commits(base, countdown, taught):
    """Followed by hand while no row has left: what is committed stays, and the target is the softmax of the base on it."""
    width = taught[0].reading.rows.shape[1]
    lengths = [len(ids) for ids in base.encode(countdown.texts)]
    mask = torch.arange(width) >= width - countdown.gen_length - torch.tensor(lengths).unsqueeze(1)
    tokens = torch.full((len(lengths), width), base.mask_id)
    for row, ids in enumerate(base.encode(countdown.texts)):
        tokens[row, width - countdown.gen_length - len(ids) : width - countdown.gen_length] = torch.tensor(ids)
    checked = 0
    for example in taught[:3]:
        if len(example.left) != len(tokens):
            break  # rows have left: which ones, the example does not say
        tokens = torch.where(example.committed, example.reading.token, tokens)
        probabilities = base.logits(tokens, mask)[example.left].softmax(-1)
        five = probabilities.gather(-1, example.reading.top_tokens[example.left])
        expected = torch.cat([five, 1 - five.sum(-1, keepdim=True)], -1)
        torch.testing.assert_close(example.target.exp(), expected, atol=1e-4, rtol=1e-3)
        checked += 1
    assert checked


def test_positions_of_a_block_that_opens_later_are_no_part_of_an_example(base, countdown):
    """A budget of one round opens the next block while the last one still has masks."""
    narrow = replace(countdown, block_length=countdown.gen_length // 4)
    found = list(examples(base, narrow, countdown.texts[:4], FixedSteps(), base.head.taps_ahead))
    opened = 0
    for one, following in pairwise(found):
        assert not (one.left & ~one.reading.rows).any()
        assert len(one.target) == int(one.left.sum()) == len(one.foretold(base.head.cascade)) == len(one.unmoved())
        if len(one.left) == len(following.left):
            opened += int((following.reading.rows & ~one.reading.rows).sum())
            assert torch.equal(one.left, following.reading.rows & one.reading.rows)
    assert opened > 0


def test_what_is_foretold_is_of_the_positions_left(base, countdown, taught):
    """Rows whose tail an EOS has filled are told by the cascade, and are no part of the example."""
    one = taught[0]
    fewer = one.left & (one.left.long().cumsum(-1) % 2 == 0)
    part = replace(one, left=fewer, target=one.target[fewer[one.left]])
    torch.testing.assert_close(
        part.foretold(base.head.cascade), one.foretold(base.head.cascade)[fewer[one.left]], atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(part.unmoved(), one.unmoved()[fewer[one.left]])


def test_rows_of_an_example_know_their_prompts(base, countdown):
    """What a row has committed is what a decode of its prompt alone commits."""
    several = list(examples(base, countdown, countdown.texts[:4], Threshold(0.7), base.head.taps_ahead))
    last = several[-1]
    for row, number in enumerate(last.prompt.tolist()):
        alone = list(
            examples(base, countdown, countdown.texts[number : number + 1], Threshold(0.7), base.head.taps_ahead)
        )
        again = alone[len(several) - 1]
        canvas = countdown.gen_length
        assert torch.equal(again.committed[0, -canvas:], last.committed[row, -canvas:])
        assert torch.equal(again.left[0, -canvas:], last.left[row, -canvas:])


def test_a_batch_is_left_when_fewer_than_a_quarter_is_unfinished(base, countdown, taught):
    sizes = [len(one.left) for one in taught]
    assert sizes == sorted(sizes, reverse=True)
    assert all(LAST * size >= len(countdown.texts) for size in sizes)


def test_every_task_gives_as_many_lessons_however_long_its_decodes(base):
    tasks = [TaskPrompts.of(name, TaskRun(prompts=4), "train", None, seed=0) for name in ("lists", "countdown4")]
    drivers = [Threshold(0.9), Threshold(0.99)]
    stream, again = (
        CascadeExamples(base, tasks, drivers, base.head.taps_ahead, batch_size=2, seed=3) for _ in range(2)
    )
    widths = [example.left.shape[1] for example in islice(stream, 60)]
    short, long = sorted({min(widths), max(widths)})
    assert widths == [example.left.shape[1] for example in islice(again, 60)]
    of_lists = sum(width <= (short + long) / 2 for width in widths)
    assert 15 <= of_lists <= 45


class SecondBest(Policy):
    """Commits the second candidate of the surest position, as a cascade may."""

    def propose(self, state, reading):
        second = replace(reading, token=reading.top_tokens[..., 1])
        return Proposal.single(state, second, best(reading.confidence, reading.rows).long())


def test_an_example_tells_the_token_that_was_committed(base, countdown):
    one = next(examples(base, countdown, countdown.texts[:2], SecondBest(), base.head.taps_ahead))
    assert torch.equal(one.reading.token[one.committed], one.reading.top_tokens[..., 1][one.committed])


@pytest.mark.parametrize(
    "entry",
    [
        {"policy": "learned-parity", "by": "cascade", "threshold": 0.9, "gamma": 1.0, "min_masks": 1, "gate": 0.0},
        {"policy": "learned-ete", "risk_bound": 0.1, "gamma": 1.0, "min_masks": 1},
    ],
)
def test_a_driver_may_explore(base, countdown, entry):
    """Its tokens of medium confidence are part of what an example commits."""
    fitting = CascadeFitting(drivers=(entry,))
    policy = policy_of(fitting.drivers[0], base)
    found = list(islice(examples(base, countdown, countdown.texts[:4], policy, base.head.taps_ahead), 3))
    least = min(float(one.reading.confidence[one.committed].min()) for one in found)
    assert least < 0.6
    assert all(one.committed.sum(-1).min() > 1 for one in found)


def test_the_target_is_read_at_the_positions_left_and_no_others():
    """The forward predicts two positions; the example is of the second."""
    logits = torch.tensor([[0.5, 0.1, 0.1, 0.1, 0.1, 0.1], [0.05, 0.55, 0.1, 0.1, 0.1, 0.1]]).log()
    prediction = Prediction(logits, torch.tensor([[True, False, True]]), torch.tensor([3]))
    tokens = torch.tensor([[[0, 2, 3, 4, 5]] * 3])
    found = candidates(prediction, tokens, torch.full((1, 3, 5), -1.0), torch.tensor([[False, False, True]]))
    torch.testing.assert_close(found.exp(), torch.tensor([[0.05, 0.1, 0.1, 0.1, 0.1, 0.55]]))
