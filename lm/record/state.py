"""Where a run stands, which a checkpoint holds besides weights and optimizer; and its budget."""

from dataclasses import dataclass, field

from lm.system.schemas import Int


@dataclass
class TrainState:
    """Where a run stands: everything that changes besides weights and optimizer."""

    step: Int = 0  # updates done
    tokens: Int = 0  # trained on
    seconds: float = 0.0  # of training steps, without evaluation and saving
    best_val_bpb: float = float("inf")
    best_step: Int = -1
    losses: list[float] = field(default_factory=list)  # of the steps since the last logged point
    recent: list[float] = field(default_factory=list)  # losses among which a spike stands out
    bad_in_a_row: Int = 0  # steps without a finite loss and gradient, which changed nothing
    skipped: Int = 0  # such steps in all
    rollbacks: Int = 0  # returns to a checkpoint because of too many of them
    micro_batch: Int = 0  # windows per forward pass that train.micro_batch=auto found; 0: all
    skipped_batches: Int = 0  # the batch of a step is number step + skipped_batches
    good_step: Int = -1  # newest scheduled checkpoint: where a rollback returns to


@dataclass
class Budget:
    """How long a run lasts: so many steps, or seconds of training if `seconds` is above 0."""

    steps: int
    seconds: float = 0.0

    def progress(self, state: TrainState) -> float:
        """The share of the run that is done, from 0 to 1: what schedules are a function of."""
        if self.seconds:
            return min(1.0, state.seconds / self.seconds)
        if not self.steps:
            return 1.0
        return state.step / self.steps
