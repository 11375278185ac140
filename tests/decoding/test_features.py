"""What a scoring head reads of a state and its reading, worked out by hand on a canvas of six."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from decoding.commit import commit_first
from decoding.features import NAMES, features
from decoding.reading import Reading
from decoding.state import Proposal, Reason, start

LENGTH, MASK, EOS = 8, 5, 4  # a prompt of two, then the canvas
OPEN = [2, 4]  # what is left of the first block after position 3


def reading_at(confidence: dict[int, float], token: dict[int, int], padding: int = 0) -> Reading:
    """A reading of some positions; the runner-up has half of what the candidate leaves."""
    c = torch.tensor([[confidence.get(i - padding, 0.0) for i in range(LENGTH + padding)]])
    blank = Reading.empty(tuple(c.shape), c.device)
    top = torch.stack([c, (1 - c) / 2, *3 * [torch.full_like(c, 1e-12)]], -1).log().clamp(min=-100)
    tokens = torch.tensor([[token.get(i - padding, -1) for i in range(LENGTH + padding)]])
    log_risk = torch.where(c > 0, (-c).log1p(), 0.0)
    return replace(blank, rows=c > 0, token=tokens, confidence=c, log_risk=log_risk, top_log_probs=top, entropy=c / 2)


def third_round(padding: int = 0, tokens: tuple[int, ...] = (1, 1, 1, 1)):
    """The state and the reading of round 3: position 3 was committed in round 1, nothing in round 2."""
    prompt = torch.zeros(1, LENGTH + padding, dtype=torch.long)
    state = start(prompt, gen_length=6, block_length=3, mask_id=MASK, eos_id=EOS)
    first = reading_at({2: 0.5, 3: 0.7, 4: 0.6}, {2: 0, 3: 1, 4: 1}, padding)
    second = reading_at({2: 0.6, 4: 0.4}, {2: tokens[0], 4: tokens[1]}, padding)
    for reading, chosen in ((first, 3), (second, None)):
        reason = torch.zeros_like(state.tokens)
        if chosen is not None:
            reason[0, chosen + padding] = int(Reason.FORCED)
        state = commit_first(state.count(reading), reading, Proposal.single(state, reading, reason))
    return state, reading_at({2: 0.8, 4: 0.45}, {2: tokens[2], 4: tokens[3]}, padding)


def by_name(state, reading, exploit=None) -> dict[str, list[float]]:
    """Each feature at the two positions that are open."""
    exploit = torch.zeros_like(reading.rows) if exploit is None else exploit
    found = features(state, reading, exploit)
    assert found.shape == (*reading.rows.shape, len(NAMES))
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    return {name: found[0, OPEN, i].tolist() for i, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("log_p1", [math.log(0.8), math.log(0.45)]),
        ("log_p2", [math.log(0.1), math.log(0.275)]),
        ("log_p3", [-20, -20]),  # not below
        ("log_p5", [-20, -20]),
        ("log_risk", [math.log(0.2), math.log(0.55)]),
        ("margin", [0.7, 0.175]),
        ("entropy", [0.4, 0.225]),
        ("change_1", [0.2, 0.05]),
        ("change_2", [0.1, -0.2]),
        ("mask_ratio", [5 / 6, 5 / 6]),
        ("frontier", [1, 1]),
        ("opened", [1 / 2, 1 / 2]),
        ("left_gap", [math.log(2), math.log(2)]),  # beside the prompt; beside position 3
        ("right_gap", [math.log(2), math.log(7)]),  # nothing revealed on the right: the length of the canvas
        ("risk_rank", [0, 1 / 2]),
        ("risk_sum", [math.log(0.2), math.log(0.75)]),
    ],
)
def test_a_feature_by_hand(name, expected):
    assert by_name(*third_round())[name] == pytest.approx(expected, rel=1e-5)


def test_stability_compares_the_candidate_with_those_of_the_two_readings_before():
    found = by_name(*third_round(tokens=(1, 1, 1, 1)))
    assert (found["same_1"], found["same_2"]) == ([1, 1], [0, 1])
    found = by_name(*third_round(tokens=(0, 2, 0, 1)))
    assert (found["same_1"], found["same_2"]) == ([1, 0], [1, 1])


def test_only_the_eos_candidate_is_marked():
    assert by_name(*third_round(tokens=(1, 1, EOS, 1)))["is_eos"] == [1, 0]
    state, reading = third_round(tokens=(1, 1, EOS, 1))
    without = replace(state, layout=replace(state.layout, eos_id=None))
    assert by_name(without, reading)["is_eos"] == [0, 0]


def test_the_exploit_set_is_marked():
    state, reading = third_round()
    assert by_name(state, reading, reading.confidence >= 0.8)["exploit"] == [1, 0]


def test_an_opened_block_counts_and_its_masks_are_not_the_frontier():
    state, _ = third_round()
    state = replace(state, opened=state.opened + 1)
    reading = reading_at(dict.fromkeys((2, 4, 5, 6, 7), 0.5), dict.fromkeys((2, 4, 5, 6, 7), 1))
    found = features(state, reading, reading.rows)[0]
    column = dict(zip(NAMES, found.unbind(-1), strict=True))
    assert column["opened"][5] == 1
    assert column["frontier"].tolist() == [0, 0, 1, 0, 1, 0, 0, 0]
    assert column["left_gap"][[5, 6, 7]].expm1().tolist() == pytest.approx([2, 3, 4])
    assert column["risk_rank"][[2, 4, 5, 6, 7]].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])  # ties go leftmost


def test_left_padding_changes_nothing_on_the_canvas():
    found = []
    for padding in (0, 3):
        state, reading = third_round(padding)
        found.append(features(state, reading, reading.confidence >= 0.8)[reading.rows])
    assert torch.equal(*found)
