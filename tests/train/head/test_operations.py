"""Work by count, against figures worked out by hand on a shape small enough for it, and against real tensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import models
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead
from train.head.operations import LLADA_8B, Shape, base_round, cascade_round, head_round, shape_of, table

GOLDEN = Path(__file__).parents[2] / "golden"
TINY = Shape(layers=3, width=8, heads=2, kv_heads=1, head_dim=4, mlp=10, vocabulary=20)
# a block: q and o 2 * 64, k and v 2 * 32, MLP 3 * 80 -> 128 + 64 + 240 = 432 parameters


def test_a_forward_by_hand():
    made = base_round(TINY, computed=5, context=7, rows=2)
    attention = 4 * 5 * 7 * 8  # 1120
    assert made.operations == 3 * (2 * 5 * 432 + attention) + 2 * 2 * 160 == 16_960
    assert made.weight_bytes == 2 * (3 * 432 + 160 + 7 * 8) == 3024  # two norms a block and the last


def test_a_cache_saves_operations_and_no_weights():
    cached, whole = (base_round(TINY, computed=n, context=7, rows=2) for n in (2, 7))
    assert cached.operations == 3 * (2 * 2 * 432 + 4 * 2 * 7 * 8) + 640 == 7168
    assert cached.weight_bytes == whole.weight_bytes


NAMES = ("log_risk", "entropy", "margin")


def test_a_linear_head_by_hand():
    made = head_round(TINY, HeadConfig("linear", NAMES, width=4), context=7, rows=2)
    assert (made.operations, made.weight_bytes) == (2 * 7 * 6, 4 * 6)  # every position, masked or not


def test_a_features_head_by_hand():
    made = head_round(TINY, HeadConfig("features", NAMES, width=4), context=7, rows=2)
    own = 3 * 4 + 2 * 8 * 16 + (3 + 4 + 2) * 4  # in, two layers, read-out: 12 + 256 + 36
    assert made.weight_bytes == 4 * own == 1216
    assert made.operations == 2 * 7 * own + 2 * 4 * 7 * 7 * 4 == 5824  # all seven attend to all


@pytest.mark.parametrize(
    ("variant", "inward", "ran"), [("linear", 3, 7), ("features", 7, 7), ("hidden", 11, 2), ("lora", 11, 2)]
)
def test_a_pairwise_output_runs_where_the_read_out_runs_and_multiplies_all_pairs(variant, inward, ran):
    without, with_ = (head_round(TINY, HeadConfig(variant, NAMES, width=4, pairs=d), context=7, rows=2) for d in (0, 5))
    own = inward * 12  # q and k of five, a and b
    assert with_.weight_bytes - without.weight_bytes == 4 * own
    assert with_.operations - without.operations == 2 * ran * own + 2 * 7 * 7 * 5
    far = head_round(TINY, HeadConfig(variant, NAMES, width=4, pairs=5, reach=3), context=7, rows=2)
    assert far.weight_bytes - with_.weight_bytes == 4 * 2 * 7 * 6  # offsets of -3 to 3, a bias and five
    assert far.operations - with_.operations == 2 * (2 * 7 * 7 * 5)


@pytest.mark.parametrize(("blocks", "again"), [(1, 368), (2, 800), (3, 1232)])
def test_a_side_stream_runs_keys_and_values_from_its_second_block_on(blocks, again):
    made = head_round(TINY, HeadConfig("hidden", NAMES, width=4, blocks=blocks), context=7, rows=2)
    readout = 4 * (3 + 8 + 2)
    assert made.operations == 2 * 2 * (again + readout) + blocks * 4 * 2 * 7 * 8
    assert made.weight_bytes == 2 * (again + (2 * blocks + 1) * 8) + 4 * readout


def test_lora_adds_its_two_matrices_to_five_of_a_block():
    plain, lora = (
        head_round(TINY, HeadConfig(v, NAMES, width=4, blocks=2, rank=3), context=7, rows=2) for v in ("hidden", "lora")
    )
    own = 2 * 3 * (2 * (8 + 8) + 3 * (8 + 10))
    assert lora.operations - plain.operations == 2 * 2 * own
    assert lora.weight_bytes - plain.weight_bytes == 4 * own == 2064


def test_the_shape_of_llada_is_the_published_one():
    assert shape_of(json.loads((GOLDEN / "hub/llada/config.json").read_text())) == LLADA_8B
    dream = shape_of(json.loads((GOLDEN / "hub/dream/config.json").read_text()))
    assert (dream.layers, dream.heads, dream.kv_heads, dream.head_dim) == (28, 28, 4, 128)


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("pairs", [0, 3])
@pytest.mark.parametrize(("variant", "blocks"), [("features", 1), ("lora", 1), ("lora", 2), ("linear", 1)])
def test_matrices_counted_are_those_that_are_there(family, variant, blocks, pairs):
    base = models.load(GOLDEN / family, device="cpu")
    config = HeadConfig(variant, NAMES, blocks=blocks, rank=4, width=16, pairs=pairs, reach=2 * pairs)
    head = ScoringHead(config, base)
    names = [name for name, p in head.named_parameters() if p.ndim >= 2 and not name.startswith("stream.")]
    own = sum(p.numel() for name, p in head.named_parameters() if name in names or ".lora_" in name)
    shape = shape_of(json.loads((GOLDEN / family / "config.json").read_text()))
    counted = head_round(shape, config, context=9, rows=1).weight_bytes
    again = blocks * (shape.query + shape.gated) + (blocks - 1) * shape.keys + (2 * blocks + 1) * shape.width
    assert counted == 4 * own + (2 * again if config.reads_hidden else 0)
    layer = [p.numel() for p in base.blocks[0].parameters() if p.ndim == 2]
    assert sum(layer) == shape.query + shape.keys + shape.gated


def test_at_the_8b_shape_one_block_keeps_to_the_bar_and_features_cost_nothing():
    rows = {row["head"]: row for row in table(LLADA_8B, NAMES, prompt=128, gen_length=256, block_length=32)}
    loras, cascades = [f"lora K={k}" for k in (1, 2, 3)], [f"cascade K={k}" for k in (1, 2, 4)]
    assert list(rows) == ["linear", "features", "hidden K=1", *loras, "lora K=1, pairs 16", *cascades]
    for mode in ("cached", "uncached"):
        assert max(rows["lora K=1"][mode].values()) < 3.5
        assert max(rows["cascade K=1"][mode].values()) < 3.5
        assert max(rows["features"][mode].values()) < 0.1
        assert 0 < rows["lora K=1, pairs 16"][mode]["weight_bytes"] - rows["lora K=1"][mode]["weight_bytes"] < 0.01
    assert rows["lora K=1"]["cached"]["weight_bytes"] > 2
    assert rows["lora K=1"]["uncached"]["operations"] < 0.5


def test_a_look_at_the_cascade_is_its_blocks_its_lora_and_a_few_logits():
    shape = Shape(layers=3, width=8, heads=2, kv_heads=1, head_dim=4, mlp=12, vocabulary=50)
    q, kv, mlp = 8 * 8, 8 * 4, 8 * 12
    block = 2 * q + 2 * kv + 3 * mlp
    lora = 2 * (2 * (8 + 8) + 2 * (8 + 4) + 3 * (8 + 12))  # rank 2 on seven matrices
    own, lines = 8 * 8 + 8, 5 * 5 * 8
    work = cascade_round(shape, blocks=2, rank=2, context=20, rows=5)
    assert work.operations == 2 * 5 * (2 * (block + lora) + own) + 2 * 4 * 5 * 20 * 8 + 2 * lines
    assert work.weight_bytes == 2 * (2 * block + 5 * 8 + lines) + 4 * (2 * lora + own)
