"""What a command costs: python -m tests.measured lm.report outputs ends with

measured {"seconds": 12.1, "cpu": 9.8, "mb": 767}
"""

import json
import re
import runpy
import sys
import time
from pathlib import Path


def main() -> None:
    """Run the module with the words; then print its time, that of the processor, and the most
    memory it had, in MB (of 10^6 bytes)."""
    module, *words = sys.argv[1:]
    sys.argv = [module, *words]
    start = time.perf_counter()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        found = {"seconds": time.perf_counter() - start, "cpu": time.process_time()}
        found["mb"] = int(peak[1]) * 1024 / 1e6
        print("measured", json.dumps({key: round(value, 2) for key, value in found.items()}))


if __name__ == "__main__":
    main()
