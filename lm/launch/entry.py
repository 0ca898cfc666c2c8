"""The first call of every command: until it has loaded what it needs, Ctrl-C just ends it.

    if __name__ == "__main__":
        from lm.launch import entry

        entry.begin("sample")

`--help` is answered here, before anything slow is loaded.
"""

import sys

from lm.system import environment, signals


def begin(verb: str) -> None:
    """Let Ctrl-C end the process without a traceback; answer --help, and exit.

    Torch, which loads later, finds in the environment how its threads wait.
    """
    signals.end_on_ctrl_c()
    environment.let_threads_yield()
    words = sys.argv[1:]
    if verb == "lm":
        words = words[:1] or ["--help"]  # the others are those of the command that it runs
    if "-h" in words or "--help" in words:
        from lm.launch import usage  # which reads every setting

        usage.answer(verb, words)
        sys.exit(0)
