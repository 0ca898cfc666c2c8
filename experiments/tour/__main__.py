"""List the lessons, or open one in the browser.

python experiments/tour       # what there is
python experiments/tour 3     # lesson 3
"""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
EXTRA = "pip install -e '.[tour]' -c constraints.txt"


def lessons() -> dict[str, Path]:
    """The notebooks by the number that their names begin with."""
    return {path.name.partition("_")[0]: path for path in sorted(HERE.glob("[0-9]_*.py"))}


def main() -> None:
    found = lessons()
    words = sys.argv[1:]
    if not words:
        for number, path in found.items():
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            print(f"{number}  {text.partition(chr(10))[0].partition(', ')[2]}")
        print("python experiments/tour NUMBER opens one")
        return
    if len(words) > 1 or words[0] not in found:
        stop(f"{' '.join(words)} is no lesson: give one of {', '.join(found)}")
    if importlib.util.find_spec("marimo") is None:
        stop(f"the lessons are notebooks of marimo, which is not installed: {EXTRA}")
    command = [sys.executable, "-m", "marimo", "edit", str(found[words[0]])]
    sys.exit(subprocess.run(command).returncode)


def stop(reason: str) -> None:
    """End with exit code 2 and one line."""
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
