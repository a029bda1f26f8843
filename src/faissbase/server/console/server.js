// The server: how it is, what it has served, and all that can be asked of it.

import { call, SERVER } from "./api.js";
import { button, el, facts, table } from "./dom.js";
import { bytes, count, duration } from "./text.js";

export async function showServer(context) {
  const { signal } = context;
  const [described, counted, health] = await Promise.all([
    call("openapi", { signal }),
    call("metrics", { signal }),
    call("ready", { signal }),
  ]);
  if (!context.isCurrent()) return;
  document.title = "Server – faissbase";
  const head = el("div", { class: "head" }, el("h1", { tabindex: "-1" }, "Server"));
  const cards = [stateOf(described.data.info, health.data), countersOf(readMetrics(counted.data))];
  context.main.replaceChildren(head, el("div", { class: "cards" }, cards), routesOf(described));
}

function stateOf({ version }, health) {
  return el(
    "section",
    { class: "card" },
    el("h2", {}, "State"),
    facts([
      ["Address", el("span", { class: "data" }, SERVER)],
      ["Version", `faissbase ${version}`],
      ["Status", health.status],
      ["Lives", health.live ? "yes" : "no"],
      ["Takes requests", health.ready ? "yes" : "no"],
      ["Storage asked", health.age_s === undefined ? null : `${health.age_s} s ago`],
    ]),
  );
}

function countersOf(samples) {
  const sum = (name, fits = () => true) =>
    samples
      .filter((each) => each.name === name && fits(each.labels))
      .reduce((total, each) => total + each.value, 0);
  const began = sum("process_start_time_seconds");
  const requests = (first) =>
    sum("faissbase_requests_total", (labels) => labels.includes(`status="${first}`));
  return el(
    "section",
    { class: "card" },
    el("h2", {}, "Since it started"),
    facts([
      ["Running for", began ? duration(Date.now() / 1000 - began) : null],
      ["Requests answered", count(sum("faissbase_requests_total"))],
      ["Refused or not found (4xx)", count(requests(4))],
      ["Failed (5xx)", count(requests(5))],
      ["In flight", count(sum("faissbase_requests_in_flight"))],
      ["Memory of the process", bytes(sum("process_resident_memory_bytes"))],
    ]),
    el("p", { class: "muted" }, "All counters, for Prometheus: ", el("code", {}, "GET /v1/metrics")),
  );
}

/** Samples of Prometheus's text format. */
function readMetrics(text) {
  return text.split("\n").flatMap((line) => {
    const [, name, labels, value] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    return name === undefined ? [] : [{ name, labels: labels ?? "", value: Number(value) }];
  });
}

function routesOf({ data, text }) {
  const rows = Object.entries(data.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, about]) => [
      el("code", {}, method.toUpperCase()),
      el("code", {}, path),
      about.summary,
      /scope `(\w+)`/.exec(about.description ?? "")?.[1] ?? "no key",
    ]),
  );
  return el(
    "section",
    {},
    el(
      "div",
      { class: "head" },
      el("h2", {}, "API"),
      button("Download openapi.json", () => save("openapi.json", text)),
    ),
    table("Routes", ["Method", "Path", "What it does", "Scope"], rows),
  );
}

function save(name, text) {
  const href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  el("a", { href, download: name }).click();
  URL.revokeObjectURL(href);
}
