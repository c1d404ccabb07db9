// The stored entry: its fields, its key, and its TTL counting down.

import { get } from "/api.js";
import { byId, el, fields } from "/view.js";

const states = {
  missing: "Nothing is stored.",
  stale: "Past its TTL, and kept for when the primary is slow or fails.",
  not_found: "A note that there is no such product.",
  unreadable: "This is not an entry of this shop.",
};

/** The entry that is shown; every look replaces it, so that a late answer can tell that it is outdated. */
let shown = { deadline: null };

/** Looks at the entry of `id` and shows it; `gone` is the text for its TTL if there is no entry. */
export async function showEntry(id, gone = "–") {
  const look = { id, deadline: null, full: 1 };
  shown = look;
  let entry;
  try {
    entry = await get("/inspect", { id });
  } catch (error) {
    if (shown !== look) {
      return;
    }
    showTtl("–", 0);
    byId("stored").replaceChildren(el("p", { class: "muted" }, error.message));
    return;
  }
  if (shown !== look) {
    return;
  }
  const { key, state, ttl_remaining, ttl_full, lock_ttl_remaining } = entry;
  byId("ttl-box").classList.toggle("not-found", state === "not_found");
  byId("ttl-label").textContent = state === "not_found" ? "Not-found entry lives for" : "Entry lives for";
  const parts = [el("p", { class: "mono muted" }, key)];
  if (states[state]) {
    parts.push(el("p", {}, states[state]));
  }
  if (entry.fields.length > 0) {
    parts.push(fields(entry.fields));
  }
  if (lock_ttl_remaining !== null) {
    parts.push(el("p", {}, `A load holds the lease for ${lock_ttl_remaining.toFixed(1)} s.`));
  }
  byId("stored").replaceChildren(el("div", { class: "stack" }, ...parts));
  if (ttl_remaining === null) {
    showTtl(state === "stale" ? "past its TTL" : gone, 0);
  } else {
    look.deadline = performance.now() + ttl_remaining * 1000;
    look.full = ttl_full ?? ttl_remaining;
    tick();
  }
}

function tick() {
  const { id, deadline, full } = shown;
  const left = (deadline - performance.now()) / 1000;
  if (left > 0) {
    showTtl(`${left.toFixed(1)} s`, left / full);
  } else {
    showEntry(id, "expired");
  }
}

function showTtl(text, part) {
  byId("ttl").textContent = text;
  byId("ttl-bar").value = Math.min(1, part);
}

setInterval(() => shown.deadline !== null && tick(), 100);
