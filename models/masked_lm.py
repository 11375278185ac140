"""LLaDA and Dream on transformers' native Llama and Qwen2 layers, as a Denoiser."""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask

from models.asides import attention_map, blind, visible
from models.block_cache import BlockCache
from models.block_run import Recorder, Run, context_of, positions_of, predictors, themselves
from models.checkpoints.files import combine, digest
from models.checkpoints.tokenizer import Prompt, check_prompts, encode
from models.denoiser import Denoiser, Prediction, Tap
from models.engine.engine import engine_for


class MaskedLM(Denoiser):
    """A bidirectional transformer that predicts masked tokens: p(x_i | revealed tokens) at every masked i.

    Runs the blocks of the native model itself, so that the LM head sees only the rows asked for, and a block's input,
    keys and values can be read on the way without a change to what is computed.

    Args:
        model: a `LlamaForCausalLM` or `Qwen2ForCausalLM`; attention is bidirectional here whatever its config says.
        shifted: whether the hidden state at i - 1 predicts position i (Dream).
        mask_id: id of the mask token.
        eos_id: id that ends an answer, or None.
        end_of_turn_id: id that closes a chat message, or None.
        also_ends: further ids that end an answer.
        tokenizer: turns strings into ids and back, or None.
        fingerprint: of the stored weights, where the loader took it; otherwise taken from the model when asked for.
    """

    def __init__(
        self,
        model: Any,
        *,
        shifted: bool,
        mask_id: int,
        eos_id: int | None,
        end_of_turn_id: int | None = None,
        also_ends: tuple[int, ...] = (),
        tokenizer: Any = None,
        fingerprint: str = "",
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.shifted = shifted
        self.mask_id, self.eos_id, self.end_of_turn_id = mask_id, eos_id, end_of_turn_id
        self.also_ends = also_ends
        self.vocab_size: int = model.config.vocab_size
        self.max_length: int = model.config.max_position_embeddings
        self.hidden_size: int = model.config.hidden_size
        self.tokenizer = tokenizer
        self._fingerprint = fingerprint
        self.stored_bytes = ""
        self.cache: BlockCache | None = None

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override] # the base class declares it; here it is part of the model
        """The decoder layers, first to last."""
        return cast(nn.ModuleList, self.model.model.layers)

    @property
    def final_norm(self) -> nn.Module:  # type: ignore[override]
        """The norm between the last block and the LM head."""
        return cast(nn.Module, self.model.model.norm)

    @property
    def token_embedding(self) -> nn.Embedding:  # type: ignore[override]
        """What turns ids into hidden states."""
        return cast(nn.Embedding, self.model.model.embed_tokens)

    @property
    def lm_head(self) -> nn.Linear:  # type: ignore[override]
        """What turns hidden states into logits."""
        return cast(nn.Linear, self.model.lm_head)

    @property
    def is_chat(self) -> bool:
        """Whether the checkpoint brings a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def device(self) -> torch.device:
        """Where token ids must live: where the embedding is."""
        return self.token_embedding.weight.device

    def encode(self, prompts: Sequence[Prompt], chat: bool | None = None) -> list[list[int]]:
        """Prompts as token ids.

        Args:
            prompts: texts, or chats (messages with `role` and `content`).
            chat: render each as a user message with the assistant's turn open; None: where there is a chat template.

        Returns:
            One list of ids a prompt, not padded.

        Raises:
            ValueError: if a prompt is empty or holds the mask token, or tokenizer or template are missing.
        """
        if self.tokenizer is None:
            raise ValueError("prompts must be token ids where the checkpoint has no tokenizer, got strings")
        messages = any(not isinstance(prompt, str) for prompt in prompts)
        if messages and (chat is False or not self.is_chat):
            raise ValueError(
                "messages must come with a model that has a chat template, and chat left on, got one without"
            )
        if chat and not self.is_chat:
            raise ValueError("chat must be False where the tokenizer has no chat template, got True")
        if "" in prompts:
            raise ValueError(f"prompt {list(prompts).index('')} must not be empty, got ''")
        ids = encode(self.tokenizer, prompts, chat=self.is_chat if chat is None else chat)
        check_prompts(ids, mask_id=self.mask_id, vocab_size=self.vocab_size)
        return ids

    def fingerprint(self) -> str:
        """sha256 over sorted names, shapes and float32 values of the weights as stored, whatever dtype they have now.

        Of a tensor with more than 2^18 values every n-th enters. A merged adapter adds its own tensors.
        """
        if not self._fingerprint:
            tensors = self.model.named_parameters()
            self._fingerprint = combine({name: digest(name, tensor) for name, tensor in tensors})
        return self._fingerprint

    def renew_fingerprint(self, fingerprint: str) -> None:
        """The weights are others now."""
        self._fingerprint, self.stored_bytes = fingerprint, ""

    def with_cache(self, mode: str) -> MaskedLM:
        """The same weights behind a fresh block cache, for one decode at a time; "none" computes every canvas whole.

        Raises:
            ValueError: if the mode is another.
        """
        twin = copy.copy(self)
        twin.cache = None if mode == "none" else BlockCache(mode)
        return twin

    def use_engine(self, kind: str = "auto") -> MaskedLM:
        """Run decodes by an engine from now on; see `models.load`.

        Raises:
            ValueError: if the kind is unknown.
        """
        self.__dict__["engine"] = engine_for(self, kind)
        return self

    def put_on(self, head: Any) -> None:
        """Keep a scoring head beside the weights: it is no submodule, so nothing of it counts as the base's."""
        self.__dict__["head"] = head

    def rotary(self, position_ids: Int[Tensor, "N L"]) -> tuple[Float[Tensor, "N L d"], Float[Tensor, "N L d"]]:
        """Cosine and sine of the rotary embedding, in the model's dtype."""
        like = self.model.model.embed_tokens.weight
        cos, sin = self.model.model.rotary_emb(like, position_ids=position_ids)
        return cos, sin

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
        """See `Denoiser.forward`; without a cache every canvas is computed whole and `owner` and `refresh` change nothing."""
        rows = torch.ones_like(tokens, dtype=torch.bool) if rows is None else rows
        context = context_of(tokens, attention_mask)
        cos, sin = rotary = self.rotary(positions_of(context))
        if self.cache is None:
            run = self.run_blocks(tokens, attention_mask, rotary, Recorder(taps) if taps else None, taps, context)
        else:
            run = self.cache.run(self, tokens, attention_mask, rotary, rows, taps, owner, refresh)
        hidden, source = run.hidden, predictors(context) if self.shifted else themselves(context)
        if self.shifted:
            hidden = hidden.gather(1, source.unsqueeze(-1).expand_as(hidden))
        logits = self.model.lm_head(self.final_norm(hidden[rows]))
        read = tuple(Tap(run.entered[i], run.keys[i], run.values[i], context, cos, sin, source) for i in taps)
        return Prediction(logits, rows, run.positions, read)

    def shadowed(
        self,
        tokens: Int[Tensor, "N L"],
        shadows: Int[Tensor, "N S"],
        *,
        attention_mask: Bool[Tensor, "N L"] | None = None,
        rows: Bool[Tensor, "N L"] | None = None,
    ) -> Prediction:
        """See `Denoiser.shadowed`; every canvas is computed whole, a cache or not."""
        if self.shifted:
            raise ValueError("the model must predict each position in place for shadow rows, got a shifted one (Dream)")
        rows = torch.ones_like(tokens, dtype=torch.bool) if rows is None else rows
        context = context_of(tokens, attention_mask)
        place = positions_of(context)
        rotary = self.rotary(torch.cat([place, place.gather(1, shadows)], 1))
        longer = torch.cat([tokens, torch.full_like(shadows, self.mask_id)], 1)
        mask = torch.zeros(*longer.shape, longer.shape[1], dtype=rotary[0].dtype, device=longer.device)
        mask = mask.masked_fill(~visible(context, shadows), -torch.inf).unsqueeze(1)
        run = self.run_blocks(longer, mask, rotary, None, (), torch.ones_like(longer, dtype=torch.bool))
        hidden = blind(run.hidden, tokens != self.mask_id, shadows)
        logits = self.model.lm_head(self.final_norm(hidden[rows]))
        return Prediction(logits, rows, context.sum(-1) + shadows.shape[1])

    def attended(
        self,
        tokens: Int[Tensor, "N L"],
        blocks: int,
        *,
        attention_mask: Bool[Tensor, "N L"] | None = None,
        rows: Bool[Tensor, "N L"] | None = None,
    ) -> Prediction:
        """See `Denoiser.attended`; every canvas is computed whole, a cache or not."""
        last = range(max(0, len(self.blocks) - blocks), len(self.blocks))
        prediction = self.forward(tokens, attention_mask=attention_mask, rows=rows, taps=last)
        pairs = zip(self.blocks[last.start :], prediction.taps, strict=True)
        attention = torch.stack([attention_map(block, tap) for block, tap in pairs]).mean(0)
        return replace(prediction, taps=(), attention=attention)

    def run_blocks(
        self,
        tokens: Int[Tensor, "N Q"],
        attention_mask: Bool[Tensor, "N S"] | Float[Tensor, "N 1 Q S"] | None,
        rotary: tuple[Float[Tensor, "N Q d"], Float[Tensor, "N Q d"]],
        recorder: Recorder | None,
        taps: Container[int],
        computed: Bool[Tensor, "N S"],
    ) -> Run:
        """See `BlockStack.run_blocks`; the final norm is left to the rows that need it."""
        hidden = self.model.model.embed_tokens(tokens)
        mask = create_bidirectional_mask(self.model.config, hidden, attention_mask)
        entered: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            if index in taps:
                entered[index] = hidden
            hidden = block(
                hidden,
                attention_mask=mask,
                position_embeddings=rotary,
                past_key_values=recorder,
                is_causal=False,
            )
        keys, values = ({}, {}) if recorder is None else (recorder.keys, recorder.values)
        return Run(hidden, entered, keys, values, computed.sum(-1))
