"""What all tests share: when shapes are checked, how close two computations must be, and a small checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import shape_checks

shape_checks.install()
ROUNDINGS = 128  # through two blocks of width 64; 39 is the most that a kernel has shown


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    shape_checks.start_test()
    torch.set_float32_matmul_precision("highest")  # commands that train set it for their process


@pytest.fixture(scope="session")
def equal_up_to_rounding() -> Callable[[Tensor, Tensor], None]:
    """Compares two orders of summation: they differ by some roundings of the largest number, in its own format."""

    def compare(found: Tensor, expected: Tensor) -> None:
        tolerance = ROUNDINGS * torch.finfo(expected.dtype).eps * expected.abs().max().item()
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)

    return compare


@pytest.fixture(scope="session")
def write_tiny() -> Callable[..., Path]:
    """Writes a LLaDA checkpoint of small blocks with random weights and the shipped tokenizer into a folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from train.base.export import export
    from train.commands.command_line import shipped

    def write(folder: Path, *, width: int = 16, layers: int = 1, sharpness: float = 1.0) -> Path:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=768, hidden_size=width, intermediate_size=3 * width // 2, num_hidden_layers=layers,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        model.lm_head.weight.data *= sharpness
        export(model, folder, tokenizer=shipped("checkpoints/reason-7m"), mask_id=1, eos_id=0)
        return folder

    return write


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]) -> Path:
    """A LLaDA checkpoint of one small block with random weights, 256 positions and the shipped tokenizer; only read."""
    return write_tiny(tmp_path_factory.mktemp("tiny"))
