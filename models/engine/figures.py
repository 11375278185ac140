"""What the engine reads off the logits of a row: the most likely token, how sure it is, and the five best."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

TOP = 5
FLOATS = 4 + TOP
INTS = 1 + TOP
CORE = 1 << 18  # logits a processor's core reads at a time


def least() -> float:
    """Log-probability below which nothing is told apart.

    No constant of the module: a compiler takes such a float for a number that may change, and traces what uses it twice.
    """
    return -100.0


def figures(
    logits: Float[Tensor, "M V"], forbidden: tuple[int, ...]
) -> tuple[Float[Tensor, "M F"], Int[Tensor, "M G"]]:
    """The figures of every row, in float32.

    Args:
        logits: z, at temperature 1.
        forbidden: ids that are never a candidate.

    Returns:
        confidence, log(1 - confidence), entropy, log sum exp z and the five largest log p of possible candidates, [M, 9];
        the candidate and those five, [M, 6].
    """
    if logits.is_cuda and len(forbidden) <= 2 and logits.shape[1] >= TOP:
        from models.engine.triton import figures as triton_figures

        return triton_figures.figures(logits, forbidden, TOP)
    lines = max(1, CORE // logits.shape[1]) if logits.device.type == "cpu" else max(1, len(logits))
    parts = [_figures(z.float(), forbidden) for z in torch.split(logits, lines)]
    return torch.cat([floats for floats, _ in parts]), torch.cat([ints for _, ints in parts])


def _figures(z: Float[Tensor, "m V"], forbidden: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    normaliser = z.logsumexp(-1, keepdim=True)
    allowed = z.clone()
    for one in forbidden:  # a list of them would be sent to a GPU, which waits for it
        allowed[:, one] = -torch.inf
    token = allowed.argmax(-1, keepdim=True)
    others = z.scatter(-1, token, -torch.inf)
    log_odds = z.gather(-1, token) - others.logsumexp(-1, keepdim=True)
    confidence = log_odds.sigmoid()
    top = allowed.topk(min(TOP, z.shape[1]))
    missing = (0, TOP - top.indices.shape[-1])
    entropy = torch.special.entr((others - normaliser).exp()).sum(-1, keepdim=True) - confidence * logsigmoid(log_odds)
    log_probs = pad((top.values - normaliser).clamp(min=least()), missing, value=least())
    figures = (confidence, logsigmoid(-log_odds).clamp(min=least()), entropy, normaliser, log_probs)
    return torch.cat(figures, -1), torch.cat([token, pad(top.indices, missing)], -1)
