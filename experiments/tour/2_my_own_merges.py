"""Lesson 2, my own merges: byte-pair encoding by hand, then as the project does it.

python experiments/tour 2
"""

import marimo  # not there? pip install -e '.[tour]' -c constraints.txt

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="2 My own merges")

with app.setup:
    from collections import Counter
    from itertools import pairwise

    import draw
    import lesson
    import marimo as mo

    from lm import notebook
    from lm.data import pipeline
    from lm.tokenizers import BPETokenizer
    from lm.tokenizers.bpe_train import learn_merges
    from lm.tokenizers.split import Splitter


@app.cell(hide_code=True)
def _():
    mo.md(f"""
    # 2 My own merges

    {lesson.road("tokens")}

    Bytes make long sequences, whole words make endless vocabularies. Byte-pair encoding finds the
    middle by itself: **join the commonest pair of neighbours, and again, and again.**
    """)
    return


@app.cell
def _():
    text = mo.ui.text_area(
        value="the cat sat on the mat, the other cat sat on the hat", label="text", full_width=True
    )
    text
    return (text,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## First a regular expression cuts

    A token never reaches across such a cut: no `dog.` beside `dog!`, and a word keeps the blank
    before it. This is the pattern of GPT-4.
    """)
    return


@app.cell
def _(text):
    mo.stop(not text.value, mo.md("Write something above."))
    chunks = Splitter("gpt4").chunks(text.value)
    draw.chips([draw.visible(chunk) for chunk in chunks], f"{len(chunks)} chunks")
    return (chunks,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Count the pairs

    Each chunk is a row of ids, at first its bytes. Equal chunks are counted once, with a weight.
    """)
    return


@app.function
def count_pairs(words):
    counts = Counter()
    for ids, n in words.items():
        for pair in pairwise(ids):
            counts[pair] += n
    return counts


@app.cell
def _(chunks):
    start = Counter(tuple(chunk.encode()) for chunk in chunks)
    commonest = count_pairs(start).most_common(8)
    names = [draw.visible(bytes(pair).decode(errors="replace")) for pair, _ in commonest]
    times = [n for _, n in commonest]
    draw.bars(dict(zip(names, times, strict=True)), "the commonest pairs of bytes", " times")
    return (start,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Join the commonest, and count again

    The new token has the next free id, from 256 on. Of pairs equally common the one with the
    lowest ids goes first: without such a rule two machines could learn two tokenizers.
    """)
    return


@app.function
def join(ids, pair, new):
    joined = []
    i = 0
    while i < len(ids):
        if ids[i : i + 2] == pair:
            joined.append(new)
            i += 2
        else:
            joined.append(ids[i])
            i += 1
    return tuple(joined)


@app.cell
def _(start):
    words = start
    merges = []
    for new in range(256, 276):
        counts = count_pairs(words)
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append((*pair, new))
        words = Counter({join(ids, pair, new): n for ids, n in words.items()})
    return (merges,)


@app.cell
def _(merges):
    n_merges = mo.ui.slider(
        0, max(1, len(merges)), value=min(4, len(merges)), label="merges", show_value=True
    )
    n_merges
    return (n_merges,)


@app.cell
def _(merges, n_merges, text):
    learned = BPETokenizer.of_merges(merges[: n_merges.value])
    ids = learned.encode_ordinary(text.value)
    draw.chips(
        [draw.visible(learned.show(i)) for i in ids],
        f"{len(text.value.encode())} bytes, {len(ids)} tokens after {n_merges.value} merges",
    )
    return (learned,)


@app.cell
def _(learned, merges, n_merges):
    listed = []
    for left, right, made in merges[: n_merges.value]:
        parts = [draw.visible(learned.show(part)) for part in (left, right, made)]
        listed.append((made, f"{parts[0]} + {parts[1]}", parts[2]))
    draw.table(["id", "pair", "token"], listed)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## The same from the project

    `learn_merges` keeps its counts up to date, where the lines above count anew after each merge.
    The merges are the same.
    """)
    return


@app.cell
def _(chunks, merges):
    fast = learn_merges(Counter(chunk.encode() for chunk in chunks), len(merges))
    agrees = fast == merges
    mo.md(f"{len(merges)} merges by hand, {len(fast)} by the project, all alike: **{agrees}**")
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## On a real text: how large a vocabulary?

    512 is small and round: 256 bytes, 255 merges, and `<|endoftext|>`. Its longest tokens:
    """)
    return


@app.cell
def _():
    corpus = lesson.corpus("shakespeare")
    cfg = notebook.settings(f"corpus={corpus}", "tokenizer=bpe", "tokenizer.vocab_size=512")
    prepared = pipeline.prepare(cfg)
    tokenizer = prepared.tokenizer
    return corpus, prepared, tokenizer


@app.cell
def _(tokenizer):
    longest = tokenizer.token_lengths().argsort()[::-1][:24]
    draw.chips([draw.visible(tokenizer.show(i)) for i in longest])
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    The first merges save most. A tokenizer with fewer tokens is the beginning of a larger one, so
    one training draws the whole curve.
    """)
    return


@app.cell
def _(prepared, tokenizer):
    sample = tokenizer.decode(prepared.val[:20_000])
    points = []
    for size in range(257, 513, 15):
        n_tokens = len(tokenizer.truncate(size).encode_ordinary(sample))
        points.append((size, len(sample.encode()) / n_tokens))
    draw.curves({"bytes per token": points}, x="vocabulary")
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    More bytes in a token: a model sees further back, and has fewer steps to make. But each token
    is rarer, so less is learned about it. Experiment 005 measures where it pays.
    """)
    return


@app.cell
def _(corpus, prepared):
    train, val = prepared.tokens.splits.train, prepared.tokens.splits.val
    per_token = (train.n_bytes + val.n_bytes) / (train.n_tokens + val.n_tokens)
    command = (
        f"python -m lm.train corpus={corpus} tokenizer=bpe tokenizer.vocab_size=512 "
        "model=bigram_counts track=off"
    )
    expected = f"{per_token:.2f} bytes each"
    lesson.ending(command, expected, "Next: what follows what.")
    return


if __name__ == "__main__":
    app.run()
