"use strict";
// Fills the page from its data, and predicts what is drawn.

const report = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const percent = (value, digits = 2) => `${(100 * value).toFixed(digits)} %`;
const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const make = (tag, text = "", className = "") => Object.assign(document.createElement(tag), { textContent: text, className });

function fillTable(id, head, rows, numeric = []) {
  const cell = (tag, value, k) => value instanceof Node ? value : make(tag, value, numeric.includes(k) ? "n" : "");
  const line = (tag, values) => { const tr = make("tr"); tr.append(...values.map((v, k) => cell(tag, v, k))); return tr; };
  const [thead, tbody] = [make("thead"), make("tbody")];
  if (head) thead.append(line("th", head));
  tbody.append(...rows.map((row) => line("td", row)));
  find(id).replaceChildren(thead, tbody);
}

function pixels(values, size, colour) {
  const canvas = Object.assign(make("canvas", "", "pixels"), { width: size, height: size });
  const image = new ImageData(size, size);
  values.forEach((v, k) => image.data.set([...colour(v), 255], 4 * k));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// The drawing.
const paper = find("paper"), pen = paper.getContext("2d", { willReadFrequently: true });
let layers = [], network = null, at = null, keys = { x: 140, y: 60, down: true };

function decodeLayers(model) {
  const floats = new Float32Array(bytesOf(model.weights).buffer);
  let start = 0;
  const take = (count) => floats.subarray(start, (start += count));
  return report.architecture.map(({ channels, stride, pool }) =>
    ({ kernel: take(9 * channels * 16), bias: take(16), scale: take(16), shift: take(16), stride, pool }));
}

/** Returns the ink of the drawing, [280][280] in [0, 1]. */
function inkOnPaper() {
  const { data } = pen.getImageData(0, 0, paper.width, paper.height);
  return Float32Array.from({ length: paper.width * paper.height }, (_, k) => data[4 * k + 3] / 255);
}

const probabilitiesOf = (image) => softmax(forward(image, layers, report.mean, report.std));

function predict() {
  const image = toDigit(inkOnPaper(), paper.width, paper.height);
  const shown = image ? probabilitiesOf(image) : new Array(16).fill(0);
  const best = shown.indexOf(Math.max(...shown));
  find("prediction").textContent = image ? `${network.class_names[best]}  (probability ${percent(shown[best], 1)})` : "The prediction appears here.";
  find("bars").replaceChildren(...network.class_names.slice(0, 10).map((name, k) => {
    const row = make("li"), bar = make("span", "", "bar"), fill = make("i");
    fill.style.width = `${100 * shown[k]}%`;
    bar.append(fill);
    row.append(make("span", name), bar, make("span", percent(shown[k], 1)));
    return row;
  }));
  const seen = pixels(Array.from(image ?? new Uint8Array(784)), 28, (v) => [v, v, v]);
  find("seen").getContext("2d").drawImage(seen, 0, 0);
}

function stroke(x, y) {
  Object.assign(pen, { lineWidth: 22, lineCap: "round", lineJoin: "round", strokeStyle: "#000" });
  pen.beginPath();
  pen.moveTo(at?.x ?? x, at?.y ?? y);
  pen.lineTo(x, y);
  pen.stroke();
  at = { x, y };
}

const place = (event) => {
  const box = paper.getBoundingClientRect();
  return [((event.clientX - box.left) * paper.width) / box.width, ((event.clientY - box.top) * paper.height) / box.height];
};
paper.onpointerdown = (event) => { paper.setPointerCapture(event.pointerId); at = null; stroke(...place(event)); };
paper.onpointermove = (event) => { if (event.buttons) for (const e of event.getCoalescedEvents?.() ?? [event]) stroke(...place(e)); };
paper.onpointerup = () => { at = null; predict(); };
paper.onpointercancel = paper.onpointerup;
paper.onkeydown = (event) => {
  const move = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] }[event.key];
  if (!move && ![" ", "Delete", "Backspace"].includes(event.key)) return;
  event.preventDefault();
  if (!move && event.key !== " ") return clear();
  if (!move) { keys.down = !keys.down; at = null; find("prediction").textContent = keys.down ? "The pen is down." : "The pen is up."; return; }
  const from = { ...keys };
  keys.x = Math.min(Math.max(keys.x + move[0], 12), 268);
  keys.y = Math.min(Math.max(keys.y + move[1], 12), 268);
  if (keys.down) { at = from; stroke(keys.x, keys.y); at = null; predict(); }
};
function clear() {
  pen.clearRect(0, 0, paper.width, paper.height);
  [at, keys] = [null, { x: 140, y: 60, down: true }];
  predict();
}
find("clear").onclick = clear;

