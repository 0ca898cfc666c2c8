"""Plots: bands over seeds, levels, and labels that can be read."""

import itertools

import pytest

from lm.report import figures


def test_runs_evaluated_at_their_end_alone_are_points_and_not_levels():
    assert figures.Line("counted", [([0], [2.0])]).is_level
    assert not figures.Line("trained", [([4000], [2.0])]).is_level


def test_labels_of_lines_do_not_overlap_and_keep_their_order():
    placed = figures.spread_out([1.0, 1.001, 1.002, 2.0, 1.0005], 0.0, 2.0)
    gaps = [b - a for a, b in itertools.pairwise(placed)]
    assert placed == sorted(placed) and min(gaps) > 0.05 * 2.0


def test_the_band_covers_what_all_seeds_have(tmp_path):
    line = figures.Line("a", [([0, 10, 20], [4.0, 2.0, 1.0]), ([0, 20, 40], [6.0, 3.0, 2.0])])
    x, mean, low, high = line.band()
    assert x.tolist() == [0, 10, 20]
    assert mean.tolist() == [5.0, 3.25, 2.0]
    assert low.tolist() == [4.0, 2.0, 1.0] and high.tolist() == [6.0, 4.5, 3.0]


def test_seeds_that_end_at_different_places_alone_are_one_point():
    line = figures.Line("a", [([1000], [2.0]), ([1200], [3.0])])
    assert [v.tolist() for v in line.band()] == [[1100], [2.5], [2.0], [3.0]]


def test_a_dollar_in_a_label_is_no_formula(tmp_path):
    """`$^$` stopped matplotlib: a formula of nothing but a sign for a power."""
    label = "a$^$b|x"
    line = figures.Line(label, [([0, 10], [4.0, 2.0])])
    figures.curves([figures.Panel(label, [line], {label: 1.0})], tmp_path / "a.svg")
    figures.chart([figures.Series(label, [1, 10], [4.0, 2.0])], tmp_path / "b.svg", "x", "y")
    for name in "ab":  # what is drawn stands in a comment
        assert f"<!-- {label}" in (tmp_path / f"{name}.svg").read_text()


@pytest.mark.parametrize("kind", figures.MARKS)
def test_what_was_drawn_here_may_be_drawn_again(kind, tmp_path):
    path = tmp_path / f"chart{kind}"
    figures.charts({"a": [figures.Series("b", [1, 2], [1.0, 2.0])]}, path, ["x"], "y")
    figures.check_own(path)


@pytest.mark.parametrize("highest", [3.5, 3500.0])
def test_a_logarithmic_axis_has_numbers_where_it_shows_less_than_a_power_of_ten_too(
    highest, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(figures, "_save", lambda figure, _: drawn.append(figure))
    panels = {name: [figures.Series("a", [1, 2], [2.5, highest])] for name in ("b", "c")}
    figures.charts(panels, tmp_path / "a.svg", ["x", "x"], "y")
    drawn[0].draw_without_rendering()
    for axis in drawn[0].axes:
        low, high = axis.get_ylim()
        inside = [tick for tick in axis.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        assert axis.get_yscale() == "log"
        assert 2 <= sum(bool(tick.label1.get_text()) for tick in inside) <= 8
