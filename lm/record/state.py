"""Where a run stands, which a checkpoint holds besides weights and optimizer; and its budget."""

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from lm.config import TrainConfig

# Limits that no run reaches: a number beyond them in a stranger's file would fail in arithmetic.
Count = Annotated[int, Meta(ge=0, le=1 << 32)]
Step = Annotated[int, Meta(ge=-1, le=1 << 32)]  # -1: there was none
Seconds = Annotated[float, Meta(ge=0, le=1e12)]


@dataclass
class TrainState:
    """Where a run stands: everything that changes besides weights and optimizer."""

    step: Count = 0  # updates done
    tokens: Annotated[int, Meta(ge=0, le=1 << 62)] = 0  # trained on
    seconds: Seconds = 0.0  # of training steps, without evaluation and saving
    best_val_bpb: float = float("inf")
    best_step: Step = -1
    losses: list[float] = field(default_factory=list)  # of the steps since the last logged point
    recent: list[float] = field(default_factory=list)  # losses among which a spike stands out
    bad_in_a_row: Count = 0  # steps without a finite loss and gradient, which changed nothing
    skipped: Count = 0  # such steps in all
    rollbacks: Count = 0  # returns to a checkpoint because of too many of them
    micro_batch: Count = 0  # windows per forward pass that train.micro_batch=auto found; 0: all
    skipped_batches: Count = 0  # by rollbacks: step n trains on batch n + skipped_batches
    good_step: Step = -1  # the newest scheduled checkpoint, to which a rollback returns


@dataclass
class Budget:
    """How long a run lasts: so many steps, or train.seconds of training if that is above 0; less
    where there is a reason to end before."""

    steps: int
    cfg: TrainConfig = field(default_factory=TrainConfig)

    @property
    def seconds(self) -> float:
        """Of training: the budget if above 0, and `steps` otherwise."""
        return self.cfg.seconds

    def progress(self, state: TrainState) -> float:
        """The share of the run that is done, from 0 to 1."""
        if self.why_ended_early(state):
            return 1.0
        if self.seconds:
            return min(1.0, state.seconds / self.seconds)
        if not self.steps:
            return 1.0
        return state.step / self.steps

    def why_ended_early(self, state: TrainState) -> str:
        """What ends a run before its steps or seconds are spent, in words; "" for nothing."""
        patience = self.cfg.patience
        # In steps, since the evaluation that is due may be better.
        if 0 < patience * self.cfg.eval_every <= state.step - max(0, state.best_step):
            return f"none better in train.patience={patience} evaluations"
        return ""

    def progress_after_update(self, state: TrainState) -> float:
        """The share of the run that is done after the next update.

        Under a budget in seconds an update is taken to last as long as the mean of those before,
        and the first a thousandth of the run.
        """
        if self.seconds:
            mean = state.seconds / state.step if state.step else self.seconds / 1000
            return min(1.0, (state.seconds + mean) / self.seconds)
        return (state.step + 1) / self.steps
