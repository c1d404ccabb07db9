// Helpers that every panel needs: elements, numbers as text, messages, busy buttons.
// All text is added as text nodes, so that a user's input is never interpreted as HTML.

export const outcomes = {
  hit: ["hit", "The cache had the record."],
  not_found_hit: ["not-found hit", "The cache remembered that there is no such product."],
  near_hit: ["near hit", "The shop’s own memory had the answer: no round trip to Redis."],
  loaded: ["miss, loaded", "It was not in the cache: this read asked the primary and filled the cache."],
  coalesced: ["coalesced", "It shared the load of another read in this process."],
  waited: ["waited", "It shared the load of another process."],
  bypassed: ["bypassed", "The cache can’t be reached: the primary answered."],
  stale: ["stale, load failed", "Past its TTL: its load failed, so the old record was the answer."],
  stale_revalidating: ["stale, loading", "Past its TTL: its load takes more than 200 ms, so the old record was the answer. The load goes on."],
  other: ["other", "An outcome that this page doesn’t know."],
};

export const byId = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Fields as a two-column list. */
export function fields(pairs) {
  return el("dl", { class: "fields" }, ...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}

export function millis(value) {
  const digits = value >= 100 ? 0 : value >= 1 ? 1 : value >= 0.1 ? 2 : 3;
  return `${value.toFixed(digits)} ms`;
}

export function say(target, text, kind = "good") {
  target.textContent = text;
  target.className = `message ${kind}`;
}

/** Runs `task` on each press, one at a time, and shows its error as text in `message`. */
export function onPress(target, message, task) {
  const form = target instanceof HTMLFormElement;
  const button = form ? target.querySelector("button.main") : target;
  target.addEventListener(form ? "submit" : "click", async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-busy") === "true") {
      return;
    }
    button.setAttribute("aria-busy", "true");
    try {
      await task();
    } catch (error) {
      say(message, error.message, "bad");
    } finally {
      button.removeAttribute("aria-busy");
    }
  });
}
