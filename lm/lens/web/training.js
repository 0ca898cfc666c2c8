// Section 7: one training step.
const S7 = D.training;
if (S7.missing !== undefined) fill("step", el("p", { class: "quiet" }, `Not here: ${S7.missing}.`));
else {
  const rows = S7.ids.length, wide = S7.ids[0].length - 1, raw = new Uint16Array(bytes(S7.nats.numbers).buffer);
  const nats = (b, t) => S7.nats.low + S7.nats.step * raw[b * wide + t];
  let b = 0, p = 0;  // the row and position looked at
  const every = Array.from(raw, (n) => S7.nats.low + S7.nats.step * n).sort((x, y) => x - y), top = every[Math.floor(0.98 * (every.length - 1))] || 1;
  const canvas = el("canvas", { id: "losses", tabindex: 0, "aria-label": "Loss of each prediction" });
  const place = (event) => { const box = canvas.getBoundingClientRect(), nth = (x, size, n) => Math.min(n - 1, Math.max(0, Math.floor(x / size * n)));
    b = nth(event.clientY - box.top, box.height, rows); p = nth(event.clientX - box.left, box.width, wide); draw(); };
  canvas.addEventListener("pointermove", (event) => { if (event.buttons || event.pointerType === "mouse") place(event); });
  canvas.addEventListener("click", place);
  canvas.addEventListener("keydown", (event) => { const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move) return;
    event.preventDefault(); event.stopPropagation();
    b = Math.min(rows - 1, Math.max(0, b + move[0])); p = Math.min(wide - 1, Math.max(0, p + move[1])); draw(); });
  const pair = el("div"), said = el("p");
  function draw() {
    const ratio = window.devicePixelRatio || 1, tall = Math.max(4, Math.min(20, 260 / rows));
    canvas.style.height = `${Math.round(tall * rows)}px`;
    canvas.width = Math.max(wide, canvas.clientWidth * ratio); canvas.height = tall * rows * ratio;
    const context = canvas.getContext("2d"), [red, green, blue] = rgb(ink("--accent")), w = canvas.width / wide, h = canvas.height / rows;
    for (let r = 0; r < rows; r++) for (let t = 0; t < wide; t++) {
      context.fillStyle = `rgba(${red},${green},${blue},${Math.min(1, nats(r, t) / top)})`;
      context.fillRect(Math.floor(t * w), Math.floor(r * h), Math.ceil(w), Math.ceil(h));
    }
    context.strokeStyle = ink("--ink"); context.lineWidth = 2 * ratio;
    context.strokeRect(Math.floor(p * w), Math.floor(b * h), Math.max(4 * ratio, w), Math.max(4 * ratio, h));
    const from = Math.max(0, Math.min(p - 5, wide - 12)), shown = Array.from({ length: Math.min(12, wide) }, (_, k) => from + k);
    pair.replaceChildren(el("div", { class: "scroll" }, el("table", {},
      el("tr", {}, el("th", {}, "position"), ...shown.map((t) => el("th", {}, t + 1))),
      el("tr", {}, el("th", {}, "x reads"), ...shown.map((t) => el("td", { "aria-selected": String(t === p) }, name(S7.ids[b][t])))),
      el("tr", {}, el("th", {}, "y comes next"), ...shown.map((t) => el("td", { style: tint(nats(b, t) / top * 0.9), "aria-selected": String(t === p) }, name(S7.ids[b][t + 1])))),
      el("tr", {}, el("th", {}, "nats"), ...shown.map((t) => el("th", {}, nats(b, t).toFixed(2)))))));
    said.textContent = `Row ${b + 1}, position ${p + 1}: after ${name(S7.ids[b][p])} the text goes on with ${name(S7.ids[b][p + 1])}; the model gave that ${percent(Math.exp(-nats(b, p)))}, which costs ${nats(b, p).toFixed(2)} nats.`;
  }
  const rate = S7.optimizers.map((who, i) => `${who} at a rate of ${figure(S7.rates[i])}`).join(" and ");
  const clipped = S7.clip && S7.norm > S7.clip ? `, scaled down to ${S7.clip}` : "";
  fill("step",
    el("p", {}, `Batch ${count(S7.number)} of this run: ${rows} rows of ${wide} tokens, cut from the training text at random places. y is x, one token further on, so each row asks ${wide} questions at once. `,
      "Colour: what each answer cost. Point or click; arrow keys after a click."),
    canvas, said, pair,
    el("h3", {}, "The loss: the mean of these ", count(rows * wide), " numbers"),
    el("p", {}, el("b", {}, `${S7.loss.toFixed(4)} nats`), ` before, and on the same batch after one update `, el("b", { id: "after" }, S7.loss_after === null ? NOT_FINITE : `${S7.loss_after.toFixed(4)} nats`),
      `. (A blind guess: ${Math.log(A.vocab_size).toFixed(2)}.)`),
    el("h3", {}, "The update"),
    el("p", {}, `Going back through the steps above gives a gradient for every parameter: how much the loss would grow if it grew. All together have the length ${figure(S7.norm)}${clipped}. ${rate}${S7.is_over ? " (the run is over: the rate of its middle)" : ""}, once:`),
    el("div", { class: "scroll" }, el("table", { id: "moved" },
      el("tr", {}, ...["", "typical size", "gradient", "moved by", "most at", "from", "gradient", "to"].map((x) => el("th", {}, x))),
      ...S7.parameters.map((row) => el("tr", {}, el("th", { title: `${row.name} ${row.shape.join("\u00d7")}` }, row.name),
        ...[figure(row.size), figure(row.gradient), figure(row.change), `[${row.index.map((i) => i + 1).join(", ")}]`, figure(row.from), figure(row.slope), figure(row.to)].map((x) => el("td", {}, x)))))),
    el("p", { class: "quiet" }, "Sizes are roots of mean squares; then the one number that moved most. The optimizer's memory of earlier gradients is that of the checkpoint, so a number can move against its gradient of this batch."));
  views.push(draw);
}
