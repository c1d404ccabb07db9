// The demo's endpoints. Every answer is passed to the panels that show figures.

/** An error answer; its other fields are in `answer`. */
export class Refused extends Error {
  constructor(answer) {
    super(answer.error);
    this.answer = answer;
  }
}

export function get(path, params = {}) {
  const query = new URLSearchParams(params).toString();
  return ask(query ? `${path}?${query}` : path, {});
}

export function post(path, params = {}) {
  return ask(path, { method: "POST", body: new URLSearchParams(params) });
}

async function ask(address, options) {
  let answer;
  try {
    // With the status in the body: otherwise the browser's console would report each missing product as an error.
    const response = await fetch(address, { ...options, headers: { "x-status-in-body": "1" } });
    answer = await response.json();
  } catch {
    throw new Error("The demo does not answer. Is it still running?");
  }
  if (answer.stats) {
    document.dispatchEvent(new CustomEvent("figures", { detail: answer.stats }));
  }
  if (answer.error) {
    throw new Refused(answer);
  }
  return answer;
}
