"""A toy with a tokenizer of letters, and a canvas for it."""

import torch

from models.toys.toy import TableDenoiser

CANVAS = {"gen_length": 12, "block_length": 4}


class Alphabet:
    """Five letters."""

    def decode(self, ids, skip_special_tokens):
        return "".join("abcde"[i] for i in ids)


class Letters(TableDenoiser):
    """Letters, EOS at id 5, the mask at 6; every position has its own fixed distribution."""

    def __init__(self) -> None:
        super().__init__(torch.randn(40, 7, generator=torch.Generator().manual_seed(3)) * 2, mask_id=6, eos_id=5)
        self.tokenizer, self.max_length = Alphabet(), 30

    def encode(self, prompts, chat=None):
        return [["abcde".index(letter) for letter in prompt] for prompt in prompts]
