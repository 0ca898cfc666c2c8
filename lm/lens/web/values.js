"use strict";
// The numbers of a step, and the arithmetic behind one of them.
const tables = new Map();  // those unpacked so far
function table(i) {  // of what a step gave or read: { heads, rows, width, at(head, t, column) }, null if not here
  const t = i === null || i === undefined ? null : D.values.tables[i];
  if (!t) return null;
  if (!tables.has(i)) tables.set(i, unpacked(t));
  return tables.get(i);
}
function matrix(name) {  // a parameter of the model
  const w = name && D.matrices[name];
  if (!w) return null;
  if (!tables.has(name)) tables.set(name, unpacked(w));
  const m = tables.get(name);
  return { ...m, at: (row, column) => m.raw(0, row, column) };
}
function unpacked(t) {
  const n = new Uint16Array(bytes(t.numbers).buffer), raw = (h, row, c) => t.low + t.step * n[(h * t.rows + row) * t.width + c];
  // The last row is that of the last position; a row before the first one shown is undefined.
  return { ...t, raw, at: (h, position, c) => (position < T - t.rows ? undefined : raw(h, position - T + t.rows, c)),
    row: (h, position) => (position < T - t.rows ? null : Array.from({ length: t.width }, (_, c) => raw(h, position - T + t.rows, c))) };
}
const hasNumbers = (i) => table(D.values.steps[i].out) !== null;
const isSquare = (s) => s.kind === "scores" || (s.kind === "softmax" && s.axes.length === 4);  // a column is a position
const NOT_FINITE = "infinite or not a number";  // such values come as null
const figure = (x) => (!Number.isFinite(x) ? NOT_FINITE : x === 0 ? "0" : Math.abs(x) >= 1e4 || Math.abs(x) < 1e-3 ? x.toExponential(2) : x.toPrecision(4)).replace("-", "\u2212");

