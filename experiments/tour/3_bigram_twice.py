"""Lesson 3, a bigram twice: counted once, learned by gradient once, and one number for both.

python experiments/tour 3
"""

import marimo  # not there? pip install -e '.[tour]' -c constraints.txt

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="3 A bigram twice")

with app.setup:
    import draw
    import lesson
    import marimo as mo
    import torch

    from lm import notebook, scoring
    from lm.config import BigramConfig
    from lm.data import pipeline
    from lm.generate import generate_text


@app.cell(hide_code=True)
def _():
    mo.md(f"""
    # 3 A bigram, twice

    {lesson.road("tokens", "probabilities")}

    The smallest language model looks at one token and says what comes next. It can be counted.
    It can also be learned, as all larger models are. **Both end at the same number**, and seeing
    why is seeing what training does.
    """)
    return


@app.cell
def _():
    corpus = lesson.corpus("names")
    cfg = notebook.settings(f"corpus={corpus}", "tokenizer=char", "model=bigram_counts")
    prepared = pipeline.prepare(cfg)
    tokenizer = prepared.tokenizer
    V = tokenizer.vocab_size
    names = [draw.visible(tokenizer.show(i)).replace("<|endoftext|>", "■") for i in range(V)]
    return V, cfg, corpus, names, prepared, tokenizer


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## The text

    ■ is the end-of-document token: it begins the first word and ends each.
    """)
    return


@app.cell
def _(names, prepared):
    draw.chips([names[i] for i in prepared.train[:40]])
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## By counting

    A table with a row for each token and a column for each that may follow. One line fills it.
    """)
    return


@app.cell
def _(V, prepared):
    ids = torch.from_numpy(prepared.train.astype("int64"))
    ones = torch.ones(len(ids) - 1)
    counts = torch.zeros(V, V).index_put((ids[:-1], ids[1:]), ones, accumulate=True)
    return (counts,)


@app.cell
def _(counts, names):
    often = counts.sum(1).topk(min(27, len(names))).indices.sort().values
    labels = [names[i] for i in often]
    draw.grid(
        counts[often][:, often].sqrt(),
        labels,
        labels,
        "the stronger the colour, the more often",
        -1,
    )
    return (often,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    Each row, divided by its sum, is a distribution: **p(next | this)**.

    The loss is what the text costs under it: the mean of **-ln p** over all pairs, in nats.
    If all tokens were equally likely it would be ln V.
    """)
    return


@app.cell
def _(V, counts):
    p = counts / counts.sum(1, keepdim=True).clamp(min=1)  # (V, V), rows sum to 1
    seen = counts > 0
    by_counts = -(counts[seen] * p[seen].log()).sum().item() / counts.sum().item()
    uniform = torch.tensor(float(V)).log().item()
    mo.md(f"equally likely: ln {V} = **{uniform:.3f}** nats; counted: **{by_counts:.4f}**")
    return by_counts, p


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## By gradient

    The same table, but of **logits**: any numbers, and softmax makes each row a distribution.
    It starts with zeros, so all tokens are equally likely.

    Of one row, the gradient of the loss is as simple as it gets: **what it predicts, less what
    was counted**. Training moves the table until nothing of that is left, and then it predicts
    the counts.
    """)
    return


@app.cell
def _(V, counts, often, p):
    model = BigramConfig().build(V)
    every = torch.arange(V)[None]  # (1, V): each token once
    share = counts / counts.sum()  # (V, V): of all pairs

    def loss_of(model):
        return -(share * model(every)[0].log_softmax(-1)).sum()

    loss_of(model).backward()
    row = often[1]  # any will do
    by_rule = (torch.full((V,), 1 / V) - p[row]) * share[row].sum()
    gap = (model.table.weight.grad[row] - by_rule).abs().max().item()
    mo.md(f"Autograd and that rule differ by at most **{gap:.1g}**.")
    return every, loss_of


@app.cell(hide_code=True)
def _():
    mo.md("""
    Two hundred steps, each on all pairs at once:
    """)
    return


@app.cell
def _(V, every, loss_of):
    learner = BigramConfig().build(V)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.3)
    losses = []
    tables = []
    for _ in range(201):
        loss = loss_of(learner)
        losses.append(loss.item())
        tables.append(learner(every)[0].detach().softmax(-1))  # (V, V)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    by_gradient = losses[-1]
    return by_gradient, losses, tables


@app.cell
def _(by_counts, losses):
    draw.curves(
        {"learned": list(enumerate(losses))}, x="step", levels={"counted": by_counts},
        title="training loss, nats a token",
    )  # fmt: skip
    return


@app.cell
def _(by_counts, by_gradient):
    mo.md(f"""
    Learned **{by_gradient:.4f}**, counted **{by_counts:.4f}**. It comes from above and cannot
    pass: no table of pairs costs less on the text than its own counts.
    """)
    return


@app.cell
def _():
    step = mo.ui.slider(
        steps=[0, 1, 2, 3, 5, 8, 12, 20, 40, 80, 200], value=3, label="step", show_value=True
    )
    step
    return (step,)


@app.cell
def _(names, often, p, step, tables):
    beginning = names.index("■")  # what begins a document
    both = torch.stack((p[beginning], tables[step.value][beginning]))[:, often]
    columns = [names[i] for i in often]
    draw.grid(100 * both, ["counted", "learned"], columns, "percent after ■", 0)
    return


@app.cell(hide_code=True)
def _(V):
    mo.md(f"""
    ## Why learn, then?

    A table of pairs is small: {V} x {V}. Ten tokens in a row come in {V}^10 = {V**10:.0e} ways. No
    text shows them all, and what was never counted has no row. A network **shares** its numbers
    among all contexts, so it has an answer for what it never saw. The next lessons build one.

    Here is what one token of memory writes:
    """)
    return


@app.cell
def _(V, cfg, prepared, tokenizer):
    counted = cfg.model.build(V)
    counted.fit(prepared.train)
    written = [
        "".join(generate_text(counted, tokenizer, "", max_tokens=60, seed=seed))
        for seed in range(8)
    ]
    draw.chips([draw.visible(text) for text in written])
    return (counted,)


@app.cell
def _(corpus, counted, prepared, tokenizer):
    score = scoring.evaluate(counted, prepared.val, tokenizer.token_lengths())
    command = f"python -m lm.train corpus={corpus} tokenizer=char model=bigram_counts track=off"
    expected = f"val loss {score['loss']:.3f}"
    lesson.ending(
        command,
        expected,
        "`model=bigram train.steps=200` in place of `model=bigram_counts` learns it, a batch at "
        "a time, and ends close by. Next: looking further back than one token.",
    )
    return


if __name__ == "__main__":
    app.run()
