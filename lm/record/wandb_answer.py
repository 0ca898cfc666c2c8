"""Whether a W&B server answers at all, for work that may take hours and would wait for days.

    wandb_answer.check()                    # SilentServerError: there is no server
    wandb_answer.wait(upload_has_ended)     # SilentServerError, two minutes after its last answer
    wandb_answer.ask("run=wandb:...", work) # all of it around a question: a key, time, one line

The client itself asks a silent server again for a week. How long an upload takes nobody knows
before, so its time is not limited, but that in which the server answers nothing is.
"""

import http.client
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from typing import TypeVar

from lm.record.wandb_client import in_one_line
from lm.record.wandb_mode import key_fault, tidy_environment
from lm.system.errors import SilentServerError

SECONDS = 20.0  # that one answer may take, and from one question to the next
MOST_MISSED = 3  # answers in a row
TIMEOUT = 20  # seconds until the client gives up one request
T = TypeVar("T")
QUESTION = b'{"query": "query ServerInfo { serverInfo { cliVersionInfo } }", "variables": {}}'


def check() -> None:
    """Raise SilentServerError unless the server answers within SECONDS, whatever it says."""
    import wandb

    base = wandb.setup(settings=wandb.Settings(silent=True)).settings.base_url
    request = urllib.request.Request(f"{base}/graphql", QUESTION)
    request.add_header("Content-Type", "application/json")
    try:
        urllib.request.urlopen(request, timeout=SECONDS).close()
    except urllib.error.HTTPError as error:  # as it asks who we are, or has a fault of its own
        error.close()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):  # it is there; the client has certificates of its own
            return
        why = f"in {SECONDS:g} seconds" if isinstance(reason, TimeoutError) else f"({reason})"
        raise SilentServerError(f"{base} does not answer {why}") from None


def wait(has_ended: Callable[[float], bool]) -> None:
    """Return once has_ended(seconds), which waits so long at most, is true.

    Raises SilentServerError if the server does not answer MOST_MISSED times in a row.
    """
    n_missed = 0
    while not has_ended(SECONDS):
        try:
            check()
            n_missed = 0
        except SilentServerError:
            n_missed += 1
            if n_missed == MOST_MISSED:
                raise


def ask(what: str, work: Callable[[], T]) -> T:
    """The result of `work`, which asks the server; an error is one line that begins with `what`.

    Raises ValueError where there is no key or the server refuses, and SilentServerError where
    it answers nothing any more, however long `work` itself would wait.
    """
    tidy_environment()
    try:
        fault = key_fault()
    except Exception as error:  # the client raises a dozen unrelated classes
        fault = in_one_line(error)
    if fault:
        raise ValueError(f"{what} is asked of W&B ({fault}): wandb login, or set WANDB_API_KEY")
    try:
        return _while_it_answers(work)
    except SilentServerError as error:
        raise SilentServerError(f"{what}: {error}; try again later") from None
    except Exception as error:
        raise ValueError(f"{what}: {in_one_line(error)}") from None


def _while_it_answers(work: Callable[[], T]) -> T:
    """The result of `work`, given up where it waits for a server that answers nothing any more."""
    check()
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    # No pool, whose threads the interpreter waits for at its end.
    threading.Thread(target=run, name="W&B: questions", daemon=True).start()
    wait(lambda seconds: bool(futures.wait([result], seconds).done))
    return result.result()
