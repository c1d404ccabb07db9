// Small things that every panel needs: elements, numbers as text, messages, buttons that are busy.
// All text gets into the page through text nodes, so that nothing a user types is ever taken for HTML.

export const outcomes = {
  hit: ["hit", "The cache had the record."],
  not_found_hit: ["not-found hit", "The cache knew that there is no such product."],
  near_hit: ["near hit", "The shop’s own memory had the answer: no round trip to Redis."],
  loaded: ["miss, loaded", "Nobody had it: this read asked the primary and filled the cache."],
  coalesced: ["coalesced", "It shared the load that another read had under way."],
  waited: ["waited", "It shared the load of another process."],
  bypassed: ["bypassed", "The cache is out of reach: the primary answered."],
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
