"""Whose lines the terminal shows: while an arm of a sweep is in work, what the sweep says of it,
and of the arm's own log only what went wrong.

with terminal.shown_of_arm(Arm("arm 5 of 8", "gru lr=0.003", "outputs/s/4")): ...
terminal.arm_in_work()     # None outside; inside also in the processes that the arm starts
"""

import contextlib
import os
from collections.abc import Iterator

import msgspec

ARM = "LM_ARM"  # in the environment, as an arm may have processes of its own


class Arm(msgspec.Struct, frozen=True):
    """The arm of a sweep that is in work in this process, or for which this process works."""

    name: str  # arm 5 of 8
    label: str  # the settings that set it apart; may be empty
    folder: str  # where its whole logs are
    has_bar: bool = False  # a live bar may be drawn: no other arm is in work on this terminal

    @property
    def title(self) -> str:
        return f"{self.name}  {self.label}".rstrip()


@contextlib.contextmanager
def shown_of_arm(arm: Arm) -> Iterator[None]:
    """The terminal is the sweep's, and `arm` is in work, inside."""
    before = os.environ.get(ARM)
    os.environ[ARM] = msgspec.json.encode(arm).decode()
    try:
        yield
    finally:
        del os.environ[ARM]
        if before is not None:
            os.environ[ARM] = before


def arm_in_work() -> Arm | None:
    text = os.environ.get(ARM)
    return msgspec.json.decode(text, type=Arm) if text else None
