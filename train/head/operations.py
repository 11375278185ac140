"""What a scoring head adds to a round by count: multiplications and weights read, for a base of any shape; no torch.

A product of an [n, a] and an [a, b] matrix counts 2 n a b operations. Norms, rotations, sorting and the features themselves are
element-wise and left out, of the base as of the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.heads.config import HeadConfig

CANDIDATES = 5  # of a position, whose logits a cascade computes

BASE_BYTES = 2  # bfloat16
HEAD_BYTES = 4  # a head's own tensors stay float32


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama-like base.

    Attributes:
        layers: blocks.
        width: D of the hidden states.
        heads, kv_heads: of the attention.
        head_dim: width of one of them.
        mlp: width inside the gated MLP.
        vocabulary: lines of the LM head.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int

    @property
    def query(self) -> int:
        """Parameters of the query and output projections."""
        return 2 * self.width * self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Parameters of the key and value projections."""
        return 2 * self.width * self.kv_heads * self.head_dim

    @property
    def gated(self) -> int:
        """Parameters of the MLP's three matrices."""
        return 3 * self.width * self.mlp


LLADA_8B = Shape(layers=32, width=4096, heads=32, kv_heads=32, head_dim=128, mlp=12288, vocabulary=126464)


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json of either family says."""
    if "d_model" in config:
        heads, width = config["n_heads"], config["d_model"]
        kv_heads = config.get("n_kv_heads") or heads
        sizes = (config["n_layers"], width, heads, kv_heads, width // heads)
        return Shape(*sizes, config["mlp_hidden_size"], config.get("embedding_size") or config["vocab_size"])
    heads, width = config["num_attention_heads"], config["hidden_size"]
    sizes = (config["num_hidden_layers"], width, heads, config["num_key_value_heads"], width // heads)
    return Shape(*sizes, config["intermediate_size"], config["vocab_size"])


@dataclass(frozen=True)
class Work:
    """Operations, and bytes of weights read."""

    operations: int
    weight_bytes: int

    def share(self, of: Work) -> dict[str, float]:
        """Both in per cent of another's."""
        return {
            "operations": 100 * self.operations / of.operations,
            "weight_bytes": 100 * self.weight_bytes / of.weight_bytes,
        }


def attention(shape: Shape, queries: int, context: int) -> int:
    """Scores and weighted sum: 4 n S H d."""
    return 4 * queries * context * shape.heads * shape.head_dim


def base_round(shape: Shape, *, computed: int, context: int, rows: int) -> Work:
    """One forward of one canvas.

    Args:
        shape: of the base.
        computed: positions that go through the blocks: all of them, or with a cache those of the open block.
        context: positions attended to.
        rows: positions that reach the LM head.
    """
    block, head = shape.query + shape.keys + shape.gated, shape.width * shape.vocabulary
    inside = 2 * computed * block + attention(shape, computed, context)
    norms = (2 * shape.layers + 1) * shape.width
    return Work(shape.layers * inside + 2 * rows * head, BASE_BYTES * (shape.layers * block + head + norms))


def head_round(shape: Shape, config: HeadConfig, *, context: int, rows: int) -> Work:
    """What the head adds to that forward, cached or not.

    The side-stream runs the masked rows alone; its blocks are the base's own weights, read a second time, and its first block needs
    no keys and values. The small heads run on every position of the canvas and its prompt.

    Args:
        shape: of the base.
        config: of the head.
        context: positions attended to.
        rows: positions scored.
    """
    inward = len(config.feature_names)
    if config.reads_hidden:
        rank = config.rank if config.variant == "lora" else 0
        inward, ran = inward + shape.width, rows
        before = _again(shape, config.blocks, rank, context=context, rows=rows)
    elif config.variant == "features":
        before, ran, inward = _layers(config, inward, context=context), context, inward + config.width
    else:
        ran, before = context, Work(0, 0)
    extra = _readout(config, inward) + (inward * (2 * config.pairs + 2) if config.pairs else 0)
    tables = 2 if config.reach else 0  # what places and equal candidates say: one of equal candidates, one of others
    products = (1 + tables) * 2 * context * context * config.pairs  # q_i with k_j and with each table, of all positions
    places = tables * (2 * config.reach + 1) * (config.pairs + 1)
    return Work(
        before.operations + 2 * ran * extra + products,
        before.weight_bytes + HEAD_BYTES * (extra + places),
    )


