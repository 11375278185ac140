"""What a fit learns from traces: what the confidence does not say, the same with the same seed, the best of its epochs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from decoding.policies.quota import Sequential
from decoding.policies.threshold import Threshold
from decoding.traces.labelling import Labelling
from models.heads.scoring_head import ScoringHead
from train.head.fit import figures, fit, fit_head, prepare
from train.head.module import HeadModule
from train.head.settings import SHUFFLED, VARIANTS, Fitting, Objective, Recipe

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(LeafSpec|num_workers|enable_nested_tensor|number of training batches)"
)
LEARNING = Fitting(
    variants=("linear", "features", SHUFFLED),
    epochs=12,
    batch_size=8,
    width=16,
    objective=Objective(learning_rate=0.05, warm_up=2),
)


@pytest.fixture
def gathered(groups, collector_of, examples, tmp_path, monkeypatch):
    """Traces of bits: the second group of eight always comes out wrong, at even odds all the same. No base has blocks here."""
    monkeypatch.setattr("train.head.fit.VARIANTS", {**VARIANTS, SHUFFLED: Recipe("linear", shuffled=True)})
    labelling = Labelling(states_per_prompt=8, labelled=4, branches=8, strata=2)
    collector = collector_of(groups, drivers={"slow": Sequential(), "fast": Threshold(0.4)}, labelling=labelling)
    collector.run({"train": examples, "dev": examples[:4]}, tmp_path / "traces")
    return prepare(groups, [tmp_path / "traces"], LEARNING, threshold=0.9, seed=0)


def test_heads_learn_what_the_confidence_does_not_say(groups, gathered, tmp_path):
    heads = fit(groups, gathered, LEARNING, tmp_path, threshold=0.9, seed=0)
    found = {name: figures(head, gathered)["bits"] for name, head in heads.items()}
    for name in ("linear", "features"):
        assert found[name]["risk"]["auroc"] > 0.95
        assert found[name]["risk"]["log_loss_skill"]["low"] > 0.3
    assert found["linear"]["risk"]["auroc_confidence"] < 0.9
    assert found[SHUFFLED]["risk"]["log_loss_skill"]["estimate"] < 0.1
    assert json.loads((tmp_path / "metrics.json").read_text())["variants"]["linear"] == [{"bits": found["linear"]}]
    assert not heads["linear"].training


def test_a_fit_ends_with_the_weights_that_did_best_on_unseen_prompts(groups, gathered):
    dev = [batches[i] for batches in gathered.dev.values() for i in range(len(batches))]
    wild = replace(LEARNING, epochs=2, objective=Objective(learning_rate=300.0, warm_up=0))
    head = fit_head(groups, gathered, VARIANTS["linear"], wild, seed=0, threshold=0.9, logs=None)
    untrained = ScoringHead(head.config)
    assert (
        HeadModule(head, wild.objective).mean_loss(dev) <= HeadModule(untrained, wild.objective).mean_loss(dev) + 1e-6
    )


def test_the_same_seed_gives_the_same_head(groups, gathered):
    few = replace(LEARNING, epochs=2)
    one, two, other = (
        fit_head(groups, gathered, VARIANTS["features"], few, seed=s, threshold=0.9, logs=None) for s in (3, 3, 4)
    )
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert any(
        not torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_traces_that_the_base_does_not_repeat_are_refused(groups, gathered, tmp_path):
    groups.groups, groups.size = 1, 16  # one bit decides all of them
    with pytest.raises(ValueError, match=r"^log_risk in the traces must be what this base gives"):
        prepare(groups, [tmp_path / "traces"], LEARNING, threshold=0.5, seed=0)
