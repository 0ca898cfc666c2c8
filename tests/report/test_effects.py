"""The settings of a grid are compared where all else is equal."""

from pathlib import Path

from lm.report import effects, folding, records


def test_a_grid_s_settings_are_compared_where_all_else_is_equal(fake_run):
    """Arms that are missing must not count: the better norm lacks the better activation, and by
    the mean of all runs it was the worse one."""
    scores = {("rmsnorm", "gelu"): 2.0, ("rmsnorm", "relu2"): 1.0, ("layernorm", "gelu"): 1.9}
    for i, ((norm, activation), score) in enumerate(scores.items()):
        for seed in (0, 1):
            words = [f"model.norm={norm}", f"model.activation={activation}", f"seed={seed}"]
            fake_run(f"outputs/sweeps/d/s/{2 * i + seed}", *words, scores=(8.0, score + seed / 100))
    runs = records.find([Path("outputs")])
    table = effects.table(folding.fold_seeds(runs)).splitlines()
    assert table[2:4] == [
        "| model.norm | layernorm | 1.9050 | 2 |  |  |  |",
        "| model.norm | rmsnorm | 2.0050 | 2 | +0.1000 +- 0.0000 | +0.1000 | +0.1000 |",
    ]
    gelu = "| model.activation | gelu | 2.0050 | 2 | +1.0000 +- 0.0000 | +1.0000 | +1.0000 |"
    assert table[5] == gelu
    assert (
        effects.table(folding.fold_seeds(runs[:4])) == ""
    )  # one setting alone has its table already
