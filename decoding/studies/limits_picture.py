"""The picture of the study `limits`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOOR = 1e-4  # losses below are drawn there


def draw_all(result: dict[str, Any], figure: Figure) -> None:
    """Three models' rounds and the rules of a head above; verification, Assumption 4.2, orders and incoherence below."""
    figure.set_size_inches(20, 9.5)
    axes = figure.subplots(2, 4)
    for number, found in enumerate(result["fewest"]):
        draw_rounds(found, axes[0, number], legend=number == 0)
    draw_verification(result["verification"], axes[1, 0])
    draw_assumption(result["assumption"], axes[1, 1])
    draw_orders(result["orders"], axes[1, 2])
    draw_together(result["together"], axes[0, 3], "reverse_kl", "reverse KL(q || p), nats")
    draw_together(result["together"], axes[1, 3], "incoherence", "share of blocks with broken parity")


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
            label = f"{row['order']}, {'after an error' if spoilt else 'no error before'}"
            if mine:
                axes.plot(*zip(*mine, strict=True), style, marker="o", color=f"C{number}", label=label)
    axes.set(xlabel="entropy of the position when committed, nats", ylabel="share of wrong tokens", ylim=(-0.02, 1.02))
    axes.set_title(f"Error against entropy on {rows[0]['task']} (Assumption 4.2)")
    axes.legend(fontsize=8, title="order", title_fontsize=8)


def draw_orders(found: dict[str, Any], axes: Any) -> None:
    """-log p of each answer in every order."""
    for number, name in enumerate(found["names"]):
        values = [row[number] for row in found["nll"]]
        axes.plot(range(1, len(values) + 1), values, ls="", marker="osD^vP*X"[number % 8], label=name)
    axes.set(xlabel="answer", ylabel="-log p(x) by the chain, nats", ylim=(0, None))
    axes.set_title(f"One answer, several orders: {found['task']}")
    axes.legend(fontsize=8)
