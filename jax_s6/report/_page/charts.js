"use strict";
// Line charts by uPlot in the colours of the page, with a box that shows the values at the mouse or the arrow keys.

const charts = new Map();
const dark = matchMedia("(prefers-color-scheme: dark)");
const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
/** Returns a colour for line k of n, for the light or the dark scheme. */
const lineColour = (k, n) => `hsl(${Math.round(265 - (225 * k) / Math.max(1, n - 1))} 70% ${dark.matches ? 62 : 42}%)`;

/** Writes the numbers of an axis; on a linear axis all have the same number of decimals. */
function writeTicks(splits, log) {
  const short = splits.map((v) => (v == null ? null : `${+v.toPrecision(4)}`));
  const decimals = Math.max(0, ...short.map((text) => (text?.split(".")[1] ?? "").length));
  return log ? short : splits.map((v) => v?.toFixed(decimals) ?? null);
}

/** Drops numbers of the x axis that would overlap the number to their left. */
function withoutCollisions(u, splits) {
  let last = -Infinity;
  return splits.map((value) => {
    const place = u.valToPos(value, "x");
    return place - last < 36 ? null : ((last = place), value);
  });
}

/** Draws or redraws a chart. lines: [{label, values, colour, shown, points, dash}]; labels: {x, y, legend, describe(value)}. */
function drawChart(id, x, lines, labels) {
  charts.set(id, { x, lines, labels });
  const host = document.getElementById(id), tip = Object.assign(document.createElement("div"), { className: "tip" });
  const axis = { stroke: colourOf("--soft"), grid: { stroke: colourOf("--line"), width: 1 }, ticks: { stroke: colourOf("--line") } };
  const size = () => ({ width: Math.max(240, host.clientWidth), height: host.clientWidth < 480 ? 260 : 340 });
  host.chart?.destroy();
  host.replaceChildren(tip);
  const plot = new uPlot({
    ...size(), legend: { show: labels.legend === true, live: false }, padding: [8, 12, 0, 0],
    scales: { x: { time: false, distr: labels.logX ? 3 : 1, ...(labels.logX ? { range: (_, low, high) => [low / 1.15, high * 1.15] } : {}) }, y: { distr: labels.logY ? 3 : 1 } },
    axes: [{ ...axis, label: labels.x, values: (_, splits) => writeTicks(splits, labels.logX), ...(labels.wholeX ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000] } : {}),
      ...(labels.logX && x.length <= 12 ? { splits: () => x, filter: withoutCollisions } : {}) }, { ...axis, label: labels.y, size: 66, values: (_, splits) => writeTicks(splits, labels.logY) }],
    cursor: { drag: { x: true, y: false }, focus: { prox: 1e6 } },
    series: [{}, ...lines.map((line) => ({
      label: line.label, class: line.points ? "points" : "line", show: line.shown !== false, stroke: line.colour, width: line.points ? 0 : 2, dash: line.dash,
      spanGaps: true, paths: line.points ? () => null : undefined, points: { show: line.points || x.length < 60, size: 6, fill: line.colour },
    }))],
    hooks: { setCursor: [(u) => showTip(u, tip, lines, labels)] },
  }, [x, ...lines.map((line) => line.values)], host);
  host.chart = plot;
  host.tabIndex = 0;
  host.setAttribute("role", "img");
  host.setAttribute("aria-label", `${labels.y} against ${labels.x}; the left and right arrow keys show values`);
  host.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = Math.min(Math.max((plot.cursor.idx ?? -1) + step, 0), x.length - 1);
    const first = lines.findIndex((line) => line.shown !== false && line.values[at] != null);
    const top = first < 0 ? 0 : plot.valToPos(lines[first].values[at], "y");
    plot.setCursor({ left: plot.valToPos(x[at], "x"), top });
  };
  host.watch?.disconnect();
  host.watch = new ResizeObserver(() => plot.width !== size().width && plot.setSize(size()));
  host.watch.observe(host);
}

/** Shows the values of all lines at the cursor, or with more than eight lines that of the nearest one. */
function showTip(u, tip, lines, labels) {
  const { idx, left, top } = u.cursor;
  let shown = lines.filter((line) => line.shown !== false && idx != null && line.values[idx] != null);
  if (left < 0 || idx == null || shown.length === 0) { tip.style.display = "none"; return; }
  if (shown.length > 8) {
    const distance = (line) => Math.abs(u.valToPos(line.values[idx], "y") - top);
    shown = [shown.reduce((a, b) => (distance(b) < distance(a) ? b : a))];
  }
  const number = labels.describe ?? ((v) => `${+v.toPrecision(5)}`);
  tip.textContent = [`${labels.x} ${+u.data[0][idx].toPrecision(4)}`, ...shown.map((l) => `${l.label}: ${number(l.values[idx], idx)}`)].join("\n");
  tip.style.display = "block";
  const over = u.over.getBoundingClientRect(), host = tip.parentElement.getBoundingClientRect();
  const x = over.left - host.left + left, room = host.width - tip.offsetWidth;
  tip.style.left = `${Math.max(0, Math.min(x + 14 > room ? x - tip.offsetWidth - 14 : x + 14, room))}px`;
  tip.style.top = `${Math.max(0, over.top - host.top + top - 30)}px`;
}
