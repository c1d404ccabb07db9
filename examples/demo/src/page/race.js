// The race: an invalidation while a slow load is running, step by step.

import { post } from "/api.js";
import { showEntry } from "/entry.js";
import { currentId } from "/product.js";
import { byId, el, millis, onPress, say } from "/view.js";

const message = byId("race-message");
const colours = { reader: "loaded", writer: "coalesced", cache: "hit", "later reader": "loaded" };

async function race() {
  const id = currentId();
  say(message, "Running …", "");
  byId("race-steps").replaceChildren();
  byId("race-verdict").hidden = true;
  byId("race-placeholder").hidden = false;
  const answer = await post("/race", { id });
  say(message, "");
  byId("race-placeholder").hidden = true;
  byId("race-steps").replaceChildren(
    ...answer.steps.map(({ at_ms, who, what }) =>
      el("li", { class: colours[who] ?? "" },
        el("time", {}, millis(at_ms)),
        el("span", {}, el("span", { class: "who" }, who), " ", el("span", { class: "what" }, what)))),
  );
  const { fenced, old_stock, new_stock, later_stock } = answer;
  const verdict = byId("race-verdict");
  verdict.hidden = false;
  verdict.className = fenced ? "verdict" : "verdict bad";
  verdict.textContent = fenced
    ? `Fenced: stock ${old_stock} did not get into the cache, and later reads see ${later_stock}. A cache that simply stored the loaded row would serve ${old_stock} until its TTL ends.`
    : `Not fenced: the write of stock ${new_stock} was not seen in time. Later reads see ${later_stock}.`;
  await showEntry(id);
}

onPress(byId("race"), message, race);
