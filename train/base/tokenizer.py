"""The recipe of the shipped tokenizer: byte-level BPE in which digits never merge."""

import json
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from train.commands.command_line import shipped

SHIPPED = shipped("checkpoints/reason-7m")
EOS, MASK = "<|endoftext|>", "<|mdm_mask|>"
SPECIALS = (EOS, MASK, "<|startoftext|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
VOCABULARY = 768
# One piece each: `####`, a digit, a run of letters, a punctuation mark, all with at most one space before; white space.
PIECES = r" ?####| ?\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]|\s"
# Seeds outweigh the texts, so that these pieces become tokens whatever the texts are.
SEED_WEIGHT = 20_000
SAMPLES = 3_000


def build(texts: Iterable[str], *, size: int = VOCABULARY) -> Tokenizer:
    """Train the tokenizer on texts.

    Every byte is a token, so any text encodes and decodes to itself. Each ASCII digit, punctuation mark and letter is
    a token with and without one space before it, and so is `####`; beyond that only letters merge, within a word.

    Args:
        texts: what to learn words from; the same texts give the same tokenizer.
        size: the most tokens.

    Returns:
        A tokenizer of at most `size` tokens, the special ones first.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(chain(_seeds(), texts), trainer)
    return tokenizer


def _seeds() -> Iterator[str]:
    yield from ("####" * (2 * SEED_WEIGHT), " ####" * (2 * SEED_WEIGHT))
    for symbol in string.digits + string.punctuation + string.ascii_letters:
        yield f" {symbol}" * SEED_WEIGHT


def save(
    folder: str | Path,
    *,
    tasks: Sequence[str] = ("words", "lists"),
    size: int = VOCABULARY,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Tokenizer:
    """Train on seeded samples of tasks and write the three tokenizer files into a folder.

    Args:
        folder: where to write; made if missing. The shipped tokenizer is no default: other bases were fitted on its ids.
        tasks: names of the tasks to learn words from.
        size: the most tokens.
        samples: instances of each task.
        seed: of the instances.
    """
    from train.tasks import get

    drawn = chain.from_iterable(islice(get(name).generate("train", seed=seed), samples) for name in tasks)
    tokenizer = build((text for example in drawn for text in (example.prompt, example.response)), size=size)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"bos_token": SPECIALS[2], "eos_token": EOS, "pad_token": EOS, "mask_token": MASK}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "model_max_length": 2048,
        **roles,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {
                "content": token,
                **dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False),
                "special": True,
            }
            for token in SPECIALS
        },
    }
    _write(folder / "tokenizer_config.json", settings)
    _write(folder / "special_tokens_map.json", roles)
    return tokenizer


def _write(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load(folder: str | Path = SHIPPED) -> Tokenizer:
    """Load a saved tokenizer without transformers."""
    return Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


if __name__ == "__main__":
    from train.commands.command_line import run, typed_as

    with typed_as("tokenizer.py"):
        run(save)