// What depends on the chosen network.
function showModel(index) {
  network = report.models[index];
  layers = decodeLayers(network);
  const verdict = (met) => make("td", met ? "met" : "not met", met ? "met" : "missed");
  fillTable("score", ["requirement", "this run", ""], network.score_card.map(([asked, got, met]) => [asked, got, verdict(met)]));
  showConfusion();
  const [wrong, all] = [network.num_mistakes, network.num_images].map((count) => count.toLocaleString("en"));
  find("mistaken").textContent = `${wrong} of ${all} test images are predicted wrongly.`
    + (network.mistakes.length ? ` These are the ${network.mistakes.length} with the most probable predictions: label → prediction, probability.` : "");
  find("mistakes").replaceChildren(...network.mistakes.map(({ image, label, prediction, probability }) => {
    const figure = make("figure");
    const picture = pixels(Array.from(bytesOf(image)), 28, (v) => [v, v, v]);
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", `label ${network.class_names[label]}, predicted ${network.class_names[prediction]}`);
    figure.append(picture, make("figcaption", `${network.class_names[label]} → ${network.class_names[prediction]}, ${percent(probability, 0)}`));
    return figure;
  }));
  showCalibration();
  const largest = Math.max(...layers[0].kernel.map(Math.abs));
  const shade = (v) => { const t = v / largest, fade = 255 * (1 - Math.abs(t)); return t > 0 ? [255, fade, fade] : [fade, fade, 255]; };
  find("filters").replaceChildren(...Array.from({ length: 16 }, (_, o) =>
    pixels(Array.from({ length: 9 }, (_, tap) => layers[0].kernel[tap * 16 + o]), 3, shade)));
  fillTable("settings", ["setting", "value"], network.settings);
  clear();
}

function showConfusion() {
  const names = network.class_names.slice(0, network.confusion.length);
  const rows = network.confusion.map((row, label) => {
    const total = row.reduce((a, b) => a + b, 0);
    return [make("th", names[label]), ...row.map((count, prediction) => {
      const cell = make("td", count || "·"), share = count / Math.max(1, total);
      const [hue, strength] = label === prediction ? ["--cell", 0.35 * share] : ["--wrong", Math.min(0.8, 25 * share)];
      cell.style.background = `rgba(${colourOf(hue)}, ${strength})`;
      cell.title = `label ${names[label]}, predicted ${names[prediction]}: ${count} images`;
      return cell;
    })];
  });
  fillTable("confusion", ["", ...names], rows);
  fillTable("classes", ["class", "images", "correct", "accuracy"], network.confusion.map((row, k) => {
    const total = row.reduce((a, b) => a + b, 0);
    return [names[k], total, row[k], total ? percent(row[k] / total) : "none"];
  }), [1, 2, 3]);
}

function showCalibration() {
  const bins = network.calibration;
  find("ece").textContent = `How often predictions of a given probability are correct, in ten bins of the probability. The expected calibration error, the mean distance to the dashed line weighted by the number of images, is ${percent(network.ece)}.`;
  drawChart("calibration", bins.map((bin) => bin.confidence), [
    { label: "perfectly calibrated", values: bins.map((bin) => bin.confidence), colour: colourOf("--soft"), dash: [6, 4] },
    { label: "this network", values: bins.map((bin) => bin.accuracy), colour: colourOf("--accent") },
  ], { x: "probability of the prediction", y: "accuracy", legend: true, describe: (v, k) => `${percent(v)} of ${bins[k].count} images` });
}

// What depends on the runs and sweeps.
const shownLanes = new Set(report.lanes.keys());

