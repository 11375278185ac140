"""Which context a canvas reads, and what is computed anew: by hand on small canvases."""

import inspect
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import models
from models.engine.plan import empty_contexts, empty_plan, make_plan, order_of
from models.engine.session import Shape

ROOT = Path(__file__).parents[3]
MASK, CALM = 9, torch.tensor(0)
SETTINGS = {"mask_id": MASK, "mode": "dual", "shift": 0, "alarm": CALM}


def planned(contexts, tokens, *, refresh=None, live=None, **settings):
    tokens = torch.as_tensor(tokens)
    rows = tokens == MASK
    live = torch.ones(tokens.shape[:2], dtype=torch.bool) if live is None else torch.tensor(live)
    refresh = torch.zeros_like(live) if refresh is None else torch.tensor(refresh)
    size = torch.full((len(tokens),), tokens.shape[-1])
    before = empty_plan(*tokens.shape[:2], tokens.device)
    return make_plan(before, contexts, tokens, rows, live, refresh, size=size, **(SETTINGS | settings))


def test_order_puts_the_chosen_first_and_keeps_the_rest_in_order():
    chosen = torch.tensor([[False, True, False, True], [True, True, True, True]])
    for order in (order_of, torch.compile(inspect.unwrap(order_of), backend="eager", fullgraph=True)):
        assert order(chosen).tolist() == [[1, 3, 0, 2], [0, 1, 2, 3]]


def test_the_first_forward_is_whole_and_the_next_reads_its_context():
    plan, contexts = planned(empty_contexts(1, 1, 4, torch.device("cpu")), [[[1, MASK, MASK, 3]]])
    assert plan.flags.tolist() == [0, 1, 0, 2, 0, 1]
    assert plan.positions.tolist() == [[4]]
    plan, _ = planned(contexts, [[[1, MASK, 5, 3]]])
    assert plan.flags.tolist() == [1, 0, 2, 1, 0, 1]
    assert (plan.start.item(), plan.count.item(), plan.first.item(), plan.positions.item()) == (1, 2, 1, 2)


def test_a_span_starts_one_before_in_a_shifted_family():
    _, contexts = planned(empty_contexts(1, 1, 4, torch.device("cpu")), [[[1, 2, MASK, MASK]]], shift=1)
    plan, _ = planned(contexts, [[[1, 2, MASK, 4]]], shift=1)
    assert (plan.start.item(), plan.count.item()) == (1, 3)


def test_a_canvas_is_whole_when_its_block_opens_when_a_revealed_token_changed_and_outside_the_span():
    _, contexts = planned(empty_contexts(1, 1, 4, torch.device("cpu")), [[[1, MASK, 2, 3]]])
    assert planned(contexts, [[[1, MASK, 2, 3]]], refresh=[[True]])[0].flags[:2].tolist() == [0, 1]
    assert planned(contexts, [[[7, MASK, 2, 3]]])[0].flags[:2].tolist() == [0, 1]
    assert planned(contexts, [[[1, MASK, MASK, 3]]])[0].flags[:2].tolist() == [0, 1]
    assert planned(contexts, [[[1, MASK, 2, 3]]])[0].flags[:2].tolist() == [1, 0]


def test_branches_share_the_context_that_all_of_them_agree_with():
    first = [[[1, MASK, MASK, 3], [1, MASK, MASK, 3]]]
    _, contexts = planned(empty_contexts(1, 2, 4, torch.device("cpu")), first, live=[[True, False]])
    plan, _ = planned(contexts, [[[1, 4, MASK, 3], [1, MASK, 5, 3]]])
    assert plan.flags[:2].tolist() == [2, 0]
    assert plan.slot.tolist() == [[0, 0]]


def test_a_context_in_use_is_not_written_over():
    first = [[[1, MASK, MASK, 3], [1, MASK, MASK, 3]]]
    _, contexts = planned(empty_contexts(1, 2, 4, torch.device("cpu")), first, live=[[True, False]])
    plan, _ = planned(contexts, [[[1, 4, MASK, 3], [1, 4, MASK, 3]]], refresh=[[False, True]])
    assert plan.part.tolist() == [[True, False]]
    assert plan.slot.tolist() == [[0, 1]]


def test_without_a_cache_everything_is_whole():
    canvases = [[[1, MASK, 2, 3], [1, MASK, MASK, 3]], [[1, 2, 4, 3], [1, 2, MASK, 3]]]
    contexts = empty_contexts(2, 2, 4, torch.device("cpu"))
    plan, kept = planned(contexts, canvases, live=[[True, True], [False, True]], mode="none", alarm=torch.tensor(2))
    assert kept is contexts
    assert plan.flags.tolist() == [0, 3, 0, 2, 2, 1, 1]
    assert plan.whole_order.tolist() == [[0, 1], [3, 2]]
    assert plan.first.tolist() == [[1, 1], [0, 2]]
    assert plan.positions.tolist() == [[4, 4], [0, 4]]
    assert not plan.part.any()


@pytest.mark.parametrize("mode", ["none", "dual"])
def test_a_session_keeps_what_its_plan_says(mode):
    """Without a cache most of them stay as they are."""
    denoiser = models.load(ROOT / "tests" / "golden" / "llada", device="cpu", engine="graphs")
    shape = Shape(2, 2, 4, mode, (), padded=False, holes=False, forbidden=())
    session = denoiser.engine.session(shape)
    session.begin(torch.ones(2, 4, dtype=torch.bool))
    tokens, live = torch.tensor([[[5, 9, 3, 3], [5, 9, 4, 3]], [[7, 9, 9, 3], [7, 9, 9, 3]]]), torch.ones(2, 2) > 0
    for _ in range(2):
        wanted, contexts = make_plan(
            empty_plan(2, 2, CALM.device), session.contexts, tokens, tokens == 9, live, ~live, size=session.size,
            **SETTINGS | {"mode": mode, "mask_id": denoiser.mask_id},
        )  # fmt: skip
        session.prepare(tokens, tokens == 9, live, ~live, CALM)
        for kept, made in ((session.plan, wanted), (session.contexts, contexts)):
            assert all(torch.equal(getattr(kept, one.name), getattr(made, one.name)) for one in fields(kept))
        assert session.plan.flags[:2].tolist() == [0, 4] or mode == "dual"


def test_the_alarm_reaches_the_host():
    contexts = empty_contexts(1, 1, 4, torch.device("cpu"))
    assert planned(contexts, [[[1, MASK, 2, 3]]], alarm=torch.tensor(1))[0].flags[4] == 1
