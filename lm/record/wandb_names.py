"""What W&B calls the numbers of a run, and which of them it plots.

    plotted, facts = wandb_names.split({"step": 9, "val/bpb": 2.1, "epoch": 0.2})
    # {"step": 9, "bpb/val": 2.1}, {"epoch": 0.2}

W&B's pages and `wandb leet` sort panels by name and have no other order. So the names there begin
with bits per byte and losses, then rates, gradient norm and speed; the x axes and W&B's own numbers
of tables and pages come last. The files of a run keep the names they always had.
"""

import re
from collections.abc import Mapping

VERSION = 1  # in wandb.json; 0: a run of an older version, whose curves go on as they were called
NAMES = {
    "val/bpb": "bpb/val",
    "train/loss": "loss/train",
    "val/loss": "loss/val",
    "train/spike": "loss/spike",
    "val/ppl": "ppl/val",
    "seconds": "train_seconds",
    "samples": "texts",  # a table, of which leet draws the number of rows and columns
    "lens": "views/lens",  # a page, of which it draws the size
}
X_AXES = ("step", "tokens", "train_seconds")  # to choose as such, and no panels by themselves
OTHER_TEXT = re.compile(r"val_(.+)/bpb")  # of train.also
FACTS = re.compile(r"epoch|baseline/.*|corpus/.*")  # constants, and a multiple of the tokens


def name(key: str) -> str:
    """W&B's name of a metric, a table or a page."""
    if match := OTHER_TEXT.fullmatch(key):
        return f"bpb/{match[1]}"
    if key.startswith("gradients/"):  # histograms, of which there are many
        return f"weight_{key}"
    return NAMES.get(key, key)


def split(point: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """A point as W&B plots it, and what belongs into its table of runs alone."""
    facts = {key: value for key, value in point.items() if FACTS.fullmatch(key)}
    plotted = {name(key): value for key, value in point.items() if key not in facts}
    return plotted, facts
