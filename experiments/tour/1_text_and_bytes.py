"""Lesson 1, text and bytes: what a computer has of a text, and the first number to beat.

python experiments/tour 1
"""

import marimo  # not there? pip install -e '.[tour]' -c constraints.txt

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="1 Text and bytes")

with app.setup:
    import draw
    import lesson
    import marimo as mo
    import numpy as np

    from lm import notebook, scoring, tokenizers
    from lm.data import pipeline


@app.cell(hide_code=True)
def _():
    mo.md(f"""
    # 1 Text and bytes

    {lesson.road("text", "tokens")}

    A language model reads numbers and writes numbers. The first question is which.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## A character is one to four bytes

    Write something. Letters of English take one byte each in UTF-8, an accent two, an emoji four.
    """)
    return


@app.cell
def _():
    text = mo.ui.text(value="naïve café 🙂", label="text", full_width=True)
    text
    return (text,)


@app.cell
def _(text):
    rows = []
    for c in text.value:
        content = c.encode()
        rows.append((draw.visible(c), f"U+{ord(c):04X}", content.hex(" "), len(content)))
    draw.table(["character", "code point", "bytes", "how many"], rows)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## The simplest tokenizer: a token is a byte

    256 tokens, no training, no unknown text. One more, `<|endoftext|>`, stands between documents.
    """)
    return


@app.cell
def _(text):
    mo.stop(not text.value, mo.md("Write something above."))
    byte = tokenizers.ByteTokenizer()
    ids = byte.encode(text.value)
    draw.chips([str(i) for i in ids], f"{len(text.value)} characters, {len(ids)} tokens")
    return byte, ids


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Half a character

    A model writes one token at a time, so for a moment a character may be there in part.
    Cut the text and look at its end.
    """)
    return


@app.cell
def _(ids):
    kept = mo.ui.slider(0, len(ids), value=min(3, len(ids)), label="tokens kept", show_value=True)
    kept
    return (kept,)


@app.cell
def _(byte, ids, kept):
    whole = "".join(byte.decode_stream(ids[: kept.value], errors="ignore"))
    draw.table(
        ["way", "text"],
        [
            ("decode: what is there", byte.decode(ids[: kept.value])),
            ("decode_stream: whole characters", whole),
        ],
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Characters as tokens

    Fewer tokens, but only the characters of the training text have one.
    """)
    return


@app.cell
def _(text):
    char = tokenizers.CharTokenizer("a naive cafe")
    try:
        said = str(char.encode(text.value))
    except ValueError as error:
        said = str(error)
    mo.md(f"It learned `{char.chars}`, and of your text it says: {said}")
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## What a byte is worth

    To store a byte costs 8 bits, if nothing is known of it. Whoever knows how often each byte
    occurs pays less: **-log2 p** bits for a byte of probability p. Count on the training text...
    """)
    return


@app.cell
def _():
    corpus = lesson.corpus("shakespeare")
    cfg = notebook.settings(f"corpus={corpus}", "tokenizer=byte", "model=ngram", "model.order=1")
    prepared = pipeline.prepare(cfg)
    counts = np.bincount(prepared.train, minlength=257)
    p = counts / counts.sum()
    return cfg, corpus, p, prepared


@app.cell
def _(byte, p):
    often = np.argsort(-p)[:12]
    names = [draw.visible(byte.decode([i])) for i in often]
    draw.bars(dict(zip(names, 100 * p[often], strict=True)), "the commonest bytes", " %")
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ... and pay on the validation text, which the counting never saw.
    """)
    return


@app.cell
def _(p, prepared):
    val = prepared.val[prepared.val < 256]  # without <|endoftext|>
    by_hand = -np.log2(p[val].clip(min=1e-9)).mean()
    mo.md(f"**{by_hand:.3f} bits per byte** on {len(val):,} bytes, by two lines of numpy.")
    return


@app.cell
def _(cfg, prepared):
    model = cfg.model.build(prepared.tokenizer.vocab_size)
    model.fit(prepared.train)
    score = scoring.evaluate(model, prepared.val, prepared.tokenizer.token_lengths())
    mo.md(
        f"The project's own counts say **{score['bpb']:.4f}**: "
        "they leave a little for bytes never seen. All that follows is about paying less."
    )
    return (score,)


@app.cell
def _(corpus, score):
    command = (
        f"python -m lm.train corpus={corpus} tokenizer=byte model=ngram model.order=1 track=off"
    )
    expected = f"best val/bpb {score['bpb']:.4f}"
    lesson.ending(command, expected, "Next: tokens longer than a byte.")
    return


if __name__ == "__main__":
    app.run()
