"""Two threads between a run and W&B, so that training waits for neither client nor server.

    sender = Sender(lambda: wandb.init(...), wandb_client.kill)
    sender.send(lambda run: run.log(point))                           # comes back at once
    sender.send_slowly("the artifacts", lambda run: run.log_artifact(artifact))
    complete = sender.end(exit_code=0, timeout=60)                    # waits for what is left

What `send` is given only hands something to W&B's client, which writes it into its file. What
`send_slowly` is given may ask the server, for half a minute if that does not answer. The first
failure of `send` is logged and ends the sending; that of `send_slowly` is logged.
"""

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lm.record import wandb_client
from lm.system import failpoint

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)
# Seconds after which a thread that waits for Python's lock gets it. A step of training lets go of
# it a hundred times: at the usual 0.005 each time may cost as much while W&B's client computes.
SWITCH_INTERVAL = 0.0002
Action = Callable[["wandb.Run"], object]


class Sender:
    """Opens a W&B run in a thread of its own, and gives it what is to be sent, in order."""

    def __init__(
        self, open_run: Callable[[], "wandb.Run"], stop_asking: Callable[[], object]
    ) -> None:
        """`stop_asking` makes open_run give up a server that does not answer."""
        self.run: wandb.Run | None = None  # None: not open yet, or never
        self.has_failed = False
        self._has_ended = False
        self._stop_asking = stop_asking
        self._is_open = threading.Event()  # or will never be
        self._slow_fault = ""  # the first one, as it is told
        self._is_ending = False  # what fails now is told in one line at the end
        self._is_late = False  # what is slow has no more time
        self._usual_interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._lane = _Lane("W&B: points")
        self._slow_lane = _Lane("W&B: tables and artifacts")
        self._lane.add(lambda: self._open(open_run))

    @property
    def is_off(self) -> bool:
        """Whether nothing more is sent."""
        return self.has_failed or self._has_ended

    def _open(self, open_run: Callable[[], "wandb.Run"]) -> None:
        try:
            self.run = open_run()
        except Exception as error:  # a broken installation, a full disk: training goes on
            self.give_up(error)
        finally:
            self._is_open.set()

    # ------------------------------------------------------------------------------- sending

    def send(self, action: Action) -> None:
        """Call action(run) later, in the order of the calls."""
        if not self.is_off:
            self._lane.add(lambda: self._attempt(action))

    def send_slowly(self, what: str, action: Action) -> None:
        """Call action(run) later, maybe long after what was given to `send`."""
        if not self.is_off:
            self._slow_lane.add(lambda: self._attempt_slowly(what, action))

    def n_waiting(self) -> int:
        """About how many actions `send` has still to call."""
        return self._lane.n_waiting()

    def _attempt(self, action: Action) -> None:
        if self.run is None or self.is_off:
            return
        try:
            _call(action, self.run)
        except Exception as error:  # the client raises a dozen unrelated classes
            self.give_up(error)

    def _attempt_slowly(self, what: str, action: Action) -> None:
        self._is_open.wait()
        if self.run is None or self.is_off or self._is_late:
            return
        try:
            _call(action, self.run)
        except Exception as error:
            if self._slow_fault or self._is_late:
                return
            text = wandb_client.in_one_line(error)
            self._slow_fault = f"W&B did not take {what}: {text}; the run's own files have all"
            if not self._is_ending:
                log.warning(self._slow_fault)

    def give_up(self, error: Exception) -> None:
        """Log what went wrong, once, and send nothing more."""
        if not self.is_off:
            self.has_failed = True
            text = wandb_client.in_one_line(error)
            log.warning(f"W&B stopped: {text}; the run's own files go on")

    # -------------------------------------------------------------------------------- ending

    def end(self, exit_code: int, timeout: float) -> bool:
        """Finish the W&B run; whether all was sent, and within `timeout` seconds.

        If not, the client is stopped; what it has in its file can be uploaded later.
        """
        start = time.monotonic()
        fault_before = self._slow_fault
        self._is_ending = True

        def left(share: float) -> float:
            return start + 0.9 * share * timeout - time.monotonic()  # the last tenth is to stop it

        if not self._is_open.wait(left(0.5)):
            self._stop_asking()
        slow_ones_ended = self._slow_lane.wait(left(0.7))
        self._is_late = True
        self._lane.add(lambda: self._finish(exit_code))
        ended = self._lane.wait(left(1.0))
        complete = slow_ones_ended and ended and not self.has_failed
        self._has_ended = True
        self._lane.stop()
        self._slow_lane.stop()
        sys.setswitchinterval(self._usual_interval)
        if not complete:
            wandb_client.kill()
            wandb_client.forget()
        elif self._slow_fault != fault_before:
            log.warning(self._slow_fault)
        return complete

    def _finish(self, exit_code: int) -> None:
        if self.run is None:
            return
        try:
            failpoint.hit("wandb.finish")
            self.run.finish(exit_code=1 if self.has_failed else exit_code)
        except Exception as error:
            self.give_up(error)


def _call(action: Action, run: "wandb.Run") -> None:
    """action(run), a second time if the other thread changed what the client went through."""
    try:
        action(run)
    except RuntimeError as error:
        if "changed size during iteration" not in str(error):
            raise
        action(run)


class _Lane:
    """Calls what was added, one after the other, in a thread that ends with the process."""

    def __init__(self, name: str) -> None:
        self._actions: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def add(self, action: Callable[[], object]) -> None:
        """Call `action`, which must not raise, after all that was added before it."""
        self._actions.put(action)

    def n_waiting(self) -> int:
        return self._actions.qsize()

    def wait(self, seconds: float) -> bool:
        """Whether all that was added has ended within these seconds."""
        done = threading.Event()
        self.add(done.set)
        return done.wait(max(0.0, seconds))

    def stop(self) -> None:
        """End the thread after all that was added."""
        self._actions.put(None)

    def _work(self) -> None:
        while (action := self._actions.get()) is not None:
            action()
