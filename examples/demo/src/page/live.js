// The live figures: totals, the charts of the last minute, the switch of the cache, and generated traffic.

import { get, post } from "/api.js";
import { currentId, listProducts } from "/product.js";
import { showEntry } from "/entry.js";
import { showNear } from "/near.js";
import { byId, el, millis, onPress, outcomes, say, svg } from "/view.js";

const MINUTE = 60_000;
const HEIGHT = 170;
/** The area of the curves; the chart is drawn as wide as the space, so that texts keep their size. */
const PLOT = { left: 52, right: 552, top: 8, bottom: HEIGHT - 20 };
/** The logarithmic scale of latencies: from a microsecond, as near hits take, to 10 seconds. */
const DECADES = [0.001, 0.01, 0.1, 1, 10, 100, 1000, 10_000];
/** The hit rate at a time is that of the reads in this interval before it. */
const RATE_WINDOW = 3000;

const message = byId("tools-message");
/** The figures of a little more than the last minute, with their times. */
let history = [];
/** The current traffic, which ends when other traffic replaces it. */
let traffic = null;

function showTotals(figures) {
  const asked = figures.hits + figures.not_found_hits + figures.misses + figures.bypasses;
  byId("hit-rate").textContent = asked === 0 ? "–" : `${figures.hit_rate_pct.toFixed(1)} %`;
  byId("total-hits").textContent = figures.hits + figures.not_found_hits;
  byId("total-misses").textContent = figures.misses;
  byId("total-primary").textContent = figures.primary_reads_total;
  byId("total-suppressed").textContent = figures.stampedes_suppressed;
  byId("total-fenced").textContent = figures.fenced_fills;
  byId("total-stale").textContent = figures.stale_served;
  byId("total-bypasses").textContent = figures.bypasses;
  byId("fail").classList.toggle("bad", figures.primary_fails);
  byId("fail").textContent = figures.primary_fails ? "Repair the primary" : "Break the primary";
  byId("place").textContent = figures.cache;
  byId("dot").classList.toggle("off", figures.outage);
  byId("power-state").textContent = figures.outage ? "is off" : "is on";
  byId("power").textContent = figures.outage ? "Restart the cache" : "Stop the cache";
  byId("banner").hidden = !figures.outage;
  const pending = `Failed writes that will be applied when it is back: ${figures.pending}.`;
  if (byId("pending").textContent !== pending) {
    byId("pending").textContent = pending;
  }
  showNear(figures);
  if (document.activeElement !== byId("latency")) {
    showLatency(figures.read_latency_ms);
  }
}

function showLatency(latency) {
  byId("latency").max = Math.max(1000, latency);
  byId("latency").value = latency;
  byId("latency-shown").textContent = `${latency} ms`;
}

function showOutcomes(figures) {
  const rows = figures.outcomes.map(({ outcome, count, total_ms }) => {
    const [name, text] = outcomes[outcome];
    const key = el("span", { class: `key ${outcome}` }, el("span", {}, name));
    return el("tr", {}, el("td", {}, key), el("td", {}, String(count)), el("td", {}, count === 0 ? "–" : millis(total_ms / count)), el("td", {}, text));
  });
  byId("outcomes").tBodies[0].replaceChildren(...rows);
}

/** The counts between two figures; zero if the counters were reset in between. */
function between(earlier, later) {
  return later.outcomes
    .map(({ outcome, count, total_ms }, index) => {
      const before = earlier.outcomes[index];
      return { outcome, count: count - before.count, total_ms: total_ms - before.total_ms };
    })
    .filter(({ count }) => count > 0);
}

function chart(label, lines) {
  const picture = svg("svg", { viewBox: `0 0 ${PLOT.right + 8} ${HEIGHT}`, role: "img", "aria-label": label });
  for (const [y, text] of lines) {
    picture.append(
      svg("line", { class: "grid", x1: PLOT.left, x2: PLOT.right, y1: y, y2: y }),
      svg("text", { x: PLOT.left - 7, y: y + 4, "text-anchor": "end" }, text),
    );
  }
  for (const seconds of [60, 40, 20, 0]) {
    const anchor = seconds === 0 ? "end" : seconds === 60 ? "start" : "middle";
    const x = PLOT.right - (seconds / 60) * (PLOT.right - PLOT.left);
    picture.append(svg("text", { x, y: HEIGHT - 4, "text-anchor": anchor }, seconds === 0 ? "now" : `${seconds} s`));
  }
  return picture;
}

const across = (at, now) => PLOT.right - ((now - at) / MINUTE) * (PLOT.right - PLOT.left);

