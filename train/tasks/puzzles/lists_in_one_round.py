"""How often one round can answer a `lists` prompt that has many valid answers.

All tokens are committed at once from the exact marginals of the uniform distribution over the valid answers: each
position draws its token from its marginal, independently of the others, or takes a most probable one. n is the number
of distinct items of the prompt; an item X to be written is not among them. Edits are `copy`, `reverse`, `sort` and any
edit at an index (here `at`), which have one valid answer, and `shuffle`, `insert`, `remove`, `replace` at any place.
"""

from math import factorial

from models.complaints import shown

SURE = ("copy", "reverse", "sort", "at")
OPEN = ("shuffle", "insert", "remove", "replace")


def sampled_limit(edit: str, n: int) -> float:
    r"""Probability that tokens drawn independently from their marginals form a valid answer.

    - one valid answer: 1.
    - shuffle: all marginals are uniform, $n! / n^n$.
    - insert: position i holds X with 1/(n+1), item i (X comes later) with (n-i)/(n+1), item i-1 with i/(n+1); X at j
      alone has probability $\frac{n!}{(n-j)!} \frac{n!}{j!} / (n+1)^{n+1}$, in sum $n! \, 2^n / (n+1)^{n+1}$.
    - remove: position i holds item i with (n-1-i)/n and item i+1 with (i+1)/n; leaving out item j has probability
      $\frac{(n-1)!}{(n-1-j)!} \frac{(n-1)!}{j!} / n^{n-1}$, in sum $(n-1)! \, 2^{n-1} / n^{n-1}$.
    - replace: X exactly once, $n \frac1n (1 - \frac1n)^{n-1} = (1 - \frac1n)^{n-1}$.

    Args:
        edit: one of the edits named above.
        n: number of items, at least 3.

    Returns:
        The accuracy that a one-round decoder sampling from exact marginals cannot pass.
    """
    _require(edit, n)
    limits: dict[str, float] = {
        "shuffle": factorial(n) / n**n,
        "insert": factorial(n) * 2**n / (n + 1) ** (n + 1),
        "remove": factorial(n - 1) * 2 ** (n - 1) / n ** (n - 1),
        "replace": (1 - 1 / n) ** (n - 1),
    }
    return limits.get(edit, 1.0)


def argmax_limit(edit: str, n: int) -> float:
    r"""Whether the most probable token of every position, ties to the earlier item, forms a valid answer.

    - one valid answer: 1.
    - shuffle: every position takes the same item, 0.
    - insert, replace: X has 1/(n+1) or 1/n and some item has more, so X is never written, 0.
    - remove: item i wins while n-1-i > i+1, item i+1 after that, which leaves out the middle item, 1.

    Args:
        edit: one of the edits named above.
        n: number of items, at least 3.

    Returns:
        1.0 or 0.0.
    """
    _require(edit, n)
    return float(edit in SURE or edit == "remove")


def _require(edit: str, n: int) -> None:
    if edit not in SURE + OPEN:
        raise ValueError(f"edit must be one of {', '.join(SURE + OPEN)}, got {shown(edit)}")
    if n < 3:
        raise ValueError(f"n must be at least 3, got {n}")