function showCurves() {
  const metric = find("metric").value, count = report.lanes.length;
  const longest = Math.max(1, ...report.lanes.map((lane) => lane.metrics[metric]?.length ?? 0));
  const lines = report.lanes.map((lane, k) => ({
    label: lane.label, colour: lineColour(k, count), shown: shownLanes.has(k),
    values: Array.from({ length: longest }, (_, i) => lane.metrics[metric]?.[i] ?? null),
  }));
  const loss = metric.endsWith("loss");
  const scaled = lines.map((line) => ({ ...line, values: line.values.map((v) => (v == null || (loss && v <= 0) ? null : loss ? v : 100 * v)) }));
  const drawable = loss && scaled.some((line) => line.shown && line.values.some((v) => v != null));
  drawChart("curves", Array.from({ length: longest }, (_, i) => i + 1), scaled,
    { x: "epoch", y: metric.replace("_", " ") + (loss ? "" : " (%)"), logY: drawable, wholeX: true });
}

function fillLanes() {
  const metrics = Object.keys(Object.assign({}, ...report.lanes.map((lane) => lane.metrics)));
  find("curves-section").hidden = metrics.length === 0;
  if (metrics.length === 0) return;
  find("metric").replaceChildren(...metrics.map((name) => new Option(name.replace("_", " "), name, false, name === "test_accuracy")));
  find("metric").onchange = showCurves;
  const boxes = report.lanes.map((lane, k) => {
    const label = make("label"), box = Object.assign(make("input"), { type: "checkbox", checked: true }), key = make("i");
    key.style.background = lineColour(k, report.lanes.length);
    box.onchange = () => { shownLanes[box.checked ? "add" : "delete"](k); showCurves(); };
    label.append(box, key, lane.label);
    return label;
  });
  find("lanes").append(...boxes);
  for (const [id, on] of [["all", true], ["none", false]])
    find(id).onclick = () => {
      boxes.forEach((label, k) => { label.firstChild.checked = on; shownLanes[on ? "add" : "delete"](k); });
      showCurves();
    };
  find("left-out").textContent = report.lanes_left_out ? `${report.lanes_left_out} lanes are left out of this chart: it has lanes evenly chosen from the best to the worst.` : "";
  showCurves();
}

function showRates() {
  const kept = report.results.filter((r) => !r.diverged), rates = [...new Set(kept.map((r) => r.learning_rate))].sort((a, b) => a - b);
  const lost = report.results.filter((r) => r.diverged).map((r) => r.learning_rate);
  find("rates-section").hidden = new Set(report.results.map((r) => r.learning_rate)).size < 2 || rates.length === 0;
  find("lost").textContent = lost.length ? `Lanes that diverged and are not shown: ${lost.length}, at learning rate ${[...new Set(lost)].join(", ")}.` : "";
  if (find("rates-section").hidden) return;
  const names = [...new Set(kept.map((r) => r.folder))];
  const lines = names.flatMap((name, n) => {
    const scores = rates.map((rate) => kept.filter((r) => r.folder === name && r.learning_rate === rate).map((r) => 100 * r.test_accuracy));
    const colour = names.length < 2 ? colourOf("--accent") : lineColour(n, names.length), most = Math.max(...scores.map((s) => s.length));
    const mean = scores.map((s) => (s.length ? s.reduce((a, b) => a + b) / s.length : null));
    const dots = most < 2 ? [] : Array.from({ length: Math.min(40, most) }, (_, k) => ({ label: `${name}, lane`, values: scores.map((s) => s[k] ?? null), colour, points: true }));
    return [{ label: most < 2 ? name : `${name}, mean`, values: mean, colour }, ...dots];
  });
  drawChart("rates", rates, lines, { x: "learning rate", y: "final test accuracy (%)", logX: rates[0] > 0, legend: names.length > 1 });
}

function showPart1() {
  const { learning_rates: rates, errors } = report.part1;
  drawChart("part1", errors[0].map((_, k) => k), rates.map((rate, k) => ({ label: `learning rate ${rate}`, values: errors[k], colour: lineColour(k, rates.length) })),
    { x: "iteration", y: "total error E", wholeX: true, legend: true });
}

find("about").textContent = report.about;
find("choose").hidden = report.models.length < 2;
find("model").replaceChildren(...report.models.map((model, k) => new Option(model.name, k)));
find("model").onchange = (event) => showModel(Number(event.target.value));
fillTable("layers", ["block", "layer", "output", "receptive field", "stride", "parameters"], report.layers, [2, 3, 4, 5]);
fillLanes();
showRates();
showPart1();
showModel(0);
dark.addEventListener("change", () => { showRates(); showPart1(); showConfusion(); showCalibration(); if (report.lanes.length) showCurves(); });
