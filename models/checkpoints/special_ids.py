"""Which token masks, which end an answer and which closes a turn, and whether the tokenizer is the model's own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from models.checkpoints.families import CheckpointError, Family
from models.complaints import shown


def special_ids(
    family: Family, config: Mapping[str, Any], tokenizer: Any, generation: Mapping[str, Any]
) -> dict[str, Any]:
    """Mask, EOS and end-of-turn ids: by config.json and generation_config.json, then the tokenizer, then as published.

    Args:
        family: whose published ids are the last resort.
        config: content of config.json.
        tokenizer: of the folder, or None.
        generation: content of generation_config.json, empty where there is none.

    Raises:
        CheckpointError: if config and tokenizer name different mask tokens, or the id lies outside the vocabulary.
    """
    size = config.get("embedding_size") or config["vocab_size"]
    declared = getattr(tokenizer, "mask_token_id", None)
    mask_id = config.get("mask_token_id")
    if None not in (declared, mask_id) and declared != mask_id:
        raise CheckpointError(f"mask_token_id of config.json must be the tokenizer's {declared}, got {shown(mask_id)}")
    mask_id = next(i for i in (mask_id, declared, family.mask_id) if i is not None)
    if not isinstance(mask_id, int) or isinstance(mask_id, bool) or not 0 <= mask_id < size:
        raise CheckpointError(f"the mask id must lie in the vocabulary of {size}, got {mask_id}")
    ends = ends_of((config, generation), tokenizer, size)
    eos_id = ends[0] if ends else None
    if mask_id in ends:
        raise CheckpointError(f"eos_token_id must be another than the mask id {mask_id}, got it")
    known = {} if tokenizer is None else tokenizer.get_vocab()
    _check_tokenizer(known, tokenizer, size, [mask_id, *([] if eos_id is None else [eos_id])])
    published = family.end_of_turn_id if tokenizer is None and family.end_of_turn_id < size else None
    turn = known.get(family.end_of_turn, published)
    special = {"mask_id": mask_id, "eos_id": eos_id, "also_ends": tuple(ends[1:]), "end_of_turn_id": turn}
    return special | {"tokenizer": tokenizer}


def ends_of(configs: Sequence[Mapping[str, Any]], tokenizer: Any, size: int) -> list[int]:
    """The EOS ids that the configs name, and the tokenizer's behind them.

    Raises:
        CheckpointError: if one lies outside the vocabulary.
    """
    named = [config.get("eos_token_id") for config in configs]
    ends = [one for ids in named if ids is not None for one in (ids if isinstance(ids, list | tuple) else [ids])]
    ends += [one for one in [getattr(tokenizer, "eos_token_id", None)] if one is not None]
    for one in ends:
        if not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < size:
            raise CheckpointError(f"eos_token_id must hold ids of the vocabulary of {size}, got {shown(one)}")
    return list(dict.fromkeys(ends))


def _check_tokenizer(known: Mapping[str, int], tokenizer: Any, size: int, special: Sequence[int]) -> None:
    """Refuse the tokenizer of another base: ids that the model does not have, or a plain word where a special id stands.

    One that knows less than half of the ids is warned of.
    """
    last = max(known, key=known.__getitem__, default=None)
    if last is not None and known[last] >= size:
        raise CheckpointError(
            f"the tokenizer must be the model's own, whose ids lie below {size}, got {shown(last)} with id {known[last]}"
        )
    if last is not None and 2 * (known[last] + 64) < size:  # embeddings are rounded up
        warnings.warn(
            f"the tokenizer ends at id {known[last]}, and the model has {size}: it may be that of another base",
            stacklevel=2,
        )
    added = getattr(tokenizer, "added_tokens_decoder", {})
    for number in special if known else ():
        word = next((token for token, one in known.items() if one == number), None)
        if word is not None and number not in added and number not in getattr(tokenizer, "all_special_ids", ()):
            raise CheckpointError(
                f"the tokenizer must be the model's own, with a special token at id {number}, got the word {shown(word)} there"
            )
