import os
import tempfile

from lm.system import environment

# Before a test loads torch: all that the tests start inherits it.
environment.let_threads_yield()
# Each test has a cache of its own; what was compiled for one serves all.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/lm-tests-compiled")
