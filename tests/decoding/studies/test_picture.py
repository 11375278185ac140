"""What the pictures share."""

from matplotlib.figure import Figure

from decoding.studies.picture import ticks, whiskers


def test_an_interval_that_rounding_has_moved_beside_its_estimate_can_be_drawn():
    rows = [{"estimate": 0.5, "low": 0.25, "high": 1.0}, {"estimate": 1.0 - 1e-16, "low": 1.0, "high": 1.0}]
    assert whiskers(rows) == [[0.25, 0.0], [0.5, 1.1102230246251565e-16]]
    Figure().subplots().errorbar([0, 1], [row["estimate"] for row in rows], yerr=whiskers(rows))


def test_ticks_are_the_values_alone_as_plain_numbers():
    axes = Figure().subplots()
    ticks(axes, [8, 1, 8])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "8"]
    assert axes.get_xscale() == "log"
