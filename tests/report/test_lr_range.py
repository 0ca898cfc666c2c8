"""The range test finds the rate at which made-up losses fall fastest."""

import json
import math
import re

import numpy as np
import pytest

from lm.report import lr_range, page, records
from lm.settings.commands import ReportConfig
from tests.browser import needs_browser
from tests.helpers import TINY_TRANSFORMER


@pytest.mark.parametrize("steepest", [-2.5, -1.0])
def test_the_suggested_rate_is_where_the_loss_falls_fastest(steepest):
    place = np.linspace(-4, 0, 150)
    noise = np.random.default_rng(0).normal(0, 0.05, 150)
    losses = 4 - 2 * np.tanh((place - steepest) / 0.4) + noise
    assert np.log10(lr_range.suggested(10**place, losses)) == pytest.approx(steepest, abs=0.15)


def range_test(path, steepest=-2.0, n=121, last=1.0):
    """Rows of a run whose rate rises from last/1e4 to `last`."""
    rates = [last * 10 ** (-4 * (1 - i / (n - 1))) for i in range(n)]
    losses = [4 - 2 * math.tanh((math.log10(rate / last) - steepest) / 0.4) for rate in rates]
    rows = [
        {"step": i, "tokens": i, "seconds": 1.0 * i, "optim/lr": rate, "train/loss": loss}
        for i, (rate, loss) in enumerate(zip(rates, losses, strict=True))
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_one_run_says_which_rate_to_set_though_its_model_scales_the_rates(fake_run):
    path = fake_run("outputs/runs/d/a", "schedule=range", "optimizer.lr=3.0")
    range_test(path, last=1.0)  # a third of optimizer.lr
    assert lr_range.conclusion(records.read(path)).startswith("optimizer.lr=3.0e-02 is suggested")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"steepest": 1.0}, "raise optimizer.lr, such as to"),
        ({"n": 9}, "raise train.steps or set train.log_every=1"),
        ({"n": 2}, "logged losses|too short"),
    ],
)
def test_a_range_test_that_cannot_be_read_says_what_to_change(how, told, fake_run):
    path = fake_run("outputs/runs/d/a", "schedule=range", "optimizer.lr=1.0")
    range_test(path, **how)
    assert re.search(told, lr_range.conclusion(records.read(path)))
    (path / "metrics.jsonl").write_text("")
    assert "raise train.steps" in lr_range.conclusion(records.read(path))


def test_a_range_test_ends_with_its_suggestion(trained, capsys, caplog):
    caplog.set_level("INFO")
    words = ["schedule=range", "optimizer.lr=1", "train.steps=60", "train.log_every=1"]
    path = trained(*TINY_TRANSFORMER, *words)
    told = caplog.text
    assert "is suggested" in told or "falls fastest" in told
    assert f"python -m lm.report {path} draws the loss" in told and "lm.sample" not in told


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_report_of_a_range_test_draws_loss_against_rate(
    width, dark, browsers, fake_run, tmp_path, capsys
):
    range_test(fake_run("outputs/runs/d/a", "schedule=range", "optimizer.lr=1.0"))
    fake_run("outputs/runs/d/b")
    page.write(ReportConfig(out=str(tmp_path / "page.html")), [tmp_path / "outputs"])
    assert "optimizer.lr=1.0e-02 is suggested" in capsys.readouterr().out
    assert (tmp_path / "page-range.png").exists() and (tmp_path / "page-curves.svg").exists()
    with browsers(width=width, dark=dark) as browser:
        browser.open(tmp_path / "page.html")
        assert "1.0e-2" in browser.text("#tests") and "is suggested" in browser.text("#tests")
        overflow = "const e = document.documentElement; return e.scrollWidth - e.clientWidth"
        assert browser.script(overflow) <= 0
        assert browser.errors() == []


def test_a_range_too_short_to_read_says_so():
    with pytest.raises(ValueError, match=r"lower schedule\.first"):
        lr_range.suggested(np.geomspace(0.5, 1, 20), np.ones(20))
