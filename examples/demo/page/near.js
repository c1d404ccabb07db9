// The near cache: its switch, whether the server tells it of changes, and what it has answered and been told.

import { post } from "/api.js";
import { byId, onPress, say } from "/view.js";

const message = byId("near-message");

/** What each state of the tracker means: of the connection over which the server tells of changes. */
const trackers = {
  unused: "On memory:// the entries are in the shop’s own memory already. A near cache needs no messages there, and is not used.",
  connecting: "The server is being asked to tell of changes. Until it does, all reads go to Redis.",
  live: "The server tells of each change, whoever makes it.",
  unsupported: "The server can’t tell of changes, so nothing is kept.",
};

export function showNear({ near_cache, tracker, near_hits, near_invalidations, near_flushes, near_refused_inserts }) {
  const button = byId("near");
  button.disabled = tracker === "unused";
  button.classList.toggle("on", near_cache);
  button.textContent = near_cache ? "Take it away" : "Put it before Redis";
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
    : "Reads go to Redis. The server’s messages still come, so what was kept is right when it is put back.";
  say(message, switched);
});
