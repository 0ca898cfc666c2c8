"""Findings never ask for opposite things at once: one comes first, and the other says so.

agreement.agree(findings)      # changes the advice of those that another one contradicts
"""

import re
from collections.abc import Sequence

from lm.check.evidence import Finding

# What comes first, and what is to wait for it. A rate that is too high spoils every other number;
# what fits its text too closely learns no more of it by more steps or a larger model.
OPPOSITES = [
    (r"lower optimizer\.lr", r"raise optimizer\.lr"),
    (
        r"fewer train\.steps|try train\.steps=|stop earlier|more steps teach little",
        r"raise train\.steps|or train\.steps|train\.steps can be raised",
    ),
    (r"smaller model", r"larger model"),
]


def agree(findings: Sequence[Finding]) -> None:
    """Say in the advice of each finding that another one contradicts which of them comes first."""
    before: dict[int, list[str]] = {}  # by the place of a finding: those that come first
    for first, later in OPPOSITES:
        leading = [found.name for found in findings if re.search(first, found.advice)]
        for i, found in enumerate(findings):
            others = [name for name in leading if name != found.name]
            if others and re.search(later, found.advice):
                before.setdefault(i, []).extend(others)
    for i, names in before.items():
        first = " and ".join(dict.fromkeys(names))
        findings[i].advice = f"first what {first} asks for; if this is left, {findings[i].advice}"
