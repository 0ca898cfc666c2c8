"""Where a run stands: what a checkpoint holds besides weights and optimizer."""

from dataclasses import dataclass, field


@dataclass
class TrainState:
    """Where a run stands: everything that changes besides weights and optimizer."""

    step: int = 0  # updates done
    tokens: int = 0  # trained on
    seconds: float = 0.0  # of training steps, evaluation and saving left out
    best_val_bpb: float = float("inf")
    best_step: int = -1
    losses: list[float] = field(default_factory=list)  # of the steps since the last logged point
    recent: list[float] = field(default_factory=list)  # losses among which a spike stands out
    bad_in_a_row: int = 0  # steps without a finite loss and gradient, which changed nothing
    skipped: int = 0  # such steps in all
    rollbacks: int = 0  # returns to a checkpoint because of too many of them
    micro_batch: int = 0  # windows per forward pass that train.micro_batch=auto found; 0: all
    skipped_batches: int = 0  # the batch of a step is number step + skipped_batches
    good_step: int = -1  # newest scheduled checkpoint: where a rollback returns to
