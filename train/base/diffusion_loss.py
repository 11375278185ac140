"""The masked-diffusion training loss of LLaDA (arXiv 2502.09992, Eq. 3) as pure functions over tensors."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.complaints import shown

Weighting = Literal["inverse", "uniform"]


def mask_rates(uniforms: Float[Tensor, " B"], *, floor: float, schedule: float = 1.0) -> Float[Tensor, " B"]:
    """Stratified mask rates of a batch.

    Row i of B takes ``v = (i + u_i) / B`` and ``t = max(v^(1/schedule), floor)``; each row alone is uniform over a
    random stratum, the batch covers [0, 1] evenly.

    Args:
        uniforms: ``[B]`` numbers in [0, 1).
        floor: least rate, in (0, 1]; 1 / canvas length bounds the weight 1/t.
        schedule: 1 draws t uniformly; above 1 prefers high rates (t has density ``schedule * t^(schedule - 1)``),
            below 1 low ones.

    Returns:
        ``[B]`` rates in [floor, 1].

    Raises:
        ValueError: if floor or schedule is out of range.
    """
    if not 0 < floor <= 1:
        raise ValueError(f"floor must be in (0, 1], got {floor}")
    if schedule <= 0:
        raise ValueError(f"schedule must be positive, got {schedule}")
    rows = uniforms.shape[0]
    strata = torch.arange(rows, device=uniforms.device, dtype=uniforms.dtype)
    return ((strata + uniforms) / rows).pow(1 / schedule).clamp(min=floor)


def mask_canvas(
    canvas: Int[Tensor, "B C"], rates: Float[Tensor, " B"], uniforms: Float[Tensor, "B C"], *, mask_id: int
) -> tuple[Int[Tensor, "B C"], Bool[Tensor, "B C"]]:
    """Replace each canvas token by the mask with its row's probability.

    Args:
        canvas: ``[B, C]`` clean token ids, EOS fill included.
        rates: ``[B]`` mask rates.
        uniforms: ``[B, C]`` numbers in [0, 1); a position is masked where its number is below the rate.
        mask_id: id of the mask token.

    Returns:
        The masked canvas ``[B, C]`` and where it is masked, bool ``[B, C]``.
    """
    masked = uniforms < rates[:, None]
    return canvas.masked_fill(masked, mask_id), masked


def denoising_loss(
    logits: Float[Tensor, "B C V"],
    canvas: Int[Tensor, "B C"],
    masked: Bool[Tensor, "B C"],
    rates: Float[Tensor, " B"],
    weighting: Weighting = "inverse",
    certainty: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean over rows of the weighted cross-entropy on masked canvas positions.

    ``inverse``: ``1/B sum_b 1/C sum_i [i masked] CE_bi / t_b``, the bound on the negative log-likelihood per canvas
    position. ``uniform``: the mean of CE over all masked positions of the batch. With ``certainty`` c, CE is CE + c H [top token
    right], H the entropy of what is predicted: a base that commits much at once (dParallel, arXiv 2509.26488).

    Args:
        logits: ``[B, C, V]`` predictions for the canvas.
        canvas: ``[B, C]`` clean token ids.
        masked: ``[B, C]`` masked positions.
        rates: ``[B]`` mask rates.
        weighting: which of the two.
        certainty: c, at least 0.

    Returns:
        A scalar, float32.

    Raises:
        ValueError: if the weighting is unknown.
    """
    entropy = cross_entropy(logits.float().flatten(0, 1), canvas.flatten(), reduction="none").view(canvas.shape)
    if certainty:
        log_probs = logits.float().log_softmax(-1)
        unsure = -(log_probs.exp() * log_probs).sum(-1)
        entropy = entropy + certainty * unsure * (logits.argmax(-1) == canvas)
    if weighting == "inverse":
        return (entropy * masked / rates[:, None]).mean()
    if weighting == "uniform":
        return (entropy * masked).sum() / masked.sum().clamp(min=1)
    raise ValueError(f"weighting must be 'inverse' or 'uniform', got {shown(weighting)}")
