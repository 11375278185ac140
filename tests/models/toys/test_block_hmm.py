"""The Block-HMM is exact: marginals in any order agree with brute force, and chain up to the joint."""

import math
from itertools import product

import pytest
import torch

from models.toys.block_hmm import MASK, BlockHMM, BlockHMMConfig

SMALL = BlockHMMConfig(blocks=2, size=3, stay=0.8, rho=(0.9, 0.3), eta=0.05)


def brute(config: BlockHMMConfig, bits: tuple[int, ...]) -> float:
    """p(bits) by the definition, a sum over all state paths."""
    total = 0.0
    for path in product(range(len(config.rho)), repeat=config.blocks):
        weight = 1 / len(config.rho)
        for block, state in enumerate(path):
            if block:
                same = state == path[block - 1]
                weight *= config.stay if same else (1 - config.stay) / (len(config.rho) - 1)
            parity, *free = bits[block * config.size : (block + 1) * config.size]
            weight *= math.prod(config.rho[state] if bit else 1 - config.rho[state] for bit in free)
            weight *= 1 - config.eta if parity == sum(free) % 2 else config.eta
        total += weight
    return total


JOINT = {bits: brute(SMALL, bits) for bits in product((0, 1), repeat=6)}


def test_the_joint_is_the_definition_s_and_sums_to_one():
    found = BlockHMM(SMALL).log_prob(torch.tensor(list(JOINT))).exp()
    torch.testing.assert_close(found, torch.tensor(list(JOINT.values()), dtype=torch.double))
    assert sum(JOINT.values()) == pytest.approx(1)


@pytest.mark.parametrize("canvas", [(2, 2, 2, 2, 2, 2), (2, 1, 2, 2, 2, 2), (1, 2, 0, 2, 0, 2), (2, 2, 2, 1, 1, 0)])
def test_marginals_are_exact_whatever_is_revealed(canvas):
    fits = {x: p for x, p in JOINT.items() if all(c in (MASK, b) for c, b in zip(canvas, x, strict=True))}
    logits = BlockHMM(SMALL).logits(torch.tensor([canvas]))
    assert logits.shape == (1, 6, 3)
    for place in range(6):
        rest = fits
        if canvas[place] != MASK:  # predicted from the others
            others = [c if i != place else MASK for i, c in enumerate(canvas)]
            rest = {x: p for x, p in JOINT.items() if all(c in (MASK, b) for c, b in zip(others, x, strict=True))}
        share = sum(p for x, p in rest.items() if x[place] == 1) / sum(rest.values())
        assert logits[0, place].softmax(-1)[1].item() == pytest.approx(share, rel=1e-5)
        assert logits[0, place].softmax(-1)[MASK].item() == 0


def test_prompt_padding_and_rows_leave_the_canvas_alone():
    model = BlockHMM(SMALL)
    canvas = torch.tensor([[0, 1, 1, 2, 0, 2, 2, 2]])
    wanted = torch.tensor([[False] * 3 + [True] + [False] * 3 + [True]])
    mask = torch.tensor([[False] + [True] * 7])
    prediction = model(canvas, attention_mask=mask, rows=wanted)
    torch.testing.assert_close(prediction.logits, model.logits(canvas[:, 2:])[0, [1, 5]])
    assert prediction.positions.tolist() == [7]


def test_parity_is_certain_when_the_rest_of_its_block_is_known():
    model = BlockHMM()
    canvas = torch.full((1, 64), MASK)
    canvas[0, 1:8] = torch.tensor([1, 0, 0, 1, 1, 0, 0])
    log_probs = model.logits(canvas)[0, 0].log_softmax(-1)
    assert log_probs[0].item() == pytest.approx(math.log(1e-8), rel=1e-6)  # 1 - c keeps its digits


def test_a_chain_in_any_order_gives_the_joint():
    model, bits = BlockHMM(SMALL), (1, 0, 1, 1, 1, 0)
    for order in ((0, 1, 2, 3, 4, 5), (5, 2, 0, 3, 1, 4)):
        canvas, total = torch.full((1, 6), MASK), 0.0
        for place in order:
            total += model.logits(canvas)[0, place].log_softmax(-1)[bits[place]].item()
            canvas[0, place] = bits[place]
        assert total == pytest.approx(math.log(JOINT[bits]), rel=1e-5)


def test_samples_follow_the_joint():
    drawn = BlockHMM(SMALL).sample(4000, torch.Generator().manual_seed(0))
    index = (drawn * 2 ** torch.arange(5, -1, -1)).sum(-1)
    shares = torch.bincount(index, minlength=64).double() / len(drawn)
    exact = torch.tensor([JOINT[bits] for bits in product((0, 1), repeat=6)], dtype=torch.double)
    assert 0.5 * (shares - exact).abs().sum() < 0.06
    assert BlockHMM(SMALL).device == torch.device("cpu")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"size": 13}, r"size must lie in \[2, 12\], got 13"),
        ({"rho": (0.9,)}, "rho must be at least two probabilities"),
        ({"rho": (0.9, 1.0)}, "rho must be at least two probabilities"),
        ({"stay": 1.0}, r"stay must lie in \(0, 1\), got 1.0"),
        ({"eta": 0.0}, r"eta must lie in \(0, 1\), got 0.0"),
    ],
)
def test_what_is_no_distribution_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        BlockHMMConfig(**settings)
