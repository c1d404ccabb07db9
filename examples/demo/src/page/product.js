// One product: reading it, and everything that changes it.

import { Refused, get, post } from "/api.js";
import { showEntry } from "/entry.js";
import { byId, el, fields, millis, onPress, outcomes, say } from "/view.js";

const message = byId("message");

export const currentId = () => byId("id").value.trim();

export async function listProducts() {
  const products = await get("/products");
  const options = products.map(({ id, name }) => el("option", { value: id }, name));
  byId("known").replaceChildren(...options);
  return products.map(({ id }) => id);
}

async function read() {
  say(message, "");
  const id = currentId();
  let answer;
  try {
    answer = await get("/read", { id });
    say(message, inShort(answer));
  } catch (error) {
    if (!(error instanceof Refused) || error.answer.outcome === undefined) {
      throw error;
    }
    // A missing product is a normal answer.
    answer = error.answer;
    say(message, `${inShort(answer)}: ${error.message}. You can create it.`, "");
    byId("create-box").open = true;
  }
  showRead(answer);
  await showEntry(id);
}

const inShort = ({ outcome, total_latency_ms }) => `${outcomes[outcome][0]}, ${millis(total_latency_ms)}`;

function showRead({ outcome, record, redis_latency_ms, total_latency_ms, stats }) {
  const [name, text] = outcomes[outcome];
  byId("outcome").textContent = name;
  byId("outcome").className = `badge ${outcome}`;
  byId("outcome-text").textContent = text;
  byId("record").replaceChildren(
    record ? fields(Object.entries(record)) : el("p", { class: "muted" }, "Nothing: there is no such product."),
  );
  const bars = [
    ["Cache", "cache", redis_latency_ms],
    ["This read", "total", total_latency_ms],
    ["Primary, mean", "primary", stats.primary_read_latency_ms],
  ];
  const longest = Math.max(...bars.map(([, , took]) => took));
  byId("bars").replaceChildren(
    ...bars.flatMap(([label, kind, took]) => {
      const fill = el("div", { class: `fill ${kind}` });
      fill.style.width = `${(100 * took) / longest}%`;
      const value = el("span", { class: "value", id: `bar-${kind}` }, millis(took));
      return [el("span", {}, label), el("div", { class: "track" }, fill), value];
    }),
  );
}

async function change(path, describe) {
  const [id, field, value] = [currentId(), byId("field").value, byId("value").value];
  const written = await post(path, { id, field, value });
  say(message, describe(written));
  await showEntry(id);
}

const updateAndInvalidate = () =>
  change("/update", ({ invalidated }) =>
    invalidated ? "Written, and the entry is gone: the next read loads." : "Written. There was no entry to invalidate.",
  );

const updateInPlace = () =>
  change("/update-cached", ({ applied }) =>
    applied
      ? "Written, and set in the entry: the next read hits, and sees it."
      : "Written. There was no record in the cache to update: the next read loads.",
  );

async function invalidate() {
  const id = currentId();
  let answer;
  try {
    answer = await post("/invalidate", { id });
  } catch (error) {
    if (!(error instanceof Refused) || error.answer.invalidated === undefined) {
      throw error;
    }
    answer = error.answer;
  }
  const unknown = answer.error ? ` (${answer.error})` : "";
  say(message, (answer.invalidated ? "The entry is gone: the next read loads." : "There was no entry to invalidate.") + unknown);
  await showEntry(id);
}

async function expire() {
  const id = currentId();
  await post("/expire", { id });
  say(message, "Loaded with a short TTL, which is over. A read waits for a load for 200 ms, and then gets the old record: make the primary slower, or let it fail.");
  await showEntry(id);
}

async function create() {
  const id = currentId();
  await post("/create", { id, name: byId("new-name").value, price_cents: byId("new-price").value, stock: byId("new-stock").value });
  say(message, "Created, and invalidated: the next read finds it.");
  byId("create-box").open = false;
  await Promise.all([showEntry(id), listProducts()]);
}

onPress(byId("read-form"), message, read);
onPress(byId("invalidate"), message, invalidate);
onPress(byId("expire"), message, expire);
onPress(byId("change-form"), message, updateAndInvalidate);
onPress(byId("update-cached"), message, updateInPlace);
onPress(byId("create-form"), message, create);
for (const chip of document.querySelectorAll("[data-id]")) {
  onPress(chip, message, () => {
    byId("id").value = chip.dataset.id;
    return read();
  });
}
