// How a search was run, for people: see `explain` of a collection.

import { el, facts } from "./dom.js";
import { count, milliseconds, share } from "./text.js";

const PATHS = {
  none: "nothing matches the filter, so nothing was searched",
  index: "through the index, and the newest records exactly",
  scan: "every vector, exactly",
  "wide scan": "every vector, exactly, and what the filter leaves out was dropped",
  subset: "only what matches the filter, exactly",
  codes: "short codes of what matches the filter, then the true vectors of the best",
  several: "differs by shard",
};

export function explained(plan) {
  return el("details", { class: "card", open: true }, el("summary", {}, "How it was searched"), body(plan));
}

function body(plan) {
  const { path, target, n_slots: slots, n_matching: matching, version } = plan;
  const shards = Object.entries(plan.shards ?? {});
  return el(
    "div",
    { class: "inside" },
    el("p", {}, el("strong", {}, path), `: ${PATHS[path] ?? "a way this console has no words for"}.`),
    facts([
      ["Recall asked for", target >= 1 ? "1 (exact)" : String(target)],
      ["Matching the filter", `${count(matching)} of ${count(slots)} (${share(matching, slots)})`],
      ["Version", version],
    ]),
    el(
      "div",
      { class: "pair" },
      bars("Forecast of each way", plan.predicted_ms, path),
      bars("Time taken in the server", plan.times_ms, null),
    ),
    shards.map(([name, each]) =>
      el("details", {}, el("summary", {}, "Shard ", el("span", { class: "data" }, name)), body(each)),
    ),
  );
}

/** Milliseconds by name, the longest filling its line; `taken` is marked. */
function bars(title, times, taken) {
  const all = Object.entries(times ?? {});
  if (all.length === 0) return null;
  const most = Math.max(...all.map(([, ms]) => ms), Number.MIN_VALUE);
  const lines = all.map(([name, ms]) =>
    el(
      "li",
      {},
      name === taken ? el("strong", {}, `${name} ✓`) : el("span", {}, name),
      el("meter", { min: 0, max: most, value: ms, "aria-label": `${name}, of the longest` }),
      el("span", { class: "number" }, milliseconds(ms)),
    ),
  );
  return el("div", {}, el("h3", {}, title), el("ul", { class: "bars" }, lines));
}
