"""The report's charts as Vega-Lite specifications; the page fills in fonts and colours of its theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from train.report.folder import Row
from train.report.view import TaskView

Spec = dict[str, Any]

COLOURS = ("#0072b2 #d55e00 #009e73 #cc79a7 #e69f00 #56b4e9 #8c6bb1 #7f7f7f #a6761d #66a61e #e7298a #1b9e77").split()
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "triangle-right", "triangle-left")
TIP = {"rounds": ".2f", "accuracy": ".1f", "forwards": ".2f"}
ROW, AXIS = 26, 40  # pixels of a line of a chart of pairs, and of its axis
FLAT = 1.0  # points that the axis of an accuracy shows at least
DODGE = 0.025  # of the promised share between the marks of two arms


def charts(task: TaskView, rows: Sequence[Row]) -> dict[str, Spec]:
    """Every chart of a task by name; those without data are left out.

    Args:
        task: what is shown.
        rows: of `results` on the test split, at every setting.
    """
    found = {"curves": curves_chart(task, rows)} if rows else {}
    found |= {f"pairs {rival}": pairs_chart(rival, pairs) for rival, pairs in task.pairs.items() if pairs}
    return found | ({"calibration": calibration_chart(task.calibration)} if task.calibration else {})


def curves_chart(task: TaskView, rows: Sequence[Row]) -> Spec:
    """Accuracy against rounds on a logarithmic axis, with both intervals; a click on the legend shows one arm.

    Args:
        task: what is shown.
        rows: of `results` on the test split, at every setting.
    """
    shown = {(arm.row["arm"], arm.row["dial"]) for arm in task.arms}
    values = [
        {
            "arm": row["arm"],
            "dial": "none" if row["dial"] is None else f"{row['dial']:g}",
            "shown": (row["arm"], row["dial"]) in shown,
            **_interval("rounds", row["rounds"]),
            **_interval("accuracy", row["accuracy"], scale=100.0),
            "forwards": row["sequence_forwards"]["estimate"],
        }
        for row in rows
    ]
    x, y = (
        _axis("rounds", "rounds (log scale)", log=True),
        _at_least(FLAT, _axis("accuracy", f"{task.measure}, %"), values),
    )
    tip = [{"field": "arm"}, {"field": "dial"}]
    tip += [{"field": name, "format": form, "type": "quantitative"} for name, form in TIP.items()]
    size = {"condition": {"test": "datum.shown", "value": 130}, "value": 50}
    pick = {"name": "picked", "select": {"type": "point", "fields": ["arm"]}, "bind": "legend"}
    point = _layer("point", x=x, y=y, size=size, tooltip=tip, shape=_by_arm(values, SHAPES))
    layers = [
        _layer("rule", x=x, y=_low(y), y2={"field": "accuracy_high"}),
        _layer("rule", x=_low(x), x2={"field": "rounds_high"}, y=y),
        _layer("line", x=x, y=y, order={"field": "rounds"}),
        {**point, "params": [pick]},
    ]
    dim = {"condition": {"param": "picked", "value": 1}, "value": 0.12}
    return _spec(values, 340) | {"encoding": {"color": _by_arm(values, COLOURS), "opacity": dim}, "layer": layers}


def _at_least(span: float, axis: Spec, values: Sequence[Spec]) -> Spec:
    """The axis, wide enough where all intervals lie in less than `span`."""
    name = axis["field"]
    low, high = min(one[f"{name}_low"] for one in values), max(one[f"{name}_high"] for one in values)
    if high - low >= span:
        return axis
    return axis | {"scale": {**axis.get("scale", {}), "domain": [high - span, high]}}


def pairs_chart(rival: str, rows: Sequence[Row]) -> Spec:
    """Rounds of every arm over those of one arm, with intervals, on a logarithmic axis.

    Args:
        rival: the arm that others are compared with.
        rows: of `pairs`.
    """
    values = [{"arm": row["a"], **_interval("ratio", row["rounds_ratio"])} for row in rows if row["rounds_ratio"]]
    x = _axis("ratio", f"rounds / rounds of {rival} (log scale)", log=True)
    arm = {"field": "arm", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 130}}
    tip = [{"field": "arm"}, *({"field": name, "format": ".3f"} for name in ("ratio", "ratio_low", "ratio_high"))]
    layers = [
        _line_at_one("x"),
        _layer("rule", x=_low(x), x2={"field": "ratio_high"}, y=arm),
        _layer("point", x=x, y=arm, tooltip=tip),
    ]
    return _spec(values, ROW * len(values) + AXIS) | {"layer": layers}


def calibration_chart(rows: Sequence[Row]) -> Spec:
    """The share of wrong commits over the share that the dial promises; 1 is the promise.

    Args:
        rows: of `calibration`.
    """
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    values = [
        {
            "arm": row["arm"],
            "bound": row["bound"],
            "place": row["bound"] * (1 + DODGE * (arms.index(row["arm"]) - len(arms) // 2)),
            "kept": "kept" if row["kept"] else "not kept",
            **_interval("times", row["wrong"], scale=1 / row["bound"]),
        }
        for row in rows
    ]
    x = _axis("place", "promised share of wrong commits (log scale)", log=True)
    y = _axis("times", "measured / promised")
    tip = [{"field": "arm"}, {"field": "bound"}, {"field": "times", "format": ".2f"}, {"field": "kept"}]
    looks = {"color": _by_arm(values, COLOURS)}
    layers = [
        _line_at_one("y"),
        _layer("rule", x=x, y=_low(y), y2={"field": "times_high"}, **looks),
        _layer("point", x=x, y=y, tooltip=tip, shape=_by_arm(values, SHAPES), **looks),
    ]
    return _spec(values, 240) | {"layer": layers}


def _spec(values: list[Row], height: int) -> Spec:
    fit = {"type": "fit", "contains": "padding"}
    return {"width": "container", "height": height, "autosize": fit, "data": {"values": values}}


MARKS: dict[str, Spec] = {
    "rule": {"strokeWidth": 1.5, "strokeOpacity": 0.6},
    "line": {"strokeWidth": 2},
    "point": {"filled": True, "opacity": 1, "size": 70},
}


def _layer(mark: str, **channels: Any) -> Spec:
    return {"mark": {"type": mark, **MARKS[mark]}, "encoding": channels}


def _line_at_one(channel: str) -> Spec:
    at = {channel: {"field": "one", "type": "quantitative"}}
    return {"data": {"values": [{"one": 1}]}, "mark": {"type": "rule", "strokeDash": [4, 4]}, "encoding": at}


def _interval(name: str, found: Row, *, scale: float = 1.0) -> Row:
    ends = {f"{name}_low": scale * found["low"], f"{name}_high": scale * found["high"]}
    return {name: scale * found["estimate"], **ends}


def _axis(field: str, title: str, *, log: bool = False) -> Spec:
    scale = {"type": "log", "nice": False, "padding": 12} if log else {"zero": False, "padding": 8}
    axis = {"format": "~g", "labelOverlap": "greedy", "labelSeparation": 6} if log else {}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def _low(channel: Spec) -> Spec:
    return {**channel, "field": f"{channel['field']}_low"}


def _by_arm(values: Sequence[Row], looks: Sequence[str]) -> Spec:
    """A channel that tells the arms apart, in their order."""
    arms = list(dict.fromkeys(row["arm"] for row in values))
    scale = {"domain": arms, "range": [looks[i % len(looks)] for i in range(len(arms))]}
    return {"field": "arm", "type": "nominal", "scale": scale, "legend": {"orient": "bottom", "title": None}}
