// Numbers, times and spans as people read them. Unknown is a dash.

const plain = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const large = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function number(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size && (size < 1e-4 || size >= 1e15)) return value.toExponential(2);
  return size >= 1e6 ? large.format(value) : plain.format(value);
}

/** The same in at most seven characters, for the edge of a chart. */
export function short(value) {
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e15)) return value.toExponential(0);
  return (size >= 1e4 ? compact : plain).format(value);
}

export function count(value) {
  if (typeof value !== "number") return "–";
  return value >= 1e6 ? large.format(value) : whole.format(value);
}

export function percent(share) {
  if (typeof share !== "number") return "–";
  const value = share * 100;
  if (value > 0 && value < 1) return "< 1 %";
  if (value > 99 && value < 100) return "> 99 %";
  return `${Math.round(value)} %`;
}

export function many(value, one, more = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : more}`;
}

/** A length of time in its two largest units. */
export function span(ms) {
  let seconds = Math.max(0, Math.round(ms / 1000));
  const parts = [];
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    const units = Math.floor(seconds / size);
    seconds -= units * size;
    if (units) parts.push(`${units}\u00a0${unit}`);
    else if (parts.length) break;
    if (parts.length === 2) break;
  }
  return parts.join("\u00a0") || "0\u00a0s";
}

const two = (value) => String(value).padStart(2, "0");

/** The local time of day; seconds only where steps are that short. */
export function clock(ms, stepMs = 1000) {
  const time = new Date(ms);
  const day = `${two(time.getHours())}:${two(time.getMinutes())}`;
  return stepMs % 60000 ? `${day}:${two(time.getSeconds())}` : day;
}

/** The local date and time; no date if it is today's. */
export function moment(ms, nowMs, stepMs = 1000) {
  const time = new Date(ms), now = new Date(nowMs);
  if (time.toDateString() === now.toDateString()) return clock(ms, stepMs);
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${clock(ms, stepMs)}`;
}
