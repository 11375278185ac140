"""The picture of the study `block-hmm`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decoding.studies.picture import ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(result: dict[str, Any], figure: Figure) -> None:
    """Four panels: divergences by noise, remasking by rounds, policies by rounds, the wrong model by tokens a round."""
    figure.set_size_inches(13, 11.5)
    figure.suptitle("Every decoder on the Block-HMM, whose joint distribution p is known")
    axes = figure.subplots(2, 2)
    draw_divergences(result, axes[0, 0])
    draw_remasking(result, axes[0, 1])
    draw_policies(result, axes[1, 0])
    draw_sweep(result, axes[1, 1])


def draw_divergences(result: dict[str, Any], axes: Any) -> None:
    """Lines are exact, points Monte-Carlo estimates with two standard errors."""
    etas = [row["eta"] for row in result["exact"]]
    for number, (name, label, colour) in enumerate(
        (("forward_kl", "forward KL(p || q)", "C0"), ("reverse_kl", "reverse KL(q || p)", "C3"))
    ):
        axes.plot(etas, [row[name] for row in result["exact"]], color=colour, label=f"{label}, exact")
        values = [row[name] for row in result["monte_carlo"]]
        errors = [2 * one["standard_error"] for one in values]
        axes.errorbar(
            etas,
            [one["estimate"] for one in values],
            errors,
            fmt="o",
            color=colour,
            label=None if number else "Monte Carlo, 2 s.e.",
        )
    axes.set(xscale="log", xlabel="parity noise eta", ylabel="nats a sequence", ylim=(0, None))
    axes.set_title("A whole block a round, against the joint")
    share = axes.twinx()
    share.plot(etas, [row["incoherence"] for row in result["exact"]], "k:", label="incoherent blocks (right)")
    share.set(ylabel="share of blocks with p(block) <= 1e-8", ylim=(0, 1))
    handles = [axes.get_legend_handles_labels(), share.get_legend_handles_labels()]
    axes.legend(handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], fontsize=8)


def draw_remasking(result: dict[str, Any], axes: Any) -> None:
    """Reverse KL of the first block by rounds."""
    rows = result["remasking"]
    for style, rule in (("o-", "random"), ("s--", "lowest")):
        for colour, size in enumerate(sorted({row["masked"] for row in rows})):
            series = [row for row in rows if (row["rule"], row["masked"]) == (rule, size)]
            label = f"{size} {'at random' if rule == 'random' else 'least borne out'}"
            axes.plot(
                [r["rounds"] for r in series], [r["reverse_kl"] for r in series], style, color=f"C{colour}", label=label
            )
    axes.set(xlabel="rounds of remasking n", ylabel="reverse KL of the first block, nats", ylim=(0, None))
    axes.set_xscale("symlog", linthresh=1)
    ticks(axes, [row["rounds"] for row in rows], scale=None)
    axes.set_xlim(-0.1, 1.2 * max(row["rounds"] for row in rows))
    axes.set_title("Remasking does not make it vanish (exact)")
    axes.legend(title="masked again in a round", fontsize=8)


def draw_policies(result: dict[str, Any], axes: Any) -> None:
    """Sampling risk by rounds, H(p) as the floor of exact draws."""
    for number, row in enumerate(result["policies"]):
        risk = row["risk"]
        point = (row["rounds"]["estimate"], risk["estimate"])
        marker = "osD^vP*X<>hp"[number % 12]
        label = f"{row['policy']} ({100 * row['distinct']:.0f} %)"
        full = "full" if number < 10 else "none"  # a colour comes back after ten
        error = 2 * risk["standard_error"]
        axes.errorbar(*point, error, fmt=marker, color=f"C{number % 10}", fillstyle=full, label=label)
    axes.axhline(result["policies"][0]["entropy"], color="k", ls=":", label="H(p), exact draws")
    ticks(axes, [8, 16, 32, 64])
    axes.set(yscale="log", xlabel="rounds (mean)", ylabel="sampling risk E[-log p(x)], nats, 2 s.e.")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title(f"Every policy, temperature 1, eta = {result['exact'][0]['eta']:g}")
    title = "policy (different sequences among those drawn)"
    axes.legend(title=title, fontsize=8, title_fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13))


def draw_sweep(result: dict[str, Any], axes: Any) -> None:
    """Reverse KL by tokens a round, a line for each order and strength of the error."""
    rows = result["perturbed"]
    for style, strength in zip(("-", "--", ":", "-."), sorted({row["strength"] for row in rows}), strict=False):
        for colour, order in enumerate(dict.fromkeys(row["order"] for row in rows)):
            series = [row for row in rows if (row["order"], row["strength"]) == (order, strength)]
            axes.errorbar(
                [row["tokens_a_round"] for row in series],
                [row["reverse_kl"]["estimate"] for row in series],
                [2 * row["reverse_kl"]["standard_error"] for row in series],
                fmt=f"o{style}",
                color=f"C{colour}",
                label=f"{order}, error {strength:g}",
            )
    ticks(axes, [row["tokens_a_round"] for row in rows])
    axes.set(xlabel="tokens a round", ylabel="reverse KL(q || p), nats a sequence, 2 s.e.")
    axes.set_title("A wrong model: order against parallelism")
    axes.legend(fontsize=8)
