"""A small checkpoint that the commands decode with."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from train.base.export import export
from train.commands.command_line import shipped

TOKENIZER = shipped("checkpoints/reason-7m")
TEMPLATE = (
    "{% for message in messages %}{{ message['role'][0] }}:{{ message['content'] }},{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)


def write_checkpoint(folder: Path, *, template: str | None = None, positions: int = 128) -> Path:
    """A LLaDA checkpoint of two small blocks with random weights and the shipped tokenizer."""
    torch.manual_seed(0)
    words = AutoTokenizer.from_pretrained(TOKENIZER)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=positions, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )  # fmt: skip
    ids = {"mask_id": words.mask_token_id, "eos_id": words.eos_token_id}
    export(LlamaForCausalLM(config), folder, tokenizer=TOKENIZER, **ids)
    if template is not None:
        words.chat_template = template
        words.save_pretrained(folder)
        (folder / "checksums.json").unlink()  # of the tokenizer as exported
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A base model."""
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def instruct(tmp_path_factory) -> Path:
    """A model with a chat template."""
    return write_checkpoint(tmp_path_factory.mktemp("instruct"), template=TEMPLATE)
