"""What predicts: a Denoiser gives a distribution for every masked position asked for.

Axis letters used in every annotation of the project:
    B batch (prompts) · K branches of one prompt · N canvases in one forward · L length (prompt + canvas) · P prompt
    M positions asked for, packed · V vocabulary · D hidden · H heads · S keys (context positions)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Tap:
    """What a scoring head may read of the base forward at one block: its input, and the keys and values it attended to.

    Attributes:
        hidden: the block's input; zero at positions that this forward did not compute (cached ones).
        keys, values: of every context position, keys already rotated, key-value heads not repeated.
        context: keys that may be attended to (False on padding).
        cos, sin: rotary table at each position, to rotate queries with.
        source: where the hidden state that predicts each position sits: there itself, one before in a shifted family.
    """

    hidden: Float[Tensor, "*N L D"]
    keys: Float[Tensor, "*N H S d"]
    values: Float[Tensor, "*N H S d"]
    context: Bool[Tensor, "*N S"]
    cos: Float[Tensor, "*N L d"]
    sin: Float[Tensor, "*N L d"]
    source: Int[Tensor, "*N L"]

    def map(self, function: Callable[[Tensor], Tensor]) -> Tap:
        """The same function on every tensor."""
        return Tap(*(function(getattr(self, f.name)) for f in fields(self)))


@dataclass(frozen=True)
class Prediction:
    """The distributions of one batched forward, only at the positions asked for.

    Attributes:
        logits: one line for each True of `rows`, row-major; line m is for that very position in every family.
        rows: the positions asked for.
        positions: token positions computed for each canvas (what the FLOPs follow), padding not counted.
        taps: one Tap for each block asked for.
        attention: at [i, j] what position i reads of position j, the mean over heads and some blocks; None unless asked for.
    """

    logits: Float[Tensor, "M V"]
    rows: Bool[Tensor, "N L"]
    positions: Int[Tensor, " N"]
    taps: tuple[Tap, ...] = ()
    attention: Float[Tensor, "N L L"] | None = None


class Denoiser(nn.Module, ABC):
    """A masked diffusion language model seen from the decoder.

    Attributes:
        mask_id: id of the mask token; never predicted, never allowed in a prompt.
        eos_id: id that ends an answer and fills what follows, or None.
        end_of_turn_id: id that closes a chat message and so ends an answer too, or None.
        also_ends: further ids that end an answer.
        vocab_size: V.
        max_length: longest prompt + canvas the model takes.
        tokenizer: turns strings into ids and back, or None.
        stored_bytes: fingerprint over every byte of the checkpoint, "" where it was not taken.
        head: the scoring head that `models.load(..., head=...)` put on, or None.
        engine: what runs the forwards of a decode fast (`models.engine`), or None.
    """

    mask_id: int
    eos_id: int | None
    end_of_turn_id: int | None = None
    also_ends: tuple[int, ...] = ()
    vocab_size: int
    max_length: int
    tokenizer: Any = None
    stored_bytes: str = ""
    head: Any = None
    engine: Any = None
    blocks: nn.ModuleList  # of a transformer denoiser: its parts, which a head re-uses
    final_norm: nn.Module
    token_embedding: nn.Embedding
    lm_head: nn.Linear
    hidden_size: int

    @property
    def device(self) -> torch.device:
        """Where token ids must live."""
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Every id that ends an answer, EOS first."""
        ids = (self.eos_id, *self.also_ends, self.end_of_turn_id)
        return tuple(dict.fromkeys(one for one in ids if one is not None))

    @abstractmethod
    def forward(
        self,
        tokens: Int[Tensor, "N L"],
        *,
        attention_mask: Bool[Tensor, "N L"] | None = None,
        rows: Bool[Tensor, "N L"] | None = None,
        taps: Sequence[int] = (),
        owner: Int[Tensor, " N"] | None = None,
        refresh: Bool[Tensor, " N"] | None = None,
    ) -> Prediction:
        """Predict every position asked for, given all revealed ones.

        Args:
            tokens: canvases with mask ids at unknown positions.
            attention_mask: False on padding; None means no padding.
            rows: positions whose distribution is wanted; None means all.
            taps: indices of the blocks a scoring head reads (0-based).
            owner: the prompt each canvas belongs to (whose cache it reads); None means canvas n belongs to prompt n.
            refresh: True where the prompt has just opened a block, so that its cache must be rebuilt.
        """

    def shadowed(
        self,
        tokens: Int[Tensor, "N L"],
        shadows: Int[Tensor, "N S"],
        *,
        attention_mask: Bool[Tensor, "N L"] | None = None,
        rows: Bool[Tensor, "N L"] | None = None,
    ) -> Prediction:
        """Predict masked positions as ever, and revealed ones of `shadows` by a mask row that does not see the token there.

        Args:
            tokens: canvases with mask ids at unknown positions.
            shadows: columns with such a row, ascending; the rows stand at these positions, see each other and all positions but
                their own, and no position sees them.
            attention_mask: False on padding; None means no padding.
            rows: positions whose distribution is wanted, no revealed one outside `shadows`; None means all.

        Raises:
            ValueError: for a denoiser without such rows.
        """
        raise ValueError(f"the model must have shadow rows for this policy, got a {type(self).__name__}")

    def attended(
        self,
        tokens: Int[Tensor, "N L"],
        blocks: int,
        *,
        attention_mask: Bool[Tensor, "N L"] | None = None,
        rows: Bool[Tensor, "N L"] | None = None,
    ) -> Prediction:
        """Predict as ever, with the attention of the last `blocks` blocks.

        Args:
            tokens: canvases with mask ids at unknown positions.
            blocks: whose attention is averaged, at least 1; all of them where there are fewer.
            attention_mask: False on padding; None means no padding.
            rows: positions whose distribution is wanted; None means all.

        Raises:
            ValueError: for a denoiser without attention.
        """
        raise ValueError(f"the model must have attention for this policy, got a {type(self).__name__}")

    def fingerprint(self) -> str:
        """Hash of the weights, which binds traces and heads to a base; "" where there are none."""
        return ""

    def logits(
        self, tokens: Int[Tensor, "B L"], attention_mask: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B L V"]:
        """Logits of all positions; row i is the prediction for position i in every family. For tests and studies."""
        prediction: Prediction = self(tokens, attention_mask=attention_mask)
        return prediction.logits.reshape(*tokens.shape, -1)
