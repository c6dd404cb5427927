// The status page: asks for /api/v1/anomalies every two seconds and shows it.
// Labels are untrusted: text goes into the page as text, never as markup.

import { draw } from "./chart.js";
import { clock, count, many, moment, number, percent, span } from "./text.js";

const EVERY_MS = 2000, HIDDEN_EVERY_MS = 15000, TIMEOUT_MS = 10000, PAGE = 20, MOST = 200, STEPS = 90, POINTS = 12000, BEHIND_MS = 10000;
const $ = (id) => document.getElementById(id);

/** An element; `props` are attributes, `on...` are handlers, children are nodes or text. */
function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Put `children` in place, unless the same is there: what is selected or has the focus stays. */
function fill(element, ...children) {
  const fresh = [...h("div", {}, ...children).childNodes], old = [...element.childNodes];
  if (fresh.length === old.length && fresh.every((node, i) => node.isEqualNode(old[i]))) return;
  const focused = element.contains(document.activeElement) ? document.activeElement.getAttribute("data-group") : null;
  element.replaceChildren(...fresh);
  if (focused !== null) element.querySelector(`[data-group="${CSS.escape(focused)}"]`)?.focus();
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// -- asking ---------------------------------------------------------------------------------------

const asked = new URLSearchParams(location.search);
const filter = {
  match: asked.get("match") || "",
  state: ["open", "ended"].includes(asked.get("state")) ? asked.get("state") : "all",
  group: asked.get("group"),
  limit: PAGE,
};
let shown = null, before = null, rate = null, skewMs = 0, lostAtMs = null, heardAtMs = null, timer = 0, turn = 0;

function query() {
  const parameters = new URLSearchParams({ limit: filter.limit, steps: Math.min(STEPS, Math.floor(POINTS / filter.limit)) });
  if (filter.match) parameters.set("match", filter.match);
  if (filter.state !== "all") parameters.set("state", filter.state);
  if (filter.group !== null) parameters.set("group", filter.group);
  return parameters;
}

async function ask() {
  clearTimeout(timer);
  const mine = ++turn;
  try {
    // Not relative: browsers refuse that where the address of the page has a password in it.
    const api = new URL("api/v1/anomalies", location.origin + location.pathname);
    const answer = await fetch(`${api}?${query()}`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (mine !== turn) return; // a newer question is on its way
    if (answer.status === 400) {
      setText($("match-error"), (await answer.text()).trim());
      heardAtMs = Date.now();
      lost(null);
    } else if (answer.ok) {
      const found = await answer.json();
      if (mine !== turn) return;
      heardAtMs = Date.now();
      lost(null);
      setText($("match-error"), "");
      take(found);
    } else {
      lost(answer.status === 401 ? "the server wants credentials: load the page again" : `the server answers ${answer.status}`);
    }
  } catch {
    if (mine === turn) lost("no answer from the server");
  }
  if (mine === turn) timer = setTimeout(ask, document.hidden ? HIDDEN_EVERY_MS : EVERY_MS);
}

function take(found) {
  // What has not changed comes from the browser's cache, with the time at which it was new.
  if (!shown || found.now_ms !== shown.now_ms) {
    skewMs = found.now_ms - Date.now();
    const total = found.watched.samples ?? found.summary.scores.in;
    if (!before || total < before.total) { before = { total, ms: found.now_ms }; rate = null; }
    else if (found.now_ms - before.ms >= 1500) {
      rate = ((total - before.total) / (found.now_ms - before.ms)) * 1000;
      before = { total, ms: found.now_ms };
    }
  }
  else if (Date.now() + skewMs - found.now_ms > 3000) rate = 0;
  shown = found;
  render();
}

const nowMs = () => Date.now() + skewMs;

let lostWhy = null;
function lost(why) {
  if (why !== null && lostAtMs === null) lostAtMs = Date.now();
  if (why === null) lostAtMs = null;
  lostWhy = why;
  document.body.classList.toggle("old", why !== null && shown !== null);
  notices();
}

// -- notices --------------------------------------------------------------------------------------

function notices() {
  const out = [];
  const notice = (kind, title, text) => out.push(h("p", { class: `notice ${kind}` }, h("strong", {}, title), ` ${text}`));
  if (lostWhy !== null) {
    const old = shown ? `What you see is from ${clock(heardAtMs)} and old. ` : "";
    notice("bad", "Connection lost:", `${lostWhy}. ${old}Trying again.`);
  }
  if (shown && lostWhy === null) {
    const { health, forecasts } = shown;
    if (!health.scores.is_connected) {
      notice("bad", "Scores cannot be read:", `the broker does not answer since ${moment(health.scores.since_ms, nowMs())}. What you see is old. Trying again.`);
    }
    for (const [room, why] of Object.entries(health.reasons)) notice("warn", `Not ready, ${room}:`, `${why}.`);
    if (forecasts.share_without >= 0.05) {
      notice("warn", `${percent(forecasts.share_without)} of series are judged without a forecast:`, "inference is away or behind, or these series are young. Scores go on from their values alone.");
    }
    for (const pipeline of silent()) {
      const which = shown.pipelines.length > 1 ? ` of ${pipeline.name}` : "";
      notice("warn", `No score${which} has come for ${span(nowMs() - pipeline.seen_ms)}:`, `what you see is of ${moment(pipeline.seen_ms, nowMs())}. Do samples still come, and do the windows run?`);
    }
    const { unread, behind_s: behindS } = health.scores;
    if (behindS * 1000 >= BEHIND_MS) notice("warn", "Catching up:", `what you see is ${span(behindS * 1000)} behind. ${many(unread, "record")} of scores ${unread === 1 ? "is" : "are"} not read yet.`);
    for (const lag of late()) notice("warn", `Late, ${room(lag)}:`, `${many(lag.unread, "record")} ${lag.unread === 1 ? "is" : "are"} not read yet, the oldest of ${span(lag.oldest_s * 1000)} ago.`);
  }
  fill($("notices"), ...out);
}

/** For how long a pipeline may be silent: as for a series (core/presence.py). */
const patience = (stepMs) => Math.max(5 * stepMs, 60000);

/** Pipelines of which nothing has come for longer than a few of their own steps. */
function silent() {
  const names = new Set(shown.watched.pipelines.map((p) => p.name));
  const configured = shown.pipelines.filter((p) => names.has(p.name));
  // Where only episodes are emitted, and by a release that tells no more, normal series are silent.
  return (configured.length ? configured : shown.pipelines).filter((p) => (p.emits !== "episodes" || p.warming) && p.seen_ms && nowMs() - p.seen_ms > patience(p.step_ms));
}

/** Rooms before the scores that have not read what came long ago. */
function late() {
  const longest = patience(Math.max(0, ...shown.watched.pipelines.map((p) => p.step_ms)));
  return shown.health.lag.filter((lag) => lag.role === "window" && lag.unread && lag.oldest_s * 1000 > longest);
}

/** Whether we show what was, and cannot say what is. */
function isOld() {
  const { scores } = shown.health;
  return !scores.is_connected || scores.behind_s * 1000 >= BEHIND_MS || late().length > 0 || silent().length > 0;
}

// -- the page -------------------------------------------------------------------------------------

function render() {
  $("main").hidden = false;
  const { summary } = shown;
  const seen = summary.seen_ms === null ? "" : `last step ${span(nowMs() - summary.seen_ms)} ago`;
  setText($("fresh"), seen);
  notices();
  headline();
  tiles();
  groups();
  health();
  cards();
}

function headline() {
  const { summary } = shown;
  const phase = emptyPhase(), old = isOld(), gone = summary.away;
  let text = "Everything is normal";
  const [worst] = shown.groups;
  const isIncident = worst && worst.name && worst.anomalous > 2 && worst.anomalous > summary.anomalous / 2 && shown.groups.length > 1;
  const where = !isIncident ? "" : worst.anomalous === summary.anomalous ? `, all of ${worst.name}` : `, ${count(worst.anomalous)} of ${worst.name}`;
  if (summary.anomalous) text = `${many(summary.anomalous, "series", "series")} ${old ? (summary.anomalous === 1 ? "was" : "were") : summary.anomalous === 1 ? "is" : "are"} anomalous${where}${gone ? `, and ${count(gone)} went away while anomalous` : ""}`;
  else if (gone) text = `${many(gone, "series", "series")} went away while anomalous`;
  else if (phase === "nothing") text = "Waiting for the first samples";
  else if (phase === "resting") text = "Waiting for the next step";
  else if (phase !== "normal") text = "Getting to know your series";
  else if (old) text = "What is now is not known";
  setText($("headline"), text);
  $("headline").className = summary.anomalous ? "bad" : phase === "normal" && !old && !gone ? "good" : "";
  document.title = summary.anomalous ? `(${count(summary.anomalous)}) OpenAnomaly` : "OpenAnomaly";
}

function tiles() {
  const { watched, summary, forecasts, pipelines } = shown;
  const known = watched.series ?? (pipelines.every((p) => p.series !== null) ? summary.series : null);
  const tile = (name, value, note, kind = "") => h("div", { class: `tile ${kind}` }, h("dt", {}, name), h("dd", {}, value, note ? h("small", {}, note) : null));
  const names = watched.pipelines.map((p) => p.name);
  const share = known && summary.anomalous ? ` of ${count(known)}` : "";
  fill(
    $("tiles"),
    tile("Anomalous now", count(summary.anomalous), share, summary.anomalous ? "bad" : ""),
    tile("Series watched", count(known), names.length === 1 ? ` by ${names[0]}` : ` by ${names.length} pipelines`),
    tile(watched.samples === null ? "Scores per second" : "Samples per second", rate === null ? "–" : rate > 0 && rate < 1 ? "< 1" : count(Math.round(rate))),
    tile("Judged without forecast", percent(forecasts.share_without), forecasts.without ? ` ${count(forecasts.without)} series` : "", forecasts.share_without >= 0.05 ? "warn" : ""),
  );
}

function groups() {
  const { groups: found, groups_left_out: leftOut } = shown;
  $("groups").hidden = !found.length;
  const row = (group) => {
    const name = group.name === null ? "other groups" : group.name || "(no name)";
    const told = group.series === null ? many(group.anomalous, "anomaly", "anomalies") : `${count(group.anomalous)} of ${count(group.series)}`;
    const wide = Math.max(group.share ? 2 : 0, Math.round((group.share || 0) * 100));
    return h("li", { class: group.anomalous ? "odd" : "" }, h(
      "button",
      { type: "button", "data-group": group.name === null ? "" : group.name, "aria-pressed": String(filter.group === group.name), disabled: group.name === null, title: group.label ? `${group.label}="${group.name}"` : null },
      h("span", { class: "name" }, name), h("span", { class: "share" }, `${told} `, group.share === null ? null : h("b", {}, percent(group.share))),
      group.share === null ? null : h("progress", { max: 100, value: wide, "aria-hidden": "true" }),
    ));
  };
  const partial = found.some((group) => group.series === null);
  fill(
    $("groups-body"),
    h("ul", { class: "groups" }, ...found.map(row)),
    leftOut ? h("p", { class: "quiet" }, `${many(leftOut, "more group")} not listed.`) : null,
    partial ? h("p", { class: "quiet" }, "Where only episodes are emitted, the number of normal series of a group is not known here.") : null,
  );
}

$("groups-body").addEventListener("click", (event) => {
  const button = event.target.closest("button[data-group]");
  if (!button) return;
  const name = button.getAttribute("data-group");
  change({ group: filter.group === name ? null : name });
});

const ROOMS = { window: "windows", infer: "inference", sink: "sink", ingest: "receiver" };
const room = (lag) => `${ROOMS[lag.role] ?? lag.role}, ${lag.topic}`;

function health() {
  const { health: state } = shown;
  const line = (kind, name, text) => h("li", { class: kind }, h("span", { class: "name" }, name), h("span", {}, text));
  const reasons = Object.entries(state.reasons);
  const behind = state.lag.filter((lag) => lag.oldest_s >= 30);
  const out = [
    state.is_ready ? line("good", "Process", "ready") : null,
    ...reasons.map(([room, why]) => line("bad", room, why)),
  ];
  const { target, models, scores } = state;
  if (target.is_up !== null) {
    out.push(!target.is_set ? line("plain", "Target", "none set: scores are counted, not written") : target.is_up ? line("good", "Target", "takes scores") : line("bad", "Target", "does not take scores"));
  }
  if (models) {
    const text = Object.entries(models).map(([asked, name]) => (asked === name ? name : `${name} (${asked})`)).join(", ");
    out.push(line("good", "Forecasts by", text || "no model"));
  }
  out.push(scores.is_connected ? line("good", "Scores", "are read as they come") : line("bad", "Scores", "cannot be read"));
  if (scores.rejected) out.push(line("warn", "Scores", `${many(scores.rejected, "record")} could not be read`));
  if (scores.missed) out.push(line("warn", "Scores", `${many(scores.missed, "record")} were deleted before they were read`));
  const lags = state.lag.map((lag) => h(
    "tr", { class: behind.includes(lag) ? "bad" : "" },
    h("th", { scope: "row" }, room(lag)),
    h("td", {}, count(lag.unread)),
    h("td", {}, lag.unread ? span(lag.oldest_s * 1000) : "–"),
  ));
  fill(
    $("health-body"),
    h("ul", { class: "state" }, ...out),
    lags.length ? h(
      "table", {},
      h("caption", {}, "Lag of each room in this process"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Room, topic"), h("th", { scope: "col" }, "Unread"), h("th", { scope: "col" }, "Oldest"))),
      h("tbody", {}, ...lags),
    ) : null,
  );
}

// -- the list -------------------------------------------------------------------------------------

const known = new Map();

function cards() {
  const { anomalies, summary } = shown;
  const isFiltered = Boolean(filter.match || filter.group !== null || filter.state !== "all");
  $("legend").hidden = !anomalies.length;
  $("filter").hidden = !anomalies.length && !isFiltered;
  fill($("empty"), ...(anomalies.length ? [] : isFiltered ? [h("p", { class: "quiet" }, "No anomaly fits the filter.")] : empty()));
  fill($("filtered"), ...(filter.group === null ? [] : ["Only of group ", h("strong", {}, filter.group || "(no name)"), " ", h("button", { type: "button", "data-clear": true }, "Show all groups")]));
  $("filtered").hidden = filter.group === null;
  const list = $("cards");
  const wanted = new Set(anomalies.map((anomaly) => anomaly.id));
  for (const [id, card] of known) if (!wanted.has(id)) { card.element.remove(); known.delete(id); }
  let place = list.firstElementChild;
  for (const anomaly of anomalies) {
    let card = known.get(anomaly.id);
    if (!card) known.set(anomaly.id, (card = new Card()));
    if (card.element === place) place = place.nextElementSibling;
    else list.insertBefore(card.element, place);
    card.update(anomaly);
  }
  const rest = [];
  if (summary.matching > summary.listed) rest.push(`${count(summary.listed)} of ${count(summary.matching)} listed.`);
  if (summary.left_out) rest.push(`${many(summary.left_out, "more series", "more series")} ${summary.left_out === 1 ? "is" : "are"} anomalous: counted, and too many to be kept (status.anomalies_limit).`);
  setText($("rest"), rest.join(" "));
  $("more").hidden = summary.listed >= summary.matching || filter.limit >= MOST;
}

$("filtered").addEventListener("click", (event) => { if (event.target.closest("[data-clear]")) change({ group: null }); });
$("more").addEventListener("click", () => { filter.limit = Math.min(MOST, filter.limit + PAGE); ask(); });

class Card {
  constructor() {
    this.name = h("h3");
    this.state = h("span", { class: "chip" });
    this.when = h("p", { class: "when" });
    this.labels = h("ul", { class: "labels" });
    this.why = h("p", { class: "why" });
    this.facts = h("table", { class: "facts" });
    this.chips = h("ul", { class: "chips" });
    this.readout = h("p", { class: "readout", "aria-hidden": "true" });
    this.chart = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.chart.setAttribute("role", "img");
    this.place = h("div", { class: "chart" }, this.chart);
    this.note = h("p", { class: "quiet" });
    this.element = h(
      "li", { class: "card" },
      h("div", { class: "head" }, this.state, this.name, this.when), this.labels,
      h("div", { class: "body" }, h("div", { class: "told" }, this.why, this.facts, this.chips, this.note), h("div", { class: "drawn" }, this.place, this.readout)),
    );
    this.width = 0;
    new ResizeObserver(() => this.draw()).observe(this.place);
  }

  update(anomaly) {
    const isNew = !this.anomaly || this.anomaly.newest_ms !== anomaly.newest_ms || this.anomaly.state !== anomaly.state;
    this.anomaly = anomaly;
    this.words();
    if (isNew) { this.width = 0; this.draw(); }
  }

  words() {
    const a = this.anomaly, now = nowMs();
    const { __name__: name, ...labels } = a.labels;
    setText(this.name, name || "(no name)");
    this.name.title = name || "";
    this.element.dataset.state = a.state;
    setText(this.state, { open: "Anomalous", ended: "Ended", away: "No more steps" }[a.state]);
    const from = `${a.is_start_known ? "since" : "since at least"} ${moment(a.since_ms, now, a.step_ms)}`;
    const until = a.ended_ms ?? a.newest_ms;
    const text = a.ended_ms
      ? `${moment(a.since_ms, now, a.step_ms)} to ${moment(a.ended_ms, now, a.step_ms)}`
      : `${from}, ${span(until - a.since_ms + a.step_ms)}`;
    setText(this.when, text);
    fill(this.labels, ...Object.entries(labels).map(([key, value]) => h("li", { title: `${key}="${value}"` }, h("span", {}, `${key}=`), h("b", {}, value))));
    const peak = a.peak;
    setText(this.why, peak.reason.text ? sentence(peak.reason.text) : `Reason ${peak.reason.code}`);
    const line = (title, at, step) => h(
      "tr", {},
      h("th", { scope: "row" }, title, at === null ? null : h("small", {}, ` ${at}`)),
      h("td", {}, number(step.value)),
      h("td", {}, range(step.expected)),
      h("td", { class: step.score > alertScore(a) ? "odd" : "" }, number(Math.round(step.score * 100) / 100)),
    );
    fill(
      this.facts,
      h("thead", {}, h("tr", {}, h("td", {}), ...["value", "expected", "score"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, line("Worst", moment(peak.time_ms, a.newest_ms, a.step_ms), peak), line(a.state === "open" ? "Now" : "Latest", null, a)),
    );
    const chips = [];
    if (shown.watched.pipelines.length > 1) chips.push(`pipeline ${a.pipeline}`);
    if (a.is_young) chips.push("young series");
    if (a.is_muted) chips.push("muted");
    if (!a.has_forecast) chips.push("no forecast");
    fill(this.chips, ...chips.map((text) => h("li", {}, text)));
    const notes = [];
    if (a.state === "away") notes.push(`Nothing came after ${moment(a.newest_ms, now, a.step_ms)}.`);
    if (shown.pipelines.find((p) => p.name === a.pipeline)?.emits === "episodes") notes.push("Only steps of episodes are emitted: gaps are steps that were normal.");
    setText(this.note, notes.join(" "));
    this.chart.setAttribute("aria-label", `Chart of ${name}: worst value ${number(peak.value)}, expected ${range(peak.expected)}, score ${number(peak.score)}`);
  }

  draw() {
    const width = Math.floor(this.place.clientWidth);
    if (!width || width === this.width || !this.anomaly) return;
    this.width = width;
    const a = this.anomaly;
    draw(this.chart, a, alertScore(a), width, (i) => {
      const s = a.steps;
      setText(this.readout, i === null ? "" : `${moment(s.time_ms[i], a.newest_ms, a.step_ms)}: ${number(s.value[i])}, expected ${number(s.lower[i])} to ${number(s.upper[i])}, score ${number(s.score[i])}`);
    });
  }
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
const range = (e) => (e.lower === null || e.upper === null ? "–" : `${number(e.lower)} to ${number(e.upper)}`);
const alertScore = (anomaly) => shown.watched.pipelines.find((p) => p.name === anomaly.pipeline)?.alert_score ?? 1;

// -- nothing to list ------------------------------------------------------------------------------

/** How many series are judged and how many are not yet, as windows tell; null where none has told. */
function standing() {
  const told = shown.pipelines.filter((p) => p.warming);
  if (!told.length) return null;
  const sum = (values) => values.reduce((total, value) => total + (value ?? 0), 0);
  const nearest = told.filter((p) => p.warming.steps_left).sort((a, b) => a.warming.steps_left * a.step_ms - b.warming.steps_left * b.step_ms)[0];
  return { judged: sum(told.map((p) => p.judged)), warming: sum(told.map((p) => p.warming.series)), nearest };
}

/** Why the list is empty: nothing came, nothing is wanted, series are young, or all is well. */
function emptyPhase() {
  const { watched, summary, pipelines } = shown;
  const told = standing();
  if (summary.scores.in || watched.steps_scored) return told && !told.judged && told.warming ? "warming" : "normal";
  // As after a restart: windows go on from their state, and no step has closed yet.
  if (told && told.judged) return pipelines.some((p) => p.seen_ms) ? "normal" : "resting";
  if (told && told.warming) return "warming";
  if (watched.samples === 0 && !watched.series) return "nothing";
  if (watched.samples === null && watched.series === null) return "unknown";
  if (watched.series === 0) return watched.samples && !watched.samples_published ? "unwanted" : "begun";
  return watched.samples ? "begun" : "resting";
}

function empty() {
  const { watched, summary } = shown;
  const panel = (title, ...rest) => [h("div", { class: "hero" }, h("h3", {}, title), ...rest)];
  const steps = Math.min(...watched.pipelines.map((p) => p.warmup));
  const stepMs = Math.min(...watched.pipelines.map((p) => p.step_ms));
  const warmup = `A series has its first score after ${many(steps, "step")} of ${span(stepMs)}: ${span(steps * stepMs)} of samples.`;
  switch (emptyPhase()) {
    case "nothing":
      return panel("Nothing has been pushed yet", h("p", {}, "Let Prometheus push here, in prometheus.yml:"), ...snippet(), h("p", { class: "quiet" }, warmup));
    case "unknown":
      return panel("No score has come yet", h("p", {}, "This process only reads scores. Let Prometheus push to your receiver, in prometheus.yml:"), ...snippet(), h("p", { class: "quiet" }, warmup));
    case "unwanted":
      return panel("No pipeline wants what is pushed", h("p", {}, `${many(watched.samples, "sample")} came, and none was selected by ${watched.pipelines.map((p) => `${p.name}: ${p.selector}`).join("; ")}.`));
    case "begun":
      return panel("The first samples are here", h("p", {}, `The first steps close within ${span(stepMs)}. ${warmup}`));
    case "resting": {
      const { judged } = standing() ?? { judged: watched.series };
      return panel(`${many(judged, "series", "series")} ${judged === 1 ? "is" : "are"} known`, h("p", {}, "No step of theirs has closed since this process started. The next ones are judged at once."));
    }
    case "warming": {
      const { warming, nearest } = standing();
      const asked = watched.pipelines.find((p) => p.name === nearest?.name)?.warmup ?? 0;
      const left = nearest?.warming.steps_left ?? 0;
      return panel(
        `${many(warming, "series", "series")} ${warming === 1 ? "is" : "are"} warming up`,
        h("p", {}, left ? `First scores in about ${many(left, "step")} of ${span(nearest.step_ms)}: ${span(left * nearest.step_ms)} of samples.` : "First scores are due."),
        left < asked ? h("progress", { class: "warmup", max: asked, value: asked - left, "aria-label": "Warm-up" }) : null,
        asked ? h("p", { class: "quiet" }, `The series that is nearest has ${count(Math.max(0, asked - left))} of ${many(asked, "step")}.`) : null,
      );
    }
    default: {
      const told = standing(), all = told ? told.judged : watched.series ?? summary.series;
      if (isOld()) return panel("No series was anomalous", h("p", { class: "quiet" }, "What has happened since the last score is not known here."));
      const title = all ? `All ${many(all, "series", "series")} ${all === 1 ? "is" : "are"} normal` : "No series is anomalous";
      const young = told && told.warming ? ` ${many(told.warming, "more series", "more series")} ${told.warming === 1 ? "is" : "are"} warming up.` : "";
      return panel(title, h("p", { class: "quiet" }, `Nothing was anomalous lately. What happens will be listed here.${young}`));
    }
  }
}

function snippet() {
  const base = new URL(".", location.origin + location.pathname).href.replace(/\/$/, "");
  const { write_path: path, needs_credentials: isLocked } = shown.watched;
  const url = path === null ? "http://RECEIVER:9201/api/v1/write" : base + path;
  const lines = ["remote_write:", `  - url: ${url}`, "    # Prometheus 3; leave this line out for Prometheus 2:", "    protobuf_message: io.prometheus.write.v2.Request"];
  if (isLocked) lines.push("    # and the credentials of web.auth: authorization or basic_auth");
  return [h("pre", { tabindex: 0 }, h("code", {}, lines.join("\n")))];
}

// -- filters --------------------------------------------------------------------------------------

function change(part) {
  Object.assign(filter, part, { limit: PAGE });
  const parameters = query();
  parameters.delete("limit");
  parameters.delete("steps");
  history.replaceState(null, "", parameters.size ? `?${parameters}` : location.pathname);
  ask();
}

let typing = 0;
$("match").value = filter.match;
$("match").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => change({ match: event.target.value.trim() }), 300);
});
$("filter").elements.state.value = filter.state;
$("filter").addEventListener("change", (event) => { if (event.target.name === "state") change({ state: event.target.value }); });
$("filter").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
ask();
