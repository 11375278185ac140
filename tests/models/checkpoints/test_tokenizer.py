"""Prompts become the ids that the authors' tokenizers give, as chat where the checkpoint is one."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from models import load
from models.checkpoints.families import CheckpointError
from models.checkpoints.tokenizer import check_prompts, load_tokenizer

# as published with LLaDA-8B-Instruct; it opens the assistant's turn whatever add_generation_prompt says
LLADA_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
SPECIAL = ("<|startoftext|>", "<|endoftext|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


@pytest.fixture
def checkpoint(goldens, tmp_path):
    """The LLaDA golden model with a tokenizer of one id a letter and LLaDA's special tokens, as a base or chat model."""

    def build(*, chat: bool, mask_token: str | None = None):
        letters = {chr(code): code - 32 for code in range(32, 127)} | {"\n": 95}
        words = letters | {token: 245 + i for i, token in enumerate(SPECIAL)} | {"<|mdm_mask|>": 250}
        plain = Tokenizer(models.BPE(vocab=words, merges=[]))
        plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        plain.decoder = decoders.Fuse()
        plain.add_special_tokens([*SPECIAL, "<|mdm_mask|>"])
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token=SPECIAL[0], mask_token=mask_token)
        tokenizer.chat_template = LLADA_TEMPLATE if chat else None
        tokenizer.save_pretrained(tmp_path)
        for name in ("config.json", "model.safetensors"):
            shutil.copy(goldens["llada"].folder / name, tmp_path / name)
        return tmp_path

    return build


def test_a_base_checkpoint_encodes_plainly(checkpoint):
    denoiser = load(checkpoint(chat=False), device="cpu")
    assert not denoiser.is_chat
    assert denoiser.encode(["A b", "c"]) == [[33, 0, 66], [67]]
    with pytest.raises(ValueError, match="chat must be False"):
        denoiser.encode(["a"], chat=True)


def test_a_chat_checkpoint_opens_the_assistants_turn(checkpoint):
    denoiser = load(checkpoint(chat=True), device="cpu")
    assert denoiser.is_chat
    (ids,) = denoiser.encode([" hi "])
    text = "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
    assert denoiser.tokenizer.decode(ids) == text + "<|start_header_id|>assistant<|end_header_id|>\n\n"
    assert ids[:2] == [245, 247]
    assert denoiser.encode(["hi"], chat=False) == [[72, 73]]
    assert denoiser.end_of_turn_id == 249


def test_messages_are_rendered_by_the_template(checkpoint):
    denoiser = load(checkpoint(chat=True), device="cpu")
    alone = [{"role": "user", "content": "hi"}]
    longer = [*alone, {"role": "assistant", "content": "ho"}, {"role": "user", "content": "a"}]
    one, two = denoiser.encode([alone, longer])
    assert [one] == denoiser.encode(["hi"])
    assert len(two) > len(one)
    with pytest.raises(ValueError, match="messages of a chat must have a role and a content, both text"):
        denoiser.encode([[{"role": "user"}]])
    for chat, template in ((False, denoiser.tokenizer.chat_template), (None, None)):
        denoiser.tokenizer.chat_template = template
        with pytest.raises(ValueError, match="messages must come with a model that has a chat template"):
            denoiser.encode([alone], chat=chat)


def test_the_mask_id_comes_from_the_config_where_the_tokenizer_names_none(checkpoint):
    folder = checkpoint(chat=False)
    assert load(folder, device="cpu").mask_id == 250


def test_config_and_tokenizer_must_agree_on_the_mask(checkpoint):
    with pytest.raises(CheckpointError, match="must be the tokenizer's 246, got 250"):
        load(checkpoint(chat=False, mask_token="<|endoftext|>"), device="cpu")


def test_the_tokenizers_mask_id_counts_where_the_config_names_none(checkpoint):
    folder = checkpoint(chat=False, mask_token="<|mdm_mask|>")
    config = json.loads((folder / "config.json").read_text())
    config.pop("mask_token_id")
    (folder / "config.json").write_text(json.dumps(config))
    assert load(folder, device="cpu").mask_id == 250


@pytest.mark.parametrize("chat", [True, False])
def test_prompts_that_cannot_be_decoded_from_are_refused(checkpoint, chat):
    denoiser = load(checkpoint(chat=chat), device="cpu")
    with pytest.raises(ValueError, match=r"prompt 1 must not hold the mask token \(id 250\)"):
        denoiser.encode(["a", "b<|mdm_mask|>"])
    with pytest.raises(ValueError, match="prompt 1 must not be empty"):
        denoiser.encode(["a", ""])


def test_strings_need_a_tokenizer(goldens):
    with pytest.raises(ValueError, match="prompts must be token ids where the checkpoint has no tokenizer"):
        goldens["llada"].denoiser.encode(["a"])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1], []], "prompt 1 must hold at least one token, got none"),
        ([[1, 9]], r"prompt 0 must not hold the mask token \(id 9\), got it at 1"),
        ([[1], [10]], r"token ids of prompt 1 must lie in \[0, 10\), got 10"),
        ([[-1]], r"got -1"),
    ],
)
def test_ids_are_checked(ids, message):
    with pytest.raises(ValueError, match=message):
        check_prompts(ids, mask_id=9, vocab_size=10)


def test_ids_at_the_edges_pass():
    check_prompts([[0, 8]], mask_id=9, vocab_size=9)


def test_a_damaged_tokenizer_is_named(checkpoint):
    folder = checkpoint(chat=False)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="the tokenizer files of"):
        load(folder, device="cpu")


def test_dreams_tokenizer_as_published(published):
    tokenizer = load_tokenizer(published / "dream")
    assert tokenizer("Hello world", add_special_tokens=False)["input_ids"] == [9707, 1879]
    assert tokenizer(" Hello world", add_special_tokens=False)["input_ids"] == [21927, 1879]
    assert tokenizer.mask_token_id == 151666
    assert tokenizer.eos_token_id == 151643
    added = json.loads((published / "dream" / "added_tokens.json").read_text())
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in added} == added
    assert tokenizer("<|im_start|>a<|mask|><|beginoftext|>")["input_ids"] == [151644, 64, 151666, 151665]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert text == system + "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_dreams_tokenizer_keeps_every_text(published):
    tokenizer = load_tokenizer(published / "dream")
    for text in ("don't  do\n\n 123 é", "\tdef f(x):\n        return x", "数学 – ≥"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_lladas_template_as_published(published):
    settings = json.loads((published / "llada" / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == LLADA_TEMPLATE
    assert settings["added_tokens_decoder"]["126336"]["content"] == "<|mdm_mask|>"
    assert settings["added_tokens_decoder"]["126348"]["content"] == "<|eot_id|>"


@pytest.mark.parametrize("template", ["{{ messages[9].x.y }}", "{% for", "{{ raise_exception('no') }}", "{{ 1 / 0 }}"])
def test_a_template_that_breaks_is_told_in_one_sentence(checkpoint, template):
    folder = checkpoint(chat=True)
    file = folder / "tokenizer_config.json"
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}))
    (folder / "checksums.json").unlink(missing_ok=True)
    denoiser = load(folder, device="cpu")
    with pytest.raises(ValueError, match=r"^the chat template of the tokenizer must render the messages, got [^\n]+$"):
        denoiser.encode(["hi"], chat=True)
