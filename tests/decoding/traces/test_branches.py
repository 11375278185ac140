"""States that decodes pass through, and the branches tried from them, counted by hand on toys."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from decoding.commit import commit
from decoding.policies.ete import BeamETE
from decoding.traces.branches import FLOOR, KINDS, predict, try_alone, try_branches
from decoding.traces.labelling import Labelling
from models.toys.toy import GroupDenoiser, TableDenoiser
from tests.decoding.traces.first_states import beginning

BEAM = BeamETE(branches=4, c_info=0.5, implicit=False)
HALF, SURE = math.log(0.5), math.log(1e-6)  # log(1 - c) of an even chance, and of one in a million
EVERYTHING = Labelling(branches=99, strata=4)


def table(*confidences: float, eos: int | None = None) -> TableDenoiser:
    """Position i (the first is the prompt) says token i % 2 with this confidence; the others share the rest."""
    lines = torch.tensor([[*[(1 - c) / 2] * 3, 1e-9] for c in (0.5, *confidences)])
    for i, c in enumerate((0.5, *confidences)):
        lines[i, i % 2] = c
    return TableDenoiser(lines.log(), mask_id=3, eos_id=eos)


FALLING = table(0.95, *(0.85 - 0.03 * i for i in range(16)))  # position 1 is exploited


@pytest.fixture
def tried(generator):
    """Branches of the first state; by position where the figures are asked for."""

    def tried_(denoiser, gen_length, block_length, labelling=EVERYTHING, beam=BEAM, batch=1, batch_size=5):
        state = beginning(denoiser, gen_length, block_length, batch)
        options = {"attention_mask": None, "generator": generator, "batch_size": batch_size}
        return state, try_branches(denoiser, state, beam, labelling, **options)

    return tried_


def kinds_of(branches) -> dict[int, str]:
    """Position -> kind of the branches that exist, in their order; -1 is the exploit-only one."""
    pairs = zip(branches.position[0].tolist(), branches.kind[0].tolist(), strict=True)
    return {j: KINDS[kind] for k, (j, kind) in enumerate(pairs) if j >= 0 or not k}


def test_committing_one_bit_of_a_group_makes_the_other_seven_cross(tried):
    _, branches = tried(GroupDenoiser(3, 8), 24, 24)
    position = branches.position[0].tolist()[:24]
    assert sorted(position[1:]) == list(range(2, 25))  # nothing passes: the first position is committed in any case
    group = [*range(1, 9)]
    torch.testing.assert_close(branches.log_risk[0, 0, 9:], torch.full((16,), HALF), atol=0, rtol=1e-5)
    for k, j in enumerate(position[1:], 1):
        if j in group:
            continue
        crossed = branches.log_risk[0, k] < SURE + 1
        expected = [i for i in range(9, 25) if (i - 1) // 8 == (j - 1) // 8]
        assert crossed.nonzero().squeeze(1).tolist() == [0, *group, *expected]  # the prompt is not read
        assert branches.log_risk[0, k, j] == FLOOR
        assert branches.token[0, k, j] == -1
        assert (branches.token[0, k, expected] == 0).sum() == 7
        assert branches.log_confidence[0, k] == pytest.approx(HALF, rel=1e-5)
        assert branches.eq7[0, k] == pytest.approx(HALF + math.log(14), rel=1e-5)


def test_branch_0_commits_the_exploit_set_and_every_branch_does_too(tried, counting):
    denoiser = counting(table(0.95, 0.9, 0.6, 0.5, 0.4, 0.89))
    _, branches = tried(denoiser, 6, 6)
    assert denoiser.canvases == 1 + 1 + 4  # the state, the exploit set alone, and each of the others
    assert (branches.token[0, :, 1:3] == -1).all()
    assert (branches.log_risk[0, :, 1:3] == FLOOR).all()
    assert sorted(kinds_of(branches)) == [-1, 3, 4, 5, 6]
    assert (branches.token[0, 0, 3:] >= 0).all()
    torch.testing.assert_close(
        branches.log_risk[0, 0, 3:], torch.tensor([0.4, 0.5, 0.6, 0.11]).log(), atol=0, rtol=1e-5
    )


def test_kinds_are_those_of_the_beam_the_anchor_and_the_strata(tried):
    _, branches = tried(FALLING, 17, 17)
    kind = kinds_of(branches)
    # .5 is nearest at positions 14, 13, 15, 12; the strata end at 5, 9, 13, 17
    assert kind.pop(-1) == "exploit"
    assert {j for j, name in kind.items() if name == "anchor"} == {2}
    assert {j for j, name in kind.items() if name == "beam"} == {12, 13, 14, 15}
    assert {j for j, name in kind.items() if name == "stratum"} == {5, 9, 17}
    assert {j for j, name in kind.items() if name == "uniform"} == {3, 4, 6, 7, 8, 10, 11, 16}


def test_all_candidates_of_the_beam_are_its_own_even_the_most_confident(tried):
    _, branches = tried(table(0.95, 0.6, 0.5, 0.4), 4, 4)
    assert kinds_of(branches) == {-1: "exploit", 2: "beam", 3: "beam", 4: "beam"}


@pytest.mark.parametrize(
    ("count", "stratum", "uniform"), [(16, 1.0, 1.0), (12, 1.0, 4 / 8), (8, 1.0, 0.0), (6, 1 / 3, 0.0), (5, 0.0, 0.0)]
)
def test_propensity_is_the_share_of_its_kind_that_is_drawn(tried, count, stratum, uniform):
    denoiser, expected = FALLING, {"stratum": stratum, "uniform": uniform}
    _, branches = tried(denoiser, 17, 17, Labelling(branches=count, strata=4))
    assert branches.position.shape == (1, 1 + count)
    assert len(set(branches.position[0].tolist())) == 1 + count
    found: dict[str, list[float]] = {}
    for kind, propensity in zip(branches.kind[0], branches.propensity[0].tolist(), strict=True):
        found.setdefault(KINDS[kind], []).append(propensity)
    sizes = {"exploit": 1, "anchor": 1, "beam": 4, "stratum": 3, "uniform": 8}
    for name, values in found.items():
        assert values == pytest.approx([expected.get(name, 1.0)] * round(sizes[name] * expected.get(name, 1.0)))


def test_fewer_branches_than_certain_ones_share_what_room_there_is(tried):
    _, branches = tried(FALLING, 17, 17, Labelling(branches=3, strata=4))
    assert list(kinds_of(branches).values()) == ["exploit", "anchor", "beam", "beam"]
    assert branches.propensity[0].tolist() == [1, 1, 0.5, 0.5]


def test_uniform_branches_are_drawn_from_the_generator():
    denoiser = FALLING
    state, drawn = beginning(denoiser, 17, 17), []
    for seed in (0, 0, 1, 2):
        options = {"attention_mask": None, "generator": torch.Generator().manual_seed(seed), "batch_size": 8}
        branches = try_branches(denoiser, state, BEAM, Labelling(branches=11, strata=4), **options)
        drawn.append(tuple(branches.position[0].tolist()))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


SIX = table(0.95, 0.9, 0.6, 0.5, 0.4, 0.89)  # positions 1 and 2 are exploited


def tried_alone(count, seed=0, denoiser=SIX, block_length=6):
    state = beginning(denoiser, 6, block_length)
    options = {"attention_mask": None, "generator": torch.Generator().manual_seed(seed), "batch_size": 2}
    return try_alone(denoiser, state, BEAM, count, asked=state.masked, **options)


def test_bare_branches_commit_one_token_and_nothing_of_the_plan():
    bare = tried_alone(6)
    assert sorted(bare.position[0].tolist()) == [-1, 1, 2, 3, 4, 5, 6]
    for k, j in enumerate(bare.position[0].tolist()):
        assert (bare.token[0, k] == -1).nonzero().squeeze(1).tolist() == ([0, j] if k else [0])  # the prompt, and j
        expected = [i % 2 for i in range(1, 7) if i != j]
        assert bare.token[0, k][bare.token[0, k] >= 0].tolist() == expected
    assert bare.log_risk[0, :, 3].exp().tolist() == pytest.approx(
        [0.4 * (j != 3) for j in bare.position[0].tolist()], rel=1e-5
    )
    assert {KINDS[kind] for kind in bare.kind[0].tolist()} == {"bare"}
    assert bare.eq7.isneginf().all()


@pytest.mark.parametrize(("count", "planned", "beyond"), [(1, 1, 0), (2, 1, 1), (3, 2, 1), (5, 2, 3), (9, 2, 4)])
def test_half_of_the_bare_branches_are_of_the_plan(count, planned, beyond):
    seen = set()
    for seed in range(8):
        bare = tried_alone(count, seed)
        where = bare.position[0, 1:].tolist()
        seen.add(tuple(where))
        assert (sum(j in (1, 2) for j in where), sum(j > 2 for j in where)) == (planned, beyond)
        expected = [planned / 2 if j in (1, 2) else beyond / 4 for j in where if j >= 0]
        assert bare.propensity[0, 1 : 1 + len(expected)].tolist() == pytest.approx(expected)
    assert len(seen) > 1
    assert torch.equal(tried_alone(count, 3).position, tried_alone(count, 3).position)


def test_bare_branches_read_only_what_was_feasible():
    bare = tried_alone(6, block_length=3)
    assert sorted(bare.position[0].tolist())[-4:] == [-1, 1, 2, 3]
    assert (bare.token[0, :, 4:] == -1).all()
    assert bare.asked[0].tolist() == [False] + [True] * 6


def test_the_next_block_is_asked_for_where_some_branch_opens_it(tried):
    state, branches = tried(table(0.95, 0.6, 0.5, 0.4), 4, 2)
    assert state.feasible[0].tolist() == [False, True, True, False, False]
    assert sorted(kinds_of(branches)) == [-1, 2]  # position 2 fills the block
    assert branches.asked[0].tolist() == [False, True, True, True, True]
    _, branches = tried(table(0.95, 0.6, 0.5, 0.4, 0.4, 0.4), 6, 3)
    assert sorted(kinds_of(branches)) == [-1, 2, 3]  # neither does alone
    assert branches.asked[0].tolist() == [False, True, True, True, False, False, False]


def test_eq7_is_the_beams_own_score_over_the_positions_open_in_the_branch(denoisers):
    """The next block counts where the branch fills its own."""
    denoiser, compared = denoisers["context"], 0
    beam = BeamETE(threshold=0.55, gamma=1.0, min_masks=0, implicit=False, branches=3, step_budget=None)
    for block_length in (2, 3, 6):
        state = beginning(denoiser, 6, block_length, batch=8, prompt=4)
        state = replace(state, tokens=state.tokens.masked_scatter(~state.masked, torch.arange(32) % 4))
        reading = predict(denoiser, state.tokens, state.feasible, None)
        proposal = beam.propose(state, reading)
        canvases = commit(state, reading, proposal)
        flat = predict(denoiser, canvases.tokens.flatten(0, 1), canvases.feasible.flatten(0, 1), None)
        after = flat.scatter(torch.ones(proposal.live.shape).nonzero(), tuple(proposal.live.shape))
        score, explored = beam.score(proposal, after), (proposal.reason == 4).int().argmax(-1)
        options = {"attention_mask": None, "generator": torch.Generator().manual_seed(0), "batch_size": 64}
        branches = try_branches(denoiser, state, beam, EVERYTHING, **options)
        for s, k in (proposal.live & explored.bool()).nonzero().tolist():
            mine = branches.position[s].tolist().index(int(explored[s, k]))
            assert KINDS[branches.kind[s, mine]] == "beam"
            assert branches.eq7[s, mine] == pytest.approx(float(score[s, k]), rel=1e-5)
            compared += 1
    assert compared > 10


def test_an_eos_that_ends_the_row_leaves_nothing_to_read(tried):
    """Position 2 ends what is committed by EOS: its branch is over, and what follows neither crosses nor is read."""
    _, branches = tried(table(0.95, 0.6, 0.5, 0.4, eos=0), 4, 4)
    ended = branches.position[0].tolist().index(2)
    assert (branches.token[0, ended] == -1).all()
    assert (branches.log_risk[0, ended] == FLOOR).all()
    assert branches.eq7[0, ended] == -torch.inf
    other = branches.position[0].tolist().index(3)
    assert (branches.token[0, other] >= 0).tolist() == [False, False, True, False, True]


def test_states_of_one_batch_have_the_branches_they_have_alone(tried):
    denoiser = GroupDenoiser(2, 3)
    _, few = tried(denoiser, 6, 3, batch=3, batch_size=2)
    _, alone = tried(denoiser, 6, 3, batch=1, batch_size=99)
    for s in range(3):
        order, expected = few.position[s].argsort(), alone.position[0].argsort()
        assert torch.equal(few.log_risk[s][order], alone.log_risk[0][expected])
        assert torch.equal(few.eq7[s][order], alone.eq7[0][expected])


def test_what_the_beam_commits_implicitly_is_committed_in_every_branch(tried):
    _, branches = tried(table(0.95, 0.6, 0.5, 0.4), 4, 4, beam=replace(BEAM, implicit=True))
    assert sorted(kinds_of(branches)) == [-1, 3, 4]
    assert (branches.token[0, :, 1:3] == -1).all()
    assert branches.token[0, 0, 3:].ge(0).all()


def test_dev_prompts_get_every_position_unless_told_otherwise():
    few = Labelling(branches=3, dev_branches=5)
    assert [few.of_split(split, 81).branches for split in ("train", "dev")] == [3, 5]
    assert Labelling(branches=3).of_split("dev", 81).branches == 81


def test_a_labelling_out_of_range_is_refused():
    for settings, sentence in (
        ({"branches": 0}, "branches must be at least 1, got 0"),
        ({"states_per_prompt": 0}, "states_per_prompt must be at least 1, got 0"),
        ({"strata": -1}, "strata must be at least 0, got -1"),
        ({"dev_branches": 0}, "dev_branches must be at least 1, got 0"),
        ({"labelled": 5}, "labelled must be at most states_per_prompt 4, got 5"),
    ):
        with pytest.raises(ValueError, match=f"^{sentence}$"):
            Labelling(**settings)
