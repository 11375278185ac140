"""A denoiser that is no transformer: a bidirectional stack of dilated convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.checkpoints.config_numbers import CheckpointError, whole
from models.checkpoints.files import check_names, combine, digest, read_json, stream, weight_files
from models.checkpoints.manifest import check_files, read_manifest, settle
from models.checkpoints.sums import byte_sum, check_finite, check_sums, spelled
from models.checkpoints.tokenizer import check_prompts, encode, load_tokenizer
from models.complaints import shown
from models.devices import find_device
from models.toys.toy import WholeCanvas

KIND = "dilated-convolutions"
MOST = 1 << 16  # of every size


@dataclass(frozen=True)
class ConvolutionShape:
    """Size of the stack.

    Args:
        vocab_size: of the tokenizer.
        width: channels.
        dilations: of the layers of one pass; a layer reads positions i - d, i and i + d.
        passes: how often they are stacked.
        max_length: longest sequence; must stay within what the layers reach.
    """

    vocab_size: int
    width: int = 88
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    passes: int = 2
    max_length: int = 128


class Layer(nn.Module):
    """x + W_out gelu(conv_d(norm(x))); what lies outside the sequence counts as 0, padding as well."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.dilation = dilation
        self.conv = nn.Linear(3 * width, width)  # a convolution of three taps as a matrix product, far faster on a CPU
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, hidden: Float[Tensor, "N L D"], inside: Float[Tensor, "N L 1"]) -> Float[Tensor, "N L D"]:
        """One layer."""
        d, length = self.dilation, hidden.shape[1]
        wide = nn.functional.pad(self.norm(hidden) * inside, (0, 0, d, d))
        spread = self.conv(torch.cat([wide[:, :length], wide[:, d : d + length], wide[:, 2 * d :]], -1))
        changed: Tensor = hidden + self.out(nn.functional.gelu(spread))
        return changed


class ConvolutionalDenoiser(WholeCanvas):
    """p(x_i | revealed tokens) at every masked i, by residual dilated convolutions in both directions; no attention.

    Left padding changes nothing: every layer reads it as it reads what lies outside the sequence.

    Args:
        shape: size of the stack.
        mask_id: id of the mask token.
        eos_id: id that ends an answer, or None.
        tokenizer: turns strings into ids and back, or None.
    """

    def __init__(
        self, shape: ConvolutionShape, *, mask_id: int, eos_id: int | None = None, tokenizer: Any = None
    ) -> None:
        super().__init__()
        self.shape = shape
        self.mask_id, self.eos_id, self.tokenizer = mask_id, eos_id, tokenizer
        self.vocab_size, self.max_length, self.hidden_size = shape.vocab_size, shape.max_length, shape.width
        self.embedding = nn.Embedding(shape.vocab_size, shape.width)
        self.layers = nn.ModuleList(Layer(shape.width, d) for _ in range(shape.passes) for d in shape.dilations)
        self.norm = nn.RMSNorm(shape.width, eps=1e-5)
        self.head = None
        nn.init.normal_(self.embedding.weight, std=shape.width**-0.5)

    def hidden_states(
        self, tokens: Int[Tensor, "N L"], attention_mask: Bool[Tensor, "N L"] | None = None
    ) -> Float[Tensor, "N L D"]:
        """What the unembedding reads, at every position."""
        hidden: Tensor = self.embedding(tokens)
        context = torch.ones_like(tokens) if attention_mask is None else attention_mask
        inside = context.unsqueeze(-1).to(hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, inside)
        normed: Tensor = self.norm(hidden)
        return normed

    def logits_at(self, tokens: Tensor, rows: Tensor, attention_mask: Tensor | None) -> Tensor:
        """See `WholeCanvas.logits_at`."""
        return self.unembed(self.hidden_states(tokens, attention_mask)[rows])

    def unembed(self, hidden: Float[Tensor, "*M D"]) -> Float[Tensor, "*M V"]:
        """Logits, by the transposed embedding."""
        return nn.functional.linear(hidden, self.embedding.weight)

    def encode(self, prompts: Sequence[str], chat: bool | None = None) -> list[list[int]]:
        """Prompts as token ids, one list each; there is no chat template."""
        ids = encode(self.tokenizer, prompts, chat=False)
        check_prompts(ids, mask_id=self.mask_id, vocab_size=self.vocab_size)
        return ids

    def fingerprint(self) -> str:
        """See `Denoiser.fingerprint`."""
        return combine({name: digest(name, tensor) for name, tensor in self.named_parameters()})

    def config(self) -> dict[str, Any]:
        """What config.json holds."""
        return {"model_type": KIND, **asdict(self.shape), "mask_token_id": self.mask_id, "eos_token_id": self.eos_id}


def _shape_of(config: Mapping[str, Any]) -> tuple[ConvolutionShape, dict[str, int]]:
    """Size and special ids of a config.json, judged before anything is built."""
    sizes = ("vocab_size", "width", "passes", "max_length")
    try:
        dilations = {str(number): one for number, one in enumerate(config["dilations"])}
        shape = ConvolutionShape(
            **{name: whole(config, name, most=MOST) for name in sizes},
            dilations=tuple(whole(dilations, name, most=MOST) for name in dilations),
        )
        special = {"mask_id": config["mask_token_id"], "eos_id": config["eos_token_id"]}
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"config.json must be that of a {KIND} model, got {error}") from error
    for name, one in special.items():
        if not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < shape.vocab_size:
            raise CheckpointError(f"{name} must lie in the vocabulary of {shape.vocab_size}, got {shown(one)}")
    return shape, special


def load_convolutional(folder: str | Path, *, device: torch.device | str | None = None) -> ConvolutionalDenoiser:
    """Load what `train.convolutional` saved, in float32.

    Args:
        folder: with config.json, model.safetensors and the tokenizer files.
        device: where the weights go; by default the GPU if there is one.

    Raises:
        CheckpointError: if a file is missing or damaged, or the folder holds another kind of model.
    """
    folder = Path(folder)
    settle(folder)
    sealed = read_manifest(folder).get("tensors")
    config = read_json(folder / "config.json")
    if config.pop("model_type", None) != KIND:
        raise CheckpointError(f"model_type must be {KIND} in {folder}, got another")
    shape, special = _shape_of(config)
    denoiser = ConvolutionalDenoiser(shape, tokenizer=load_tokenizer(folder), **special)
    weights = dict(stream(weight_files(folder)))
    check_names(denoiser, {name: tuple(tensor.shape) for name, tensor in weights.items()}, tied=False)
    check_finite(weights, folder)
    if sealed is not None:
        check_sums(spelled({name: byte_sum(tensor) for name, tensor in weights.items()}), sealed, folder)
    check_files(folder)
    denoiser.load_state_dict(weights)
    return denoiser.to(find_device(device)).requires_grad_(False).eval()
