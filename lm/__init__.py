"""lm: from raw text to a tuned language model that a person can see through, track and sweep."""

import signal
import sys

__version__ = "0.1.0"

# As `python -m lm.sample` starts, before it has loaded what it needs: Ctrl-C then just ends it.
_ours = sys.argv[:1] == ["-m"] and "lm" in [
    word.partition(".")[0] for before, word in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    if before == "-m"
]  # fmt: skip
if _ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
