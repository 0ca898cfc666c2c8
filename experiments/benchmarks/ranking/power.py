"""How often a ranking shows that one arm is better, by arms, seeds and size of the difference.

    python experiments/benchmarks/ranking/power.py

Drawn, not trained: scores are normal, with one standard deviation over seeds. Writes its table into
README.md; takes a few seconds.
"""

import re
from pathlib import Path

from lm.report import best

README = Path(__file__).parent / "README.md"


def main() -> None:
    lines = ["| arms | seeds | one standard deviation | two |", "|--:|--:|--:|--:|"]
    for n_arms in (2, 4, 8):
        for n_seeds in (3, 5, 10):
            shares = [f"{best.power(n_arms, n_seeds, shift):.0%}" for shift in (1.0, 2.0)]
            lines.append(f"| {n_arms} | {n_seeds} | {' | '.join(shares)} |")
    block = "<!-- power -->\n" + "\n".join(lines) + "\n<!-- /power -->"
    text = README.read_text(encoding="utf-8")
    text = re.sub("<!-- power -->.*<!-- /power -->", lambda _: block, text, flags=re.S)
    README.write_text(text, encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
