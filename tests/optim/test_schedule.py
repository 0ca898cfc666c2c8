"""Schedules: shares of the base rate at shares of the run."""

import itertools

import pytest

from lm.config import (
    ConstantConfig,
    CosineConfig,
    RangeConfig,
    TrainConfig,
    WSDConfig,
    options,
)
from lm.optim.schedule import set_rates, update_scale
from lm.record.state import Budget, TrainState

TRAINING = [name for name in options("schedule") if name != "range"]


@pytest.mark.parametrize("name", TRAINING)
def test_every_schedule_rises_from_0_and_stays_between_0_and_1(name):
    cfg = options("schedule")[name]()
    scales = [cfg.build(i / 1000) for i in range(1001)]
    assert scales[0] == 0.0 and max(scales) == pytest.approx(1.0, abs=1e-5)
    assert all(0.0 <= scale <= 1.0 for scale in scales)


@pytest.mark.parametrize("name", TRAINING)
def test_no_schedule_jumps(name):
    cfg = options("schedule")[name](warmup=0.1)
    scales = [cfg.build(i / 1000) for i in range(1001)]
    assert max(abs(a - b) for a, b in itertools.pairwise(scales)) <= 0.0101


def test_constant_stays_after_warmup():
    cfg = ConstantConfig(warmup=0.2)
    assert [cfg.build(p) for p in (0.0, 0.1, 0.2, 1.0)] == [0.0, 0.5, 1.0, 1.0]


def test_cosine_is_halfway_in_the_middle_and_final_at_the_end():
    cfg = CosineConfig(warmup=0.2, final=0.1)
    assert cfg.build(0.2) == pytest.approx(1.0)
    assert cfg.build(0.6) == pytest.approx(0.55)
    assert cfg.build(1.0) == pytest.approx(0.1)


def test_wsd_is_stable_then_falls_on_a_line():
    cfg = WSDConfig(warmup=0.1, decay=0.4, final=0.2)
    assert [cfg.build(p) for p in (0.1, 0.3, 0.6)] == pytest.approx([1.0, 1.0, 1.0])
    assert cfg.build(0.8) == pytest.approx(0.6)
    assert cfg.build(1.0) == pytest.approx(0.2)


def test_shares_of_0_and_1_are_allowed():
    assert ConstantConfig(warmup=0.0).build(0.0) == 1.0
    assert CosineConfig(warmup=1.0).build(0.5) == 0.5
    assert CosineConfig(warmup=1.0).build(1.0) == 1.0
    assert CosineConfig(warmup=0.0).build(0.0) == 1.0
    assert WSDConfig(warmup=0.0, decay=0.0).build(1.0) == 1.0
    assert WSDConfig(warmup=0.0, decay=1.0).build(0.25) == 0.75


def test_a_run_that_ends_late_stays_at_its_final_rate():
    """A budget in seconds is overshot by a part of a step."""
    assert CosineConfig(final=0.1).build(1.01) == pytest.approx(0.1)
    assert WSDConfig(final=0.2).build(1.01) == pytest.approx(0.2)


def test_a_range_test_rises_by_equal_factors():
    cfg = RangeConfig(first=1e-4)
    scales = [cfg.build(i / 8) for i in range(9)]
    assert [b / a for a, b in itertools.pairwise(scales)] == pytest.approx([10**0.5] * 8)
    assert scales[0] == pytest.approx(1e-4) and scales[-1] == 1.0


def scales(cfg, budget: Budget) -> list[float]:
    """Those of every update of a run; updates last a second."""
    found = []
    state = TrainState()
    while budget.progress(state) < 1:
        after = budget.progress_after_update(state)
        found.append(update_scale(cfg, budget.progress(state), after))
        state.step += 1
        state.seconds += 1.0
    return found


TIMED = Budget(9, TrainConfig(seconds=50.0))


@pytest.mark.parametrize("budget", [Budget(1), Budget(2), Budget(7), Budget(300), TIMED])
@pytest.mark.parametrize("warmup", [0.0, 0.001, 0.1, 0.7])
@pytest.mark.parametrize("name", TRAINING)
def test_the_first_update_moves_and_the_last_has_the_final_rate(name, warmup, budget):
    """The first update of a warm-up had a rate of 0, so that one of one step trained nothing."""
    cfg = options("schedule")[name](warmup=warmup)
    found = scales(cfg, budget)
    assert found[0] > 0
    last = getattr(cfg, "final", 1.0)
    assert found[-1] == pytest.approx(last) or (len(found) == 1 and last == 0)


def test_a_warm_up_of_ten_updates_rises_by_tenths():
    found = scales(ConstantConfig(warmup=0.1), Budget(100))
    assert found[:11] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])


def test_the_only_update_of_a_run_that_ends_at_0_has_the_rate_of_its_middle():
    assert update_scale(CosineConfig(warmup=0.0, final=0.0), 0.0, 1.0) == pytest.approx(0.5)


class Groups:
    """As much of an optimizer as a schedule sees; torch's take seconds to be imported."""

    def __init__(self, *base_lrs: float):
        self.param_groups = [{"base_lr": base_lr, "lr": 9.0} for base_lr in base_lrs]


class Other(Groups):
    pass


def test_every_group_gets_its_share_of_its_own_base_and_each_optimizer_is_named():
    optimizers = [Groups(0.5, 0.25), Other(0.125), Groups(2.0)]
    rates = set_rates(optimizers, 0.5)
    assert [[g["lr"] for g in o.param_groups] for o in optimizers] == [[0.25, 0.125], [0.0625], [1]]
    assert rates == {"optim/lr": 0.25, "optim/lr_other": 0.0625, "optim/lr_groups": 1.0}
