"""Whether a W&B server answers at all, for work that may take hours and would wait for days.

    wandb_answer.check()                    # SilentServerError: there is no server
    wandb_answer.wait(upload_has_ended)     # SilentServerError, two minutes after its last answer

The client itself asks a silent server again for a week. How long an upload takes nobody knows
before, so its time is not limited, but that in which the server answers nothing is.
"""

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable

from lm.system.errors import SilentServerError

SECONDS = 20.0  # that one answer may take, and from one question to the next
MOST_MISSED = 3  # answers in a row
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
