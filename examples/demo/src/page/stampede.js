// The stampede: many readers of one cold key, and a timeline of the load, the waiting readers, and when each was served.

import { Refused, post } from "/api.js";
import { showEntry } from "/entry.js";
import { currentId } from "/product.js";
import { byId, el, millis, onPress, outcomes, say, svg } from "/view.js";

const message = byId("stampede-message");
/** The placeholder for the picture. */
const placeholder = document.querySelector("#timeline .placeholder");

const LEFT = 8;
const LOAD_HEIGHT = 22;
const TOP = LOAD_HEIGHT + 26;
const MAX_HEIGHT = 240;
/** The mark at the end of a bar, where the reader is served. */
const SERVED_WIDTH = 3;

async function stampede() {
  const id = currentId();
  say(message, "Running …", "");
  byId("stampede-figures").hidden = true;
  byId("timeline").replaceChildren(placeholder);
  const [answer, problem] = await letLoose(id);
  byId("stampede-figures").hidden = false;
  byId("stampede-reads").textContent = answer.primary_reads;
  byId("stampede-readers").textContent = answer.results.length;
  byId("stampede-slowest").textContent = millis(answer.slowest_ms);
  byId("stampede-elapsed").textContent = millis(answer.elapsed_ms);
  const reads = answer.primary_reads === 1 ? "one read" : `${answer.primary_reads} reads`;
  say(message, `${answer.results.length} readers of ${id}, ${reads} of the primary.${problem}`);
  draw(answer);
  await showEntry(id);
}

/** The answer, and anything unusual about it. */
async function letLoose(id) {
  try {
    const answer = await post("/stampede", { id, concurrency: byId("concurrency").value });
    return [answer, answer.invalidated ? "" : " The cache is out of reach, so the key could not be invalidated."];
  } catch (error) {
    if (!(error instanceof Refused) || error.answer.results === undefined) {
      throw error;
    }
    return [error.answer, " There is no such product, and they all know it now."];
  }
}

/** One line for each reader, from its call to its answer, the earliest on top; the loads are above them. */
function draw({ results, loads, elapsed_ms }) {
  const readers = [...results].sort((a, b) => (b.outcome === "loaded") - (a.outcome === "loaded") || a.started_ms - b.started_ms);
  // As wide as the space, so that texts keep their size.
  const width = Math.max(240, byId("timeline").clientWidth);
  const step = Math.min(14, MAX_HEIGHT / readers.length);
  const bottom = TOP + readers.reduce((sum, { outcome }) => sum + rowHeight(outcome, step), 0);
  const x = (time) => LEFT + (time / elapsed_ms) * (width - 2 * LEFT);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${bottom + 22}`, role: "img", "aria-label": summary(results, loads) });
  for (const time of ticks(elapsed_ms)) {
    const end = time > elapsed_ms * 0.93;
    picture.append(
      svg("line", { class: "grid", x1: x(time), x2: x(time), y1: LOAD_HEIGHT + 8, y2: bottom + 5 }),
      svg("text", { x: x(time), y: bottom + 18, "text-anchor": time === 0 ? "start" : end ? "end" : "middle" }, `${time} ms`),
    );
  }
  for (const { began_ms, ended_ms } of loads) {
    const bar = { x: x(began_ms), y: 4, width: Math.max(2, x(ended_ms) - x(began_ms)), height: LOAD_HEIGHT - 4, rx: 5 };
    picture.append(
      svg("g", { class: "loaded load" },
        svg("rect", { ...bar, class: "body", "fill-opacity": 0.18 }),
        svg("rect", { ...bar, class: "ink" }),
        svg("text", { x: x(began_ms) + 9, y: LOAD_HEIGHT - 5 }, `read of the primary, ${millis(ended_ms - began_ms)}`)),
    );
  }
  let y = TOP;
  for (const { outcome, started_ms, served_ms } of readers) {
    const height = rowHeight(outcome, step);
    const gap = step > 4 ? 2 : 0;
    const row = { y, height: height - gap };
    const waited = { ...row, x: x(started_ms), width: Math.max(1, x(served_ms) - x(started_ms)) };
    picture.append(
      svg("g", { class: `${outcome} reader` },
        svg("rect", { ...waited, class: "body", "fill-opacity": outcome === "loaded" ? 1 : 0.3 }),
        svg("rect", { ...row, x: x(served_ms) - SERVED_WIDTH, width: SERVED_WIDTH, class: "body" })),
    );
    y += height;
  }
  byId("timeline").replaceChildren(picture, legend(results));
}

/** The loading reader is visible among any number of others. */
function rowHeight(outcome, step) {
  return outcome === "loaded" ? Math.max(step, 6) : step;
}

function legend(results) {
  const keys = Object.entries(outcomes).map(([outcome, [name]]) => {
    const count = results.filter((reader) => reader.outcome === outcome).length;
    return count === 0 ? "" : el("span", { class: `key ${outcome}` }, el("span", {}, `${name}: ${count}`));
  });
  return el("figcaption", { class: "legend" }, ...keys, el("span", { class: "muted" }, "a bar is a reader, waiting from its call to its answer"));
}

function summary(results, loads) {
  const served = results.map((reader) => reader.served_ms);
  return `${results.length} readers, ${loads.length} read of the primary. First served after ${millis(Math.min(...served))}, last after ${millis(Math.max(...served))}.`;
}

function ticks(elapsed) {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].find((step) => elapsed / step <= 6) ?? 10000;
  return Array.from({ length: Math.floor(elapsed / step) + 1 }, (_, index) => index * step);
}

onPress(byId("stampede-form"), message, stampede);