function drawRate(now) {
  const y = (rate) => PLOT.bottom - (rate / 100) * (PLOT.bottom - PLOT.top);
  const recent = [];
  for (const [index, { at, figures }] of history.entries()) {
    const from = history.slice(0, index).find((earlier) => at - earlier.at <= RATE_WINDOW);
    const counted = from ? between(from.figures, figures) : [];
    const all = counted.reduce((sum, { count }) => sum + count, 0);
    const hits = counted.reduce((sum, { outcome, count }) => sum + (outcome.endsWith("hit") ? count : 0), 0);
    recent.push(all === 0 ? null : [across(at, now), y((100 * hits) / all)]);
  }
  const last = history.at(-1).figures;
  const picture = chart(`Hit rate since the reset: ${last.hit_rate_pct.toFixed(1)} percent`, [0, 50, 100].map((rate) => [y(rate), `${rate} %`]));
  const overall = history.map(({ at, figures }) => `${across(at, now)},${y(figures.hit_rate_pct)}`).join(" ");
  picture.append(svg("g", { class: "hit" }, svg("polyline", { class: "ink", points: overall, "stroke-width": 1, "stroke-opacity": 0.55 })));
  for (const run of runs(recent)) {
    const points = run.map((point) => point.join(",")).join(" ");
    const area = `${run[0][0]},${PLOT.bottom} ${points} ${run.at(-1)[0]},${PLOT.bottom}`;
    picture.append(svg("g", { class: "hit" },
      svg("polygon", { class: "body", points: area, "fill-opacity": 0.14 }),
      svg("polyline", { class: "ink recent", points, "stroke-width": 2.5, "stroke-linejoin": "round" })));
  }
  byId("rate-chart").replaceChildren(picture);
}

function runs(points) {
  const found = [[]];
  for (const point of points) {
    if (point === null) {
      found.push([]);
    } else {
      found.at(-1).push(point);
    }
  }
  return found.filter((run) => run.length > 0);
}

function drawLatency(now) {
  const [lowest, highest] = [Math.log10(DECADES[0]), Math.log10(DECADES.at(-1))];
  const y = (took) => {
    const part = (Math.log10(Math.max(took, DECADES[0])) - lowest) / (highest - lowest);
    return PLOT.bottom - Math.min(1, part) * (PLOT.bottom - PLOT.top);
  };
  const text = (took) => (took >= 1000 ? `${took / 1000} s` : took >= 1 ? `${took} ms` : `${took * 1000} µs`);
  const picture = chart("Mean latency by outcome in the last minute; the table below has the figures", DECADES.map((took) => [y(took), text(took)]));
  for (let index = 1; index < history.length; index += 1) {
    const { at, figures } = history[index];
    if (figures.near_invalidations > history[index - 1].figures.near_invalidations) {
      picture.append(svg("line", { class: "told", x1: across(at, now), x2: across(at, now), y1: PLOT.bottom - 9, y2: PLOT.bottom }));
    }
    for (const { outcome, count, total_ms } of between(history[index - 1].figures, figures)) {
      const r = Math.min(7, 2.5 + Math.log10(count) * 1.6);
      picture.append(svg("g", { class: outcome }, svg("circle", { class: "body", cx: across(at, now), cy: y(total_ms / count), r, "fill-opacity": 0.8 })));
    }
  }
  byId("latency-chart").replaceChildren(picture);
}

function arrived(figures) {
  const at = performance.now();
  PLOT.right = Math.max(240, byId("rate-chart").clientWidth) - 8;
  history = [...history.filter((earlier) => at - earlier.at < MINUTE), { at, figures }];
  showTotals(figures);
  showOutcomes(figures);
  drawRate(at);
  drawLatency(at);
}

async function keepReading(own) {
  const ids = (await listProducts()).slice(0, 16);
  while (traffic === own) {
    const id = ids[Math.floor(Math.random() * ids.length)];
    await get("/read", { id });
    await new Promise((resume) => setTimeout(resume, 60));
  }
}

function setTraffic(next) {
  traffic = next;
  byId("traffic").classList.toggle("on", next !== null);
  byId("traffic").textContent = next ? "Stop reading" : "Keep reading";
}

byId("traffic").addEventListener("click", async () => {
  if (traffic) {
    setTraffic(null);
    return;
  }
  const own = {};
  setTraffic(own);
  say(byId("live-message"), "");
  try {
    await keepReading(own);
  } catch (error) {
    // A failed read stops the traffic, and is shown once.
    if (traffic === own) {
      setTraffic(null);
      say(byId("live-message"), error.message, "bad");
    }
  }
});

onPress(byId("reset"), message, async () => showTotals(await post("/reset")));
onPress(byId("power"), message, async () => {
  const off = byId("dot").classList.contains("off");
  showTotals(await post("/outage", { on: String(!off) }));
  say(message, off ? "The cache is back, with the entries that it had and that were not invalidated." : "The cache is stopped.");
  await showEntry(currentId());
});
onPress(byId("fail"), message, async () => {
  const fails = !byId("fail").classList.contains("bad");
  showTotals(await post("/primary-fails", { on: String(fails) }));
  say(message, fails ? "Reads of the primary fail from now on." : "The primary works again.");
});
byId("latency").addEventListener("input", () => {
  byId("latency-shown").textContent = `${byId("latency").value} ms`;
});
byId("latency").addEventListener("change", async () => {
  try {
    await post("/latency", { ms: byId("latency").value });
  } catch (error) {
    say(message, error.message, "bad");
  }
});

document.addEventListener("figures", ({ detail }) => showTotals(detail));

const events = new EventSource("/events");
events.addEventListener("figures", ({ data }) => {
  byId("connection").textContent = "two updates a second";
  arrived(JSON.parse(data));
});
events.addEventListener("error", () => {
  byId("connection").textContent = "The demo does not answer; trying again.";
});