def cascade_round(shape: Shape, *, blocks: int, rank: int, context: int, rows: int) -> Work:
    """What one look at the cascade adds: the last blocks on the masked rows with keys and values of their own, and a few logits.

    Args:
        shape: of the base.
        blocks: that run again.
        rank: of their LoRA.
        context: positions attended to.
        rows: masked positions.
    """
    again = _again(shape, blocks, rank, context=context, rows=rows, own_keys=True)
    extra = shape.width * shape.width + shape.width  # the committed tokens' way in, and the rest of the vocabulary
    lines = rows * CANDIDATES * shape.width
    return Work(
        again.operations + 2 * rows * extra + 2 * lines, again.weight_bytes + BASE_BYTES * lines + HEAD_BYTES * extra
    )


def _again(shape: Shape, blocks: int, rank: int, *, context: int, rows: int, own_keys: bool = False) -> Work:
    """The base's last blocks on the masked rows, with LoRA where there is a rank; the first keeps the base's keys, or its own."""
    again = blocks * (shape.query + shape.gated) + (blocks - (not own_keys)) * shape.keys
    lora = blocks * _lora(shape, rank, own_keys=own_keys)
    norms = (2 * blocks + 1) * shape.width
    operations = 2 * rows * (again + lora) + blocks * attention(shape, rows, context)
    return Work(operations, BASE_BYTES * (again + norms) + HEAD_BYTES * lora)


def _layers(config: HeadConfig, features: int, *, context: int) -> Work:
    """The two feature layers, on all positions: four projections and an MLP of twice the width each, and their attention."""
    extra = features * config.width + 2 * 8 * config.width**2
    return Work(2 * context * extra + 2 * 4 * context * context * config.width, HEAD_BYTES * extra)


def _readout(config: HeadConfig, inward: int) -> int:
    """Parameters of the read-out's matrices."""
    return 2 * inward if config.variant == "linear" else config.width * (inward + 2)


def _lora(shape: Shape, rank: int, *, own_keys: bool) -> int:
    """LoRA on q, attention output and the MLP's three matrices, on k and v with `own_keys`: r (in + out) each."""
    inner, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sides = 2 * (shape.width + inner) + 3 * (shape.width + shape.mlp) + own_keys * 2 * (shape.width + keys)
    return rank * sides


def table(
    shape: Shape, feature_names: tuple[str, ...], *, prompt: int, gen_length: int, block_length: int
) -> list[dict[str, Any]]:
    """Every variant beside a round in which a whole block is masked, cached (the block computed) and uncached (all of it).

    Args:
        shape: of the base.
        feature_names: of the heads.
        prompt, gen_length: positions of prompt and canvas.
        block_length: masked rows, at most.
    """
    context, rows = prompt + gen_length, block_length
    rows_out = []
    work = [(name, head_round(shape, one, context=context, rows=rows)) for name, one in _variants(feature_names)]
    for blocks in (1, 2, 4):
        work.append((f"cascade K={blocks}", cascade_round(shape, blocks=blocks, rank=32, context=context, rows=rows)))
    for name, added in work:
        row: dict[str, Any] = {"head": name, "operations": added.operations, "weight_bytes": added.weight_bytes}
        for mode, computed in (("cached", block_length), ("uncached", context)):
            row[mode] = added.share(base_round(shape, computed=computed, context=context, rows=rows))
        rows_out.append(row)
    return rows_out


def _variants(feature_names: tuple[str, ...]) -> list[tuple[str, HeadConfig]]:
    some = [("linear", HeadConfig("linear", feature_names)), ("features", HeadConfig("features", feature_names))]
    some.append(("hidden K=1", HeadConfig("hidden", feature_names)))
    some += [(f"lora K={k}", HeadConfig("lora", feature_names, blocks=k)) for k in (1, 2, 3)]
    return [*some, ("lora K=1, pairs 16", HeadConfig("lora", feature_names, pairs=16, reach=96))]