// How the number at (head, t, column) of step i came about: { lines, value }. `value` is what the
// lines come to, null where there is nothing to compute.
function explain(i, head, t, column) {
  const s = D.shapes.steps[i], v = D.values.steps[i], out = table(v.out), [a, b] = v.reads.map(table);
  const [w, bias] = v.params.map(matrix), name = v.params[0];
  const others = (what) => ({ lines: [what], value: null });
  const missing = () => others("What it is made of is not on this page: too many numbers. A shorter prompt leaves room, and layer= chooses the layer that comes first.");
  const sigmoid = (x) => 1 / (1 + Math.exp(-x)), kind = s.kind.toLowerCase();  // a module has the name of its class
  const unary = { relu: (x) => Math.max(0, x), square: (x) => x * x, tanh: Math.tanh, sigmoid, silu: (x) => x * sigmoid(x),
    gelu: v.constants.by_tanh ? (x) => x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))) / 2 : (x) => x * below(x) }[kind];
  if (s.kind === "Embedding" || s.kind === "embedding") return others(s.axes.length === 2 ? `Row ${t + 1} of ${Object.keys(s.params)[0]}, that of the position: looked up.` :`Number ${column + 1} in row ${D.tokens[t].id} of ${Object.keys(s.params)[0]}: nothing is computed, the row is looked up.`);
  if (["query", "key", "value"].includes(s.kind)) return others(`One of the numbers above: those of a position are dealt out to the heads, ${out.width} to each.`);
  if (s.kind === "rotate") {
    const first = column - column % 2, is_x = first === column, angles = (c) => b.at(Math.min(head, b.heads - 1), t, c);
    const [x, y, cos, sin] = a && b ? [a.at(head, t, first), a.at(head, t, first + 1), angles(first), angles(first + 1)] : [];
    if (sin === undefined) return missing();
    const turned = (p, q, sign) => `${figure(p)} \u00d7 ${figure(cos)} ${sign} ${signed(q)} \u00d7 ${signed(sin)}`;
    return { lines: [`Numbers ${first + 1} and ${first + 2} are a pair, x and y: a point in the plane, turned by an angle that grows with the position, here by ${figure(Math.atan2(sin, cos))} (of 2\u03c0 for a whole turn).`,
      is_x ? `x cos \u2212 y sin = ${turned(x, y, "\u2212")}` : `y cos + x sin = ${turned(y, x, "+")}`], value: is_x ? x * cos - y * sin : y * cos + x * sin };
  }
  if (s.kind === "GRU") return gru(i, t, column) || missing();
  if (s.kind === "unfold") {
    const n = s.axes[s.axes.length - 1][1], place = t - n + 1 + column % n, own = 1 + Math.floor(column / n), x = a && a.at(0, place, own - 1);
    if (x === null || x === undefined) return missing();
    return { lines: [`Number ${own} of ${place < 0 ? "the place before the text" : `position ${place + 1} ${name_of(place)}`}, which is laid beside those of the ${n} positions up to here.`], value: x };
  }
  if (["Linear", "linear"].includes(s.kind)) {
    const x = a && a.row(0, t);
    if (!x || !w || x.length !== w.width) return missing();
    if (column >= w.rows) return others(`This page has room for the first ${w.rows} rows of ${name}: numbers 1 to ${w.rows} are taken apart.`);
    const products = x.map((value, k) => [`x${k + 1} w${k + 1}`, value, w.at(column, k)]);
    return summed(`Row ${column + 1} of ${name} times what comes in, number by number:`, products, bias ? [["the bias", bias.at(0, column)]] : []);
  }
  if (["RMSNorm", "rms_norm", "LayerNorm", "layer_norm"].includes(s.kind)) {
    const x = a && (a.heads === out.heads ? a.row(head, t) : null);
    if (!x || x.length !== out.width || (s.params && Object.keys(s.params).length && !w)) return missing();
    const centred = /layer/i.test(s.kind), mean = centred ? x.reduce((p, q) => p + q, 0) / x.length : 0;
    const size = Math.sqrt(x.reduce((p, q) => p + (q - mean) ** 2, 0) / x.length + v.constants.eps), gain = w ? w.at(0, column) : 1, shift = bias ? bias.at(0, column) : 0;
    const top = centred ? `(${figure(x[column])} \u2212 ${figure(mean)})` : figure(x[column]);
    return { lines: [`${centred ? "Less the mean, divided by the standard deviation" : "Divided by the size, the root of the mean square,"} of the ${x.length} numbers that come in` + (w ? `, times its gain:` : ":"),
      `${top} / ${figure(size)}` + (w ? ` \u00d7 ${figure(gain)}` : "") + (bias ? ` + ${figure(shift)}` : "")], value: (x[column] - mean) / size * gain + shift };
  }
  if (s.kind === "scores") {
    if (column > t) return others(`Position ${column + 1} comes later: masked, as minus infinity, so that its share becomes 0.`);
    const q = a && a.row(head, t), k = a && b && b.row(Math.floor(head * b.heads / a.heads), column);
    if (!q || !k) return missing();
    const found = summed(`The query of position ${t + 1} times the key of position ${column + 1}, number by number:`, q.map((x, d) => [`q${d + 1} k${d + 1}`, x, k[d]]), []);
    const scale = v.constants.scale, usual = Math.abs(scale * Math.sqrt(q.length) - 1) < 1e-6;
    return { lines: [...found.lines, usual ? `${figure(found.value)} / \u221a${q.length}, so that its size does not grow with the head` : `${figure(found.value)} \u00d7 ${figure(scale)}, the scale of this model`], value: found.value * scale };
  }
  if (s.kind === "softmax" && isSquare(s)) {
    if (column > t) return others("A later position: its share is 0.");
    const row = a && a.row(head, t);
    if (!row) return missing();
    const seen = row.slice(0, t + 1), powers = seen.map(Math.exp), sum = powers.reduce((p, q) => p + q, 0);
    return { lines: [`e to the power of its score, over the sum of these of all ${t + 1} positions it sees:`, `e^${figure(seen[column])} / ${figure(sum)} = ${figure(powers[column])} / ${figure(sum)}`], value: powers[column] / sum };
  }
  if (s.kind === "weighted sum") {
    const share = a && a.row(head, t), h = a && b && Math.floor(head * b.heads / a.heads);
    const values = share && b && Array.from({ length: t + 1 }, (_, k) => b.at(h, k, column));
    if (!values || values.includes(undefined)) return missing();
    return summed(`Each position's number ${column + 1} times its share:`, values.map((x, k) => [`from ${k + 1} ${name_of(k)}`, share[k], x]), []);
  }
  if (unary && a && a.width === out.width) {
    const x = a.at(head, t, column), says = { relu: `max(0, ${figure(x)})`, square: `${figure(x)} squared`, tanh: `tanh(${figure(x)})`, sigmoid: `1 / (1 + e^\u2212(${figure(x)}))`, silu: `x / (1 + e^\u2212x), for x = ${figure(x)}`,
      gelu: `x times the share of the normal distribution that lies below x, for x = ${figure(x)}` + (v.constants.by_tanh ? ": x / 2 \u00d7 (1 + tanh(\u221a(2/\u03c0) (x + 0.044715 x\u00b3)))" : "") };
    return { lines: [says[kind]], value: unary(x) };
  }
  if (v.constants.factor !== undefined && a && a.width === out.width) {
    const x = a.at(head, t, column), by = v.constants.factor, times = s.kind === "mul";
    return { lines: [`${figure(x)} ${times ? "\u00d7" : "/"} ${signed(by)}`], value: times ? x * by : x / by };
  }
  if (["add", "mul"].includes(s.kind) && a && b && a.width === b.width) {
    const x = a.at(head, t, column), y = b.at(head, t, column), plus = s.kind === "add";
    return { lines: [`what came in ${plus ? "+" : "\u00d7"} what was computed: ${figure(x)} ${plus ? "+" : "\u00d7"} ${signed(y)}`], value: plus ? x + y : x * y };
  }
  if (["bigramcounts", "ngram"].includes(kind)) return others("The log of a probability that is worked out of counts of the training text: section 6 shows counts of pairs.");
  return others("How this step computes it is not taken apart here.");
}
// A number of a GRU: its state of the position before, in part kept and in part replaced.
function gru(i, t, column) {
  const v = D.values.steps[i], out = table(v.out), x = v.reads[0] !== undefined && table(v.reads[0])?.row(0, t), n = out.width;
  const before = t ? out.row(0, t - 1) : new Array(n).fill(0), [wx, wh, bx, bh] = v.params.map(matrix);
  if (!x || !before || !wx || !wh || wx.width !== x.length || wx.rows !== 3 * n || v.params.length > 4) return null;
  const dot = (w, bias, row, list) => list.reduce((sum, value, k) => sum + value * w.at(row, k), bias ? bias.at(0, row) : 0);
  const read = (gate) => dot(wx, bx, gate * n + column, x), kept = (gate) => dot(wh, bh, gate * n + column, before);
  const sigmoid = (z) => 1 / (1 + Math.exp(-z)), [r, z] = [0, 1].map((gate) => sigmoid(read(gate) + kept(gate)));
  const own = read(2), past = kept(2), fresh = Math.tanh(own + r * past), was = before[column];
  const gate = (which, value) => `${which}: sigmoid(${figure(read(value))} + ${signed(kept(value))}) = ${figure(value ? z : r)}`;
  return { lines: [`Three rows of ${v.params[0]} times what comes in, and of ${v.params[1]} times the numbers of ${t ? "the position before" : "no position, all 0"}, with their biases, give`,
    gate("how much of the past enters the new number, r", 0), gate("how much of the old number stays, z", 1),
    `the new number: tanh(${figure(own)} + ${signed(r)} \u00d7 ${signed(past)}) = ${figure(fresh)}`,
    `(1 \u2212 z) \u00d7 new + z \u00d7 old = ${figure(1 - z)} \u00d7 ${signed(fresh)} + ${figure(z)} \u00d7 ${signed(was)}`], value: (1 - z) * fresh + z * was };
}
const signed = (x) => (x < 0 ? `(${figure(x)})` : figure(x));
function below(x) {  // the share of the normal distribution below x, but for 1.5e-7: Abramowitz and Stegun 1964, 7.1.26
  const z = Math.abs(x) / Math.SQRT2, t = 1 / (1 + 0.3275911 * z);
  const tail = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592].reduce((sum, c) => sum * t + c, 0) * t * Math.exp(-z * z);
  return x < 0 ? tail / 2 : 1 - tail / 2;
}
const name_of = (t) => name(D.tokens[t].id);
function summed(title, products, more) {  // the largest products by name, the others in one line
  const order = [...products].sort((p, q) => Math.abs(q[1] * q[2]) - Math.abs(p[1] * p[2])), shown = order.slice(0, 6), rest = order.slice(6);
  const sum = (list) => list.reduce((total, [, x, y]) => total + x * y, 0), value = sum(products) + more.reduce((p, [, x]) => p + x, 0);
  const top = Math.max(1e-12, ...shown.map(([, x, y]) => Math.abs(x * y)), Math.abs(sum(rest)));
  const line = (label, text, x) => el("div", { class: "term" }, el("span", {}, label), el("span", { class: "num" }, text),
    el("span", { class: "num" }, figure(x)), el("i", { class: x < 0 ? "below" : "", style: `width:${100 * Math.abs(x) / top}%` }));
  return { lines: [title, el("div", { class: "terms" }, ...shown.map(([label, x, y]) => line(label, `${figure(x)} \u00d7 ${figure(y)}`, x * y)),
    rest.length ? line(`${rest.length} more`, "", sum(rest)) : null, ...more.map(([label, x]) => line(label, "", x)))], value };
}

