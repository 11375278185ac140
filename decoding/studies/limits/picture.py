"""The picture of the study `limits`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decoding.studies.picture import head, ticks, whiskers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "accuracy": "accuracy",
    "same": "cosine with the answer decoded one token a round",
    "neighbours": "cosine of neighbouring sentences",
    "neighbours_wrong": "the same, wrong answers alone",
}
FLOOR = 1e-4  # losses below are drawn there


def draw_all(result: dict[str, Any], figure: Figure) -> None:
    """Rounds, verification and a head's rules above; Assumption 4.2 on two tasks, orders, coherence and incoherence below."""
    figure.set_size_inches(25, 11)
    head(figure, "Where the papers stop; bits and blocks are exact models", result["models"])
    axes = figure.subplots(2, 5)
    for fewest, panel in zip(result["fewest"], axes[0], strict=False):
        draw_rounds(fewest, panel)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=7, title="the first three above"
    )
    draw_verification(result["verification"], axes[0, 3])
    draw_assumption(result["assumption"][:2], axes[1, 0])
    draw_assumption(result["assumption"][2:], axes[1, 1])
    draw_orders(result["orders"], axes[1, 2])
    draw_coherence(result["coherence"], axes[1, 3])
    draw_conflicts(result["together"], axes[0, 4], "reverse_kl", "reverse KL(q || p), nats")
    draw_conflicts(result["together"], axes[1, 4], "incoherence", "share of blocks with broken parity")


def draw_rounds(result: dict[str, Any], axes: Any) -> None:
    """KL by rounds: the best fixed schedules, the policies' dials, the bound."""
    rounds = range(1, len(result["kl"]) + 1)
    axes.plot(rounds, [max(FLOOR, loss) for loss in result["kl"]], "k-o", label="best fixed schedule (exact search)")
    for number, name in enumerate(dict.fromkeys(row["policy"] for row in result["policies"])):
        series = sorted(
            (row["rounds"], max(FLOOR, row["forward_kl"])) for row in result["policies"] if row["policy"] == name
        )
        axes.plot(*zip(*series, strict=True), ls=":", marker="sD^vP"[number], color=f"C{number}", label=name)
    axes.axvline(result["bound"], color="grey", ls="--", label="H(p) / log(n + 1), factor rule")
    axes.set(yscale="log", ylim=(FLOOR / 2, None), xlabel="rounds (mean)", title=result["model"])
    axes.set_ylabel(f"forward KL(p || q), nats (floor {FLOOR:g})")


def draw_conflicts(result: dict[str, Any], axes: Any, figure: str, label: str) -> None:
    """A figure of every rule by the rounds that it takes, a point a bound.

    Args:
        result: of `measure_conflicts`.
        axes: where to draw.
        figure: the column drawn.
        label: of the axis.
    """
    for number, name in enumerate(dict.fromkeys(row["policy"] for row in result["rows"])):
        series = sorted((row["rounds"], row[figure]) for row in result["rows"] if row["policy"] == name)
        axes.plot(*zip(*series, strict=True), ls=":", marker="osD^v"[number], color=f"C{number}", label=name)
    axes.set(xlabel="rounds (mean under q)", ylabel=label, ylim=(0, None))
    axes.set_title(f"Risk and conflict: Block-HMM, {result['blocks']} x {result['size']} bits, exact")
    axes.legend(fontsize=8)


def draw_verification(result: dict[str, Any], axes: Any) -> None:
    """Reverse KL by proposals of every way of verifying less."""
    for number, rule in enumerate(dict.fromkeys(row["rule"] for row in result["rows"])):
        series = sorted(
            (row["proposals"], max(FLOOR, row["reverse_kl"])) for row in result["rows"] if row["rule"] == rule
        )
        axes.plot(*zip(*series, strict=True), marker="osD"[number], label=rule)
    axes.axvline(result["exp_tc"], color="grey", ls="--", label="exp(TC)")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="proposals a block (mean)",
        ylabel=f"reverse KL(q || p), nats (floor {FLOOR:g})",
    )
    axes.set_title("Verifying less: first block, eta = 1e-8")
    axes.legend(fontsize=8)


def draw_assumption(rows: list[dict[str, Any]], axes: Any) -> None:
    """Share of wrong commits by entropy, histories without and with an earlier error apart."""
    for number, row in enumerate(rows):
        for spoilt, style in ((False, "-"), (True, "--")):
            series = [(max(FLOOR, one["entropy"]), one["error"]) for one in row["bins"] if one["spoilt"] == spoilt]
            label = f"{row['model']}, {row['order']}, {'after an error' if spoilt else 'no error before'}"
            if series:
                axes.plot(*zip(*series, strict=True), style, marker="o", color=f"C{number}", label=label)
    axes.set(xlabel=f"entropy when committed, nats (floor {FLOOR:g})")
    axes.set(ylabel="share of wrong tokens", ylim=(-0.02, 1.02))
    axes.set(xscale="log", xlim=(FLOOR / 2, None))
    axes.set_title(f"Assumption 4.2 on {rows[0]['task']} (n = {rows[0]['prompts']})")
    axes.legend(fontsize=7, title="model, order", title_fontsize=8)


def draw_orders(result: dict[str, Any], axes: Any) -> None:
    """-log p of each answer in every order."""
    for number, name in enumerate(result["names"]):
        values = [row[number] for row in sorted(result["nll"])]
        axes.plot(range(1, len(values) + 1), values, ls="", marker="osD^vP*X"[number % 8], label=name)
    axes.set(xlabel="answer, by its first order", ylabel="-log p(x) by the chain, nats", ylim=(0, None))
    axes.set_title(f"One answer, several orders: {result['task']} (n = {len(result['nll'])})")
    axes.legend(fontsize=8)


def draw_coherence(result: dict[str, Any], axes: Any) -> None:
    """Accuracy and both cosines by tokens a round."""
    rows = result["rows"]
    for number, (name, label) in enumerate(LABELS.items()):
        series = [(row["tokens"], row[name]) for row in rows if row[name] is not None]
        x, values = [one for one, _ in series], [value for _, value in series]
        middle = [one["estimate"] for one in values]
        axes.errorbar(x, middle, yerr=whiskers(values), marker="osD^"[number], capsize=2, label=label)
    ticks(axes, [row["tokens"] for row in rows])
    axes.set(xlabel="tokens a round", ylabel="accuracy; cosine of mean hidden states (95 %)", ylim=(-0.6, 1.05))
    axes.set_title(f"Coherence by hidden states: {result['task']} (n = {rows[0]['n']})")
    axes.legend(fontsize=8)
