"""Risk and conflict under an exact law: conflicts by hand, and rules that lose nothing where they commit one at a time."""

import math
from dataclasses import replace

import pytest
import torch

from decoding.policies.threshold import Threshold
from decoding.state import start
from decoding.studies.inputs import StudyInputs
from decoding.studies.limits.exact_conflicts import (
    EXACT,
    ExactConflicts,
    exact_conflict,
    exact_figures,
    measure_conflicts,
)
from decoding.studies.schedules import block_joint
from models.toys.block_hmm import BlockHMM, BlockHMMConfig
from train.commands import study as study_command

CONFIG = BlockHMMConfig(blocks=2, size=3, eta=1e-3)
MODEL = BlockHMM(CONFIG)
ROUNDING = 16 * torch.finfo(torch.float32).eps * math.log(64)  # of a divergence over 64 outcomes

pytestmark = pytest.mark.filterwarnings(  # inside Lightning
    "ignore:.*(LeafSpec|num_workers|enable_nested_tensor|number of training batches)"
)


def state_of(*tokens: int):
    canvas = torch.tensor([tokens])
    state = start(canvas, gen_length=6, block_length=3, mask_id=2, eos_id=None)
    return replace(state, tokens=canvas, masked=canvas == 2)


def test_a_parity_turns_with_the_last_bit_left_as_often_as_that_is_the_less_likely_one():
    """Block one ends in 2 masks: the parity and a bit that is 0 with p; the likelier parity turns if it is drawn as 1."""
    state = state_of(2, 0, 2, 0, 0, 0)
    found, p = exact_conflict(MODEL, state)[0], MODEL.marginals(state.tokens)[0]
    assert found[2, 0].item() == pytest.approx(float(p[2].min()), rel=1e-5)
    assert found[0, 2].item() == pytest.approx(float(p[0].min()), rel=1e-5)
    assert found[0, 0].item() == pytest.approx(float(p[0].min()), rel=1e-5)  # of itself, which no rule looks at
    assert not found[1].any()  # what is revealed changes nothing


def test_pairs_keep_a_parity_apart_from_its_last_bit_where_confidence_takes_both():
    joint = block_joint(CONFIG)
    wide, narrow = (exact_figures(joint, policy, CONFIG) for policy in (Threshold(0.8), ExactConflicts(MODEL, 0.2)))
    assert narrow["reverse_kl"] < wide["reverse_kl"]
    assert narrow["incoherence"] < wide["incoherence"]
    assert narrow["rounds"] > wide["rounds"]
    alone = exact_figures(joint, ExactConflicts(MODEL, 1e-9), CONFIG)
    assert alone["rounds"] == pytest.approx(6)
    assert alone["reverse_kl"] == pytest.approx(0, abs=ROUNDING)
    assert alone["incoherence"] == pytest.approx(1e-3, rel=1e-3)


def test_every_rule_has_a_line_for_every_bound():
    inputs = StudyInputs("", None, "cpu", 0, make_problems=study_command.study_problems, fit=study_command.fit_features)
    found = measure_conflicts(inputs, CONFIG, fitted=64, epochs=1, bounds=(1e-7, 0.6))
    names = ["threshold", "learned, each", "learned, sum", "learned, pairs", EXACT]
    assert [(row["policy"], row["bound"]) for row in found["rows"]] == [(n, b) for n in names for b in (1e-7, 0.6)]
    careful = [row for row in found["rows"] if row["bound"] == 1e-7]
    assert all(row["reverse_kl"] == pytest.approx(0, abs=ROUNDING) for row in careful)
    assert all(row["rounds"] == pytest.approx(6) for row in careful)
