"""The first call of every command: until it has loaded what it needs, Ctrl-C just ends it.

    if __name__ == "__main__":
        from lm.launch import entry

        entry.begin("sample")

`--help` is answered here, before anything slow is loaded.
"""

import atexit
import gc
import sys

from lm.system import environment, signals


def begin(verb: str) -> None:
    """Let Ctrl-C end the process without a traceback; answer --help, and exit.

    Torch, which loads later, finds in the environment how its threads wait.
    """
    signals.end_on_ctrl_c()
    # Python looks for garbage once more at the end, among all that torch has made: half a second
    # for memory that the system takes back anyway. Registered first, this runs last.
    atexit.register(gc.freeze)
    environment.let_threads_yield()
    words = sys.argv[1:]
    if verb == "lm":
        words = words[:1] or ["--help"]  # the others are those of the command that it runs
    if "-h" in words or "--help" in words:
        from lm.launch import usage  # which reads every setting

        usage.answer(verb, words)
        sys.exit(0)
