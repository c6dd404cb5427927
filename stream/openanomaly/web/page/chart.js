// The chart of one series: value and expected band above, scores below, one time axis.
// Drawn in pixels of its place, so text and dots keep their shape. Nothing is drawn between steps
// that are further apart than a step: what did not come is a gap.

import { clock, short } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const PLOT = 104, GAP = 10, STRIP = 30, TOP = 8, EDGE = 50;
const HEIGHT = TOP + PLOT + GAP + STRIP + 18;

function node(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const isNumber = (x) => typeof x === "number" && Number.isFinite(x);

/** Indices in runs without a gap in time and without an unknown value. */
function runs(steps, stepMs, isKnown) {
  const out = [];
  let run = [];
  steps.time_ms.forEach((time, i) => {
    if (run.length && time - steps.time_ms[run.at(-1)] > 1.5 * stepMs) run = [];
    if (!isKnown(i)) { run = []; return; }
    if (!run.length) out.push(run);
    run.push(i);
  });
  return out;
}

/** What the vertical axis spans: all values, and the band as far as it does not dwarf them; null if unknown. */
function span(steps) {
  const values = steps.value.filter(isNumber);
  const band = [...steps.lower, ...steps.upper].filter(isNumber);
  if (!values.length && !band.length) return null;
  const inner = values.length ? values : band;
  let [low, high] = [Math.min(...inner), Math.max(...inner)];
  const room = high - low;
  const [bandLow, bandHigh] = [Math.min(low, ...band), Math.max(high, ...band)];
  const most = room > 0 ? 1.5 * room : Infinity;
  [low, high] = [Math.max(bandLow, low - most), Math.min(bandHigh, high + most)];
  if (!(high > low)) { const pad = Math.abs(low) * 0.05 || 1; return [low - pad, high + pad]; }
  const pad = (high - low) * 0.06;
  return [low - pad, high + pad];
}

export function draw(svg, anomaly, alertScore, width, tell) {
  const { steps, step_ms: stepMs } = anomaly;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.setAttribute("width", width);
  svg.setAttribute("height", HEIGHT);
  const count = steps.time_ms.length;
  if (!count) return;
  const first = steps.time_ms[0] - stepMs / 2, last = steps.time_ms[count - 1] + stepMs / 2;
  const known = span(steps);
  const [low, high] = known ?? [0, 1];
  const x = (time) => EDGE + ((time - first) / (last - first)) * (width - EDGE);
  const y = (value) => TOP + PLOT - ((value - low) / (high - low)) * PLOT;
  const inside = (value) => Math.max(TOP, Math.min(TOP + PLOT, y(value)));
  const half = Math.max(0.75, (x(steps.time_ms[0] + stepMs) - x(steps.time_ms[0])) / 2);
  const at = (i) => x(steps.time_ms[i]);
  const f = (v) => v.toFixed(1);
  const floor = TOP + PLOT + GAP + STRIP;

  for (const run of runs(steps, stepMs, (i) => steps.is_open[i])) {
    const [left, right] = [at(run[0]) - half, at(run.at(-1)) + half];
    svg.append(node("rect", { class: "episode", x: f(left), y: 0, width: f(right - left), height: floor }));
  }
  svg.append(node("line", { class: "axis", x1: EDGE, x2: width, y1: TOP + PLOT + 0.5, y2: TOP + PLOT + 0.5 }));

  for (const run of runs(steps, stepMs, (i) => isNumber(steps.lower[i]) && isNumber(steps.upper[i]))) {
    const ends = run.length > 1 ? run.map((i) => [at(i), i]) : [[at(run[0]) - half, run[0]], [at(run[0]) + half, run[0]]];
    const upper = ends.map(([px, i]) => `${f(px)},${f(inside(steps.upper[i]))}`);
    const lower = ends.map(([px, i]) => `${f(px)},${f(inside(steps.lower[i]))}`).reverse();
    svg.append(node("path", { class: "band", d: `M${upper.join("L")}L${lower.join("L")}Z` }));
  }
  for (const run of runs(steps, stepMs, (i) => isNumber(steps.median[i]))) {
    if (run.length > 1) svg.append(node("path", { class: "median", d: `M${run.map((i) => `${f(at(i))},${f(inside(steps.median[i]))}`).join("L")}` }));
  }
  for (const run of runs(steps, stepMs, (i) => isNumber(steps.value[i]))) {
    if (run.length > 1) svg.append(node("path", { class: "value", d: `M${run.map((i) => `${f(at(i))},${f(y(steps.value[i]))}`).join("L")}` }));
    else svg.append(node("circle", { class: "lone", cx: f(at(run[0])), cy: f(y(steps.value[run[0]])), r: 2 }));
  }

  const tall = (score) => Math.max(1, Math.sqrt(Math.min(Math.max(score, 0), 10) / 10) * STRIP);
  const bar = Math.max(1, Math.min(2 * half - (half > 1.5 ? 1 : 0), 9));
  const dot = Math.min(3, Math.max(1.8, half));
  steps.score.forEach((score, i) => {
    if (!isNumber(score)) return;
    const isHigh = score > alertScore;
    svg.append(node("rect", {
      class: isHigh ? "bar high" : "bar", x: f(at(i) - bar / 2), width: f(bar), y: f(floor - tall(score)), height: f(tall(score)),
    }));
    if (isHigh && isNumber(steps.value[i])) svg.append(node("circle", { class: "odd", cx: f(at(i)), cy: f(y(steps.value[i])), r: dot }));
  });
  for (const run of runs(steps, stepMs, (i) => !steps.has_forecast[i])) {
    svg.append(node("rect", { class: "blind", x: f(at(run[0]) - half), width: f(at(run.at(-1)) - at(run[0]) + 2 * half), y: floor + 1, height: 3 }));
  }
  const limit = floor - tall(alertScore);
  svg.append(node("line", { class: "alert", x1: EDGE, x2: width, y1: f(limit), y2: f(limit) }));

  const tick = (text, px, py, anchor) => svg.append(node("text", { class: "tick", x: px, y: py, "text-anchor": anchor }, text));
  if (known) {
    tick(short(high), EDGE - 6, TOP + 9, "end");
    tick(short(low), EDGE - 6, TOP + PLOT, "end");
  }
  tick("score", EDGE - 6, floor, "end");
  tick(clock(steps.time_ms[0], stepMs), EDGE, HEIGHT - 2, "start");
  tick(clock(steps.time_ms[count - 1], stepMs), width - 1, HEIGHT - 2, "end");

  const cursor = node("line", { class: "cursor", y1: 0, y2: floor, visibility: "hidden" });
  svg.append(cursor);
  svg.onpointermove = (event) => {
    const time = first + ((event.offsetX - EDGE) / (width - EDGE)) * (last - first);
    let best = 0;
    steps.time_ms.forEach((t, i) => { if (Math.abs(t - time) < Math.abs(steps.time_ms[best] - time)) best = i; });
    cursor.setAttribute("x1", f(at(best)));
    cursor.setAttribute("x2", f(at(best)));
    cursor.setAttribute("visibility", "visible");
    tell(best);
  };
  svg.onpointerleave = () => { cursor.setAttribute("visibility", "hidden"); tell(null); };
}
