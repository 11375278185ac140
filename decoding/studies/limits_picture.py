"""The picture of the study `limits`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    figure.set_size_inches(25, 9.5)
    axes = figure.subplots(2, 5)
    for number, found in enumerate(result["fewest"]):
        draw_rounds(found, axes[0, number], legend=number == 0)
    draw_verification(result["verification"], axes[0, 3])
    draw_assumption(result["assumption"][:2], axes[1, 0])
    draw_assumption(result["assumption"][2:], axes[1, 1])
    draw_orders(result["orders"], axes[1, 2])
    draw_coherence(result["coherence"], axes[1, 3])
    draw_together(result["together"], axes[0, 4], "reverse_kl", "reverse KL(q || p), nats")
    draw_together(result["together"], axes[1, 4], "incoherence", "share of blocks with broken parity")


def draw_rounds(found: dict[str, Any], axes: Any, *, legend: bool) -> None:
    """KL by rounds: the best fixed schedules, the policies' dials, the bound."""
    rounds = range(1, len(found["kl"]) + 1)
    axes.plot(rounds, [max(FLOOR, loss) for loss in found["kl"]], "k-o", label="best fixed schedule (exact search)")
    for number, name in enumerate(dict.fromkeys(row["policy"] for row in found["policies"])):
        mine = sorted(
            (row["rounds"], max(FLOOR, row["forward_kl"])) for row in found["policies"] if row["policy"] == name
        )
        axes.plot(*zip(*mine, strict=True), ls=":", marker="sD^vP"[number], color=f"C{number}", label=name)
    axes.axvline(found["bound"], color="grey", ls="--", label="H(p) / log(n + 1), factor rule")
    axes.set(yscale="log", ylim=(FLOOR / 2, 3000), xlabel="rounds (mean)", title=found["model"])
    axes.set_ylabel(f"forward KL(p || q), nats (at most {FLOOR:g}: drawn there)")
    if legend:
        axes.legend(fontsize=8, loc="upper right")


def draw_together(found: dict[str, Any], axes: Any, figure: str, label: str) -> None:
    """A figure of every rule by the rounds that it takes, a point a bound."""
    for number, name in enumerate(dict.fromkeys(row["policy"] for row in found["rows"])):
        mine = sorted((row["rounds"], row[figure]) for row in found["rows"] if row["policy"] == name)
        axes.plot(*zip(*mine, strict=True), ls=":", marker="osD^v"[number], color=f"C{number}", label=name)
    axes.set(xlabel="rounds (mean under q)", ylabel=label, ylim=(0, None))
    axes.set_title(f"Risk and conflict: Block-HMM, {found['blocks']} x {found['size']} bits, exact")
    axes.legend(fontsize=8)


def draw_verification(found: dict[str, Any], axes: Any) -> None:
    """Reverse KL by proposals of every way of verifying less."""
    for number, rule in enumerate(dict.fromkeys(row["rule"] for row in found["rows"])):
        mine = sorted((row["proposals"], max(FLOOR, row["reverse_kl"])) for row in found["rows"] if row["rule"] == rule)
        axes.plot(*zip(*mine, strict=True), marker="osD"[number], label=rule)
    axes.axvline(found["exp_tc"], color="grey", ls="--", label="exp(TC)")
    axes.set(xscale="log", yscale="log", xlabel="proposals a block (mean)", ylabel="reverse KL(q || p), nats")
    axes.set_title("Verifying less: first block, eta = 1e-8")
    axes.legend(fontsize=8)


def draw_assumption(rows: list[dict[str, Any]], axes: Any) -> None:
    """Share of wrong commits by entropy, histories without and with an earlier error apart."""
    for number, row in enumerate(rows):
        for spoilt, style in ((False, "-"), (True, "--")):
            mine = [(one["entropy"], one["error"]) for one in row["bins"] if one["spoilt"] == spoilt]
            label = f"{row['model']}, {row['order']}, {'after an error' if spoilt else 'no error before'}"
            if mine:
                axes.plot(*zip(*mine, strict=True), style, marker="o", color=f"C{number}", label=label)
    axes.set(xlabel="entropy of the position when committed, nats", ylabel="share of wrong tokens", ylim=(-0.02, 1.02))
    axes.set_title(f"Error against entropy on {rows[0]['task']} (Assumption 4.2)")
    axes.legend(fontsize=7, title="model, order", title_fontsize=8)


def draw_orders(found: dict[str, Any], axes: Any) -> None:
    """-log p of each answer in every order."""
    for number, name in enumerate(found["names"]):
        values = [row[number] for row in found["nll"]]
        axes.plot(range(1, len(values) + 1), values, ls="", marker="osD^vP*X"[number % 8], label=name)
    axes.set(xlabel="answer", ylabel="-log p(x) by the chain, nats", ylim=(0, None))
    axes.set_title(f"One answer, several orders: {found['task']}")
    axes.legend(fontsize=8)


def draw_coherence(found: dict[str, Any], axes: Any) -> None:
    """Accuracy and both cosines by tokens a round."""
    rows = found["rows"]
    for number, (name, label) in enumerate(LABELS.items()):
        mine = [(row["tokens"], row[name]) for row in rows if row[name] is not None]
        middle = [value["estimate"] for _, value in mine]
        bars = [[v["estimate"] - v["low"] for _, v in mine], [v["high"] - v["estimate"] for _, v in mine]]
        axes.errorbar([x for x, _ in mine], middle, yerr=bars, marker="osD^"[number], capsize=2, label=label)
    axes.set(xscale="log", xlabel="tokens a round", ylabel="accuracy; cosine of mean hidden states", ylim=(-0.6, 1.05))
    axes.set_title(f"Semantic coherence by hidden states: {found['task']}")
    axes.legend(fontsize=8)
