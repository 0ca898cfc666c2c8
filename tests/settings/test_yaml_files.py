"""Settings in YAML are read key by key, and are what PyYAML makes of the whole file."""

import random

import pytest
import yaml

from lm.settings.yaml_files import plain_yaml

LINES = [
    "a: 1", "b: two", "c:", "d: [1, 2]", "e: {x: 1}", 'f: "x', 'y"', "g: |", "g: |+", "h: >-",
    "  x", "    y", "  z: 1", "- 3", "- p: q", "  - r", "", "# said", "A: 1", "a:b", "---", "...",
    "? k", ": v", "i: 'it''s'", "j: [", "]", "k: {", "}", "l: 1e3", "m: !!str 5", "n: &o 1",
    " p: 1", "q: 1 # said", "r: \u2028 s: 1", "t: null", "u: ~", "\tv: 1", "w: x: y", "%YAML 1.1",
]  # fmt: skip


def judged(read, text):
    """What is read, or that it is none."""
    try:
        return read(text)
    except (yaml.YAMLError, ValueError):
        return "no YAML"


def test_a_text_in_blocks_has_the_values_of_the_whole():
    rng = random.Random("texts of settings")
    n_valid = 0
    for _ in range(4000):
        text = "".join(line + "\n" for line in rng.choices(LINES, k=rng.randint(0, 6)))
        expected = judged(lambda t: yaml.load(t, yaml.CSafeLoader), text)
        n_valid += isinstance(expected, dict)
        assert judged(plain_yaml, text) == expected, text
    assert n_valid > 400


def test_what_is_read_again_is_not_what_somebody_changed():
    text = "a:\n  b: [1]\n"
    plain_yaml(text)["a"]["b"].append(2)
    assert plain_yaml(text) == {"a": {"b": [1]}}


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x\n", "a: [&x 1, *x]\n", f"a: {'[' * 30}\n"])
def test_aliases_and_great_depth_are_refused_in_any_block(text):
    with pytest.raises(ValueError, match=r"alias|more than 20 deep"):
        plain_yaml(f"c: 1\n{text}d: 2\n")
