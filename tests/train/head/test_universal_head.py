"""A head that reads logits alone: fitted on one base, it decodes on another of other size, vocabulary and family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import models
from decoding import generate
from decoding.policies.ete import BeamETE
from decoding.policies.threshold import Threshold
from decoding.traces.labelling import Labelling
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead, load_head, read_config, save_head
from models.toys.toy import GroupDenoiser
from train.head.fit import fit, prepare
from train.head.settings import VARIANTS, Fitting, Objective

GOLDEN = Path(__file__).parents[2] / "golden"
UNIVERSAL = Fitting(
    variants=("features",),
    universal=True,
    epochs=6,
    batch_size=8,
    width=16,
    objective=Objective(learning_rate=0.05, warm_up=2),
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(LeafSpec|num_workers|enable_nested_tensor|number of training batches)"
)


@pytest.fixture
def fitted(groups, collector_of, examples, tmp_path) -> Path:
    """A universal head of a toy that has no hidden states and two tokens."""
    labelling = Labelling(states_per_prompt=4, labelled=2, branches=8, strata=2)
    drivers = {"fast": Threshold(0.4)}
    collector_of(groups, drivers=drivers, labelling=labelling).run(
        {"train": examples, "dev": examples[:2]}, tmp_path / "traces"
    )
    data = prepare(groups, [tmp_path / "traces"], UNIVERSAL, threshold=BeamETE().threshold, seed=0)
    fit(groups, data, UNIVERSAL, tmp_path / "head", threshold=0.9, seed=0, about={"left_out": []})
    return tmp_path / "head"


def test_it_is_bound_to_no_base(groups, fitted):
    config = read_config(fitted)
    assert (config.variant, config.base, config.fitted_on) == ("features", "", groups.fingerprint())
    assert json.loads((fitted / "metrics.json").read_text())["left_out"] == []


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("cache", ["none", "dual"])
def test_it_decodes_on_a_base_of_another_size_and_vocabulary(fitted, family, cache):
    denoiser = models.load(GOLDEN / family, device="cpu", head=fitted)
    settings = {"gen_length": 16, "block_length": 8, "use_cache": cache, "early_stop": False}
    made = generate(denoiser, [[5, 6, 7], [8, 9]], "learned", risk_bound=0.5, **settings)
    assert not made.state.masked.any()
    assert (made.sequence_forwards == made.rounds).all()
    assert denoiser.head.readout[-1].weight.any()
    assert (made.rounds <= 16).all()  # two blocks, a commit a round at least
    assert torch.isfinite(made.state.committed_confidence).all()


def test_it_decodes_where_no_token_ends_an_answer(fitted):
    other = GroupDenoiser(4, 4)
    other.__dict__["head"] = load_head(fitted, other)
    made = generate(other, torch.zeros(1, 1, dtype=torch.long), "learned", gen_length=16, block_length=4)
    assert not made.state.masked.any()


def test_what_reads_hidden_states_is_bound_and_names_what_it_was_fitted_on(tmp_path):
    llada, dream = (models.load(GOLDEN / name, device="cpu") for name in ("llada", "dream"))
    fingerprint = llada.fingerprint()
    save_head(
        ScoringHead(
            HeadConfig("lora", ("log_risk",), rank=2, width=16, base=fingerprint, fitted_on=fingerprint), llada
        ),
        tmp_path,
    )
    with pytest.raises(ValueError, match="must be used on its own base"):
        load_head(tmp_path, dream)


@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - {"linear", "features"}))
def test_a_variant_that_reads_hidden_states_is_refused(variant):
    with pytest.raises(ValueError, match=rf"^variants of a universal head must read no hidden .*, got {variant}$"):
        Fitting(variants=("features", variant), universal=True)


def test_a_feature_that_did_not_vary_in_the_fit_is_not_blown_up_elsewhere():
    head = ScoringHead(HeadConfig("linear", ("log_risk", "is_eos")))
    head.normalise_by(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
    assert head.spread.tolist() == [2.0, 1.0]
