// The near cache: its switch, the state of its tracker, and its hits and messages.

import { post } from "/api.js";
import { byId, onPress, say } from "/view.js";

const message = byId("near-message");

/** The meaning of each state of the tracker, the connection over which the server sends messages about changes. */
const trackers = {
  unused: "On memory:// the entries are in the shop’s own memory already. A near cache needs no messages there, and is not used.",
  connecting: "Asking the server for messages about changes. Until it agrees, all reads go to Redis.",
  live: "The server sends a message about each change, no matter who makes it.",
  unsupported: "The server can’t send messages about changes, so nothing is kept.",
};

export function showNear({ near_cache, tracker, near_hits, near_invalidations, near_flushes, near_refused_inserts }) {
  const button = byId("near");
  button.disabled = tracker === "unused";
  button.classList.toggle("on", near_cache);
  button.textContent = near_cache ? "Remove it" : "Put it in front of Redis";
  byId("near-state").textContent = near_cache ? "is on" : "is off";
  byId("tracker").textContent = tracker;
  byId("tracker-text").textContent = trackers[tracker] ?? "";
  byId("near-hits").textContent = near_hits;
  byId("near-invalidations").textContent = near_invalidations;
  byId("near-flushes").textContent = near_flushes;
  byId("near-refused").textContent = near_refused_inserts;
}

onPress(byId("near"), message, async () => {
  const on = !byId("near").classList.contains("on");
  showNear(await post("/near-cache", { on: String(on) }));
  const switched = on
    ? "Read a product three times: the first read loads, the second finds it in Redis and keeps it, the third is a near hit."
    : "Reads go to Redis. The server’s messages still come, so the kept records are right when it is switched on again.";
  say(message, switched);
});
