"""Views of W&B sort by name: what matters must come first there."""

from lm.record import wandb_names

KEYS = [  # of metrics.jsonl and of what else is logged, in the order in which they should come
    "val/bpb", "train/loss", "val/loss", "optim/grad_norm", "optim/lr", "optim/lr_adamw", "val/ppl",
    "speed/tokens_per_s", "step", "task/agreement", "samples", "tokens", "train/skipped", "seconds",
    "lens", "gradients/head.weight", "weights/head.weight",
]  # fmt: skip


def test_names_sort_by_what_matters():
    names = [wandb_names.name(key) for key in KEYS]
    assert names == sorted(names)
    assert sorted([*names, wandb_names.name("val_my/bpb")])[:2] == ["bpb/my", "bpb/val"]


def test_no_two_numbers_have_one_name():
    assert len({wandb_names.name(key) for key in KEYS}) == len(KEYS)


def test_what_is_no_curve_is_not_plotted_and_not_lost():
    point = {"step": 3, "val/bpb": 2.0, "epoch": 0.1, "baseline/ngram_bpb": 1.9,
             "corpus/floor_bpb": 1.5}  # fmt: skip
    plotted, facts = wandb_names.split(point)
    assert plotted == {"step": 3, "bpb/val": 2.0}
    assert facts == {key: point[key] for key in point if key not in ("step", "val/bpb")}