// The panel below a step without numbers: why there are none.
const noNumbers = (i) => el("div", { class: "numbers" }, el("p", { class: "quiet" }, `No numbers here: ${D.values.steps[i].missing}.`));

// The panel below a step: a table of positions by numbers, and one number taken apart.
let drawNumbers = () => {};  // draws anew what depends on `at`; its slider stays, as it may be held
function numbersOf(i) {
  const s = D.shapes.steps[i], out = table(D.values.steps[i].out), square = isSquare(s), first = Math.max(0, T - out.rows);
  const canvas = el("canvas", { "aria-label": "the numbers of each position", tabindex: 0 });
  const said = el("span", { class: "quiet" }), which = (c) => (square ? `looking at ${c + 1} ${name_of(c)}` : `number ${c + 1}`);
  const cellAt = (event) => { const box = canvas.getBoundingClientRect();
    return [Math.min(T - 1, first + Math.floor((event.clientY - box.top) / box.height * (T - first))), Math.min(out.width - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * out.width)))]; };
  canvas.onpointermove = (event) => { const [p, c] = cellAt(event);
    said.textContent = `${p + 1} ${name_of(p)}, ${which(c)}: ${square && c > p ? "masked" : figure(out.at(Math.min(at.head, out.heads - 1), p, c))}`; };
  canvas.onclick = (event) => { const [p, c] = cellAt(event); go({ t: p, cell: c }); };
  const heads = out.heads < 2 ? [] : Array.from({ length: out.heads }, (_, h) => el("button", { role: "radio", onclick: () => go({ head: h }) }, `head ${h}`));
  const slider = el("input", { type: "range", min: 0, max: out.width - 1, step: 1, "aria-label": "which number", oninput: (event) => go({ cell: +event.target.value }) });
  const label = el("span"), chosen = el("p"), how = el("div", { class: "how" });
  drawNumbers = () => {
    const head = Math.min(at.head, out.heads - 1), column = Math.min(at.cell, out.width - 1), t = Math.max(at.t, first);
    const found = explain(i, head, t, column), masked = square && column > t;
    heads.forEach((button, h) => button.setAttribute("aria-checked", String(h === head)));
    slider.value = column;
    label.textContent = which(column);
    chosen.replaceChildren(el("span", { class: "token" }, `${t + 1} ${name_of(t)}`), ` ${which(column)}: `, el("b", { class: "value" }, masked ? "masked" : figure(out.at(head, t, column))));
    how.replaceChildren(...found.lines.map((line) => (typeof line === "string" ? el("p", {}, line) : line)),
      ...(found.value === null ? [] : [el("p", {}, "= ", el("b", {}, figure(found.value)))]));
    requestAnimationFrame(() => paintNumbers(canvas, out, head, first, t, column, square));
  };
  return el("div", { class: "numbers" }, heads.length ? el("div", { class: "switch", role: "radiogroup", "aria-label": "Head" }, ...heads) : null,
    el("p", { class: "quiet" }, `Down: ${first ? `the last ${T - first} of ` : ""}${T} positions; across: ${square ? "the positions looked at" : `${count(out.width)} numbers of each`}. Colour above 0, grey below. `, said), canvas,
    el("label", { class: "pick" }, slider, label), chosen, how,
    out.sound ? null : el("p", { class: "quiet" }, "Some numbers here are infinite or not a number: they are drawn as 0."));
}
function paintNumbers(canvas, out, head, first, t, column, square) {
  const rows = T - first, ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, tall = Math.max(4, Math.min(18, 420 / rows));
  canvas.style.height = `${Math.round(tall * rows)}px`;
  canvas.width = Math.round(width * ratio); canvas.height = Math.round(tall * rows * ratio);
  const context = canvas.getContext("2d"), above = rgb(ink("--accent")), below = rgb(ink("--ink"));
  const every = [];
  for (let p = first; p < T; p++) for (let c = 0; c < out.width; c++) if (!square || c <= p) every.push(Math.abs(out.at(head, p, c)));
  every.sort((p, q) => p - q);
  const top = every[Math.floor(0.98 * (every.length - 1))] || every[every.length - 1] || 1, w = canvas.width / out.width, h = canvas.height / rows;
  for (let p = first; p < T; p++) for (let c = 0; c < out.width; c++) {
    if (square && c > p) continue;
    const x = out.at(head, p, c), [r, g, b] = x < 0 ? below : above;
    context.fillStyle = `rgba(${r},${g},${b},${Math.min(1, Math.abs(x) / top) * (x < 0 ? 0.7 : 1)})`;
    context.fillRect(Math.floor(c * w), Math.floor((p - first) * h), Math.ceil(w), Math.ceil(h));
  }
  context.strokeStyle = ink("--ink"); context.lineWidth = ratio;
  context.strokeRect(0.5, Math.floor((t - first) * h) + 0.5, canvas.width - 1, Math.max(3, h - 1));
  context.lineWidth = 2 * ratio;
  context.strokeRect(Math.floor(column * w), Math.floor((t - first) * h), Math.max(4 * ratio, w), Math.max(4 * ratio, h));
}
