"""The advice where training comes apart names the setting that did it."""

import pytest

from lm.optim.advice import steadier


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "lower optimizer.lr, or raise schedule.warmup"),
        ({"optimizer.eps": 1e-8, "optimizer.beta1": 0.9, "optimizer.beta2": 0.95}, "lower optim"),
        ({"optimizer.eps": 1e-20}, "raise optimizer.eps=1e-20: 1e-8 is usual"),
        ({"optimizer.eps": 0}, "raise optimizer.eps=0"),  # of a run of an older version
        ({"optimizer.beta1": 0.9, "optimizer.beta2": 0.0}, "raise optimizer.beta2=0, which is far"),
        ({"train.clip": 0.0}, "lower optimizer.lr, or raise schedule.warmup, or set train.clip=1"),
        ({"optimizer.eps": None, "optimizer.beta2": "x"}, "lower optimizer.lr"),
    ],
)
def test_the_rate_is_blamed_unless_another_setting_is_far_from_usual(settings, text):
    assert steadier(settings).startswith(text)
