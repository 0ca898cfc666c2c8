"""W&B's client: open a run, online or else offline, and end the client's own process if it hangs.

run, fault = wandb_client.open_run("online", arguments, init_timeout=20, finish_timeout=60)
"""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from lm.record import wandb_names
from lm.system import failpoint

if TYPE_CHECKING:
    import wandb

LOWEST = ("val/bpb", "val/loss", "val/ppl")  # the curves of which W&B keeps the lowest value
STOPPED = ("HandleAbandonedError", "MailboxClosedError")  # what `kill` makes of a question
LOADED_LATER = ("wandb.sdk.launch.inputs.internal", "wandb.sdk.artifacts._internal_artifact")
CUT_OFF = "cut-off"  # an empty file in the folder of an online run that was not all uploaded


def load() -> None:
    """Load the client with all that it would load by itself later, beside training.

    A thread that loads modules takes Python's lock so often that a step of training lasts six times
    as long, for 1.5 s. Raises what the import of a broken installation raises.
    """
    # What would report the client's own errors takes 0.4 s to load.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    client = importlib.import_module("wandb")
    # Where pandas is installed it takes 1 s to learn that a table of samples is no data frame; this
    # makes the client look at the name of its type instead.
    client.util.pd_available = False
    for module in LOADED_LATER:
        with contextlib.suppress(ImportError):  # another version of the client
            importlib.import_module(module)


def open_run(
    mode: str,
    arguments: dict[str, Any],
    init_timeout: float,
    finish_timeout: float,
    fall_back: bool = True,
) -> "tuple[wandb.Run, str]":
    """A run of W&B, in `mode` or else offline; and why it is not in `mode`, "" if it is.

    Raises ConnectionError with both reasons if neither can be opened; without `fall_back` it is
    not tried offline.
    """
    import wandb

    _silence_threads()
    settings = wandb.Settings(
        silent=True,
        init_timeout=init_timeout,
        finish_timeout=finish_timeout,
        finish_timeout_raises=True,
        stop_fn=lambda: os.kill(os.getpid(), signal.SIGTERM),  # the button: save, and stop
        x_transaction_log_flush_interval=1,  # 15 s of points would be lost to a kill
        # Paths, names of the machine and of its user: code.json says what made the run.
        x_disable_meta=True,
        x_save_requirements=False,  # 0.3 s; code.json names the packages that matter
        disable_git=True,
        host="",
    )
    arguments["settings"] = settings
    arguments["reinit"] = "finish_previous"  # or the jobs of a sweep would be logged into one run
    faults: list[str] = []
    for attempt in dict.fromkeys([mode, "offline"] if fall_back else [mode]):
        arguments["mode"] = attempt
        try:
            failpoint.hit("wandb.init")
            run = wandb.init(**arguments)
            run.define_metric("*", step_metric="tokens")
            for key in wandb_names.X_AXES:
                run.define_metric(key, hidden=True)
            for key in LOWEST:  # by both names: older runs and sweeps of a server go on
                for known in (key, wandb_names.name(key)):
                    run.define_metric(known, step_metric="tokens", summary="min")
            return run, "".join(faults)
        except Exception as error:  # training goes on whatever W&B raises
            faults.append(f"{attempt} failed: {in_one_line(error)}")
            forget()  # or the same id would be refused as in use
    raise ConnectionError("; ".join(faults))


def _silence_threads() -> None:
    """Print no traceback of the client's own threads, which fail when its process ends."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.thread is None or not args.thread.name.startswith("wandb"):
            before(args)

    if getattr(before, "__module__", "") != __name__:  # once is enough
        threading.excepthook = hook


def forget() -> None:
    """Drop the client's state and end its process, by force if that takes more than 3 s."""
    client = sys.modules.get("wandb")
    if client is None:
        return
    process = _process()

    def tear_down() -> None:
        with contextlib.suppress(Exception, SystemExit):  # it may be what failed
            client.sdk.lib.module.unset_globals()  # with a run there, nobody can log in
            client.teardown()

    thread = threading.Thread(target=tear_down, daemon=True)  # it waits without a limit
    thread.start()
    thread.join(3)
    if process is not None:
        process.kill()


def kill() -> None:
    """End the client's process: what waits for it fails then, and nothing waits at exit.

    What was sent to it until a second ago is in its file.
    """
    process = _process()
    if process is not None:
        process.kill()


def _process() -> subprocess.Popen[bytes] | None:
    """The client's own process, for which it has no public name."""
    setup = getattr(sys.modules.get("wandb.sdk.wandb_setup"), "_singleton", None)
    connection = getattr(setup, "_connection", None)
    return getattr(getattr(connection, "_proc", None), "_process", None)


def in_one_line(error: BaseException) -> str:
    """What an error says, in at most 300 letters."""
    name = type(error).__name__
    if name in STOPPED:
        return "the server did not answer until the client was stopped"
    text = " ".join(str(error).split()) or name
    text = text.partition(" [type=")[0]  # where pydantic begins to speak to programmers
    text = text.partition(" Consider increasing the init_timeout")[0]
    return text if len(text) <= 300 else f"{text[:297]}..."
