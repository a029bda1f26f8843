// The server: how it is, what it has served, and all that can be asked of it.

import { call, download, SERVER } from "./api.js";
import { busy, button, code, el, facts, save, table } from "./dom.js";
import { curlBackup } from "./snippets.js";
import { bytes, count, duration, milliseconds } from "./text.js";

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
  const cards = [
    stateOf(described.data.info, health.data),
    countersOf(readMetrics(counted.data)),
    backupOf(context),
  ];
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

// ---- backup ----------------------------------------------------------------------------------------

function backupOf({ signal }) {
  const place = el("div", { "aria-live": "polite" });
  const node = button("Make a backup", () => busy(node, place, () => backup(place, signal)));
  return el(
    "section",
    { class: "card whole" },
    el("h2", {}, "Backup"),
    el(
      "p",
      {},
      "All indexes of your tenant as one file, each as of one moment, while others go on; keys are not in it. ",
      "It takes a key with the scope ",
      el("code", {}, "admin"),
      ", and room for a second copy on the server's disk meanwhile.",
    ),
    el("div", { class: "actions" }, node),
    place,
    el("details", {}, el("summary", {}, "As a command"), code(curlBackup(), "with curl")),
  );
}

async function backup(place, signal) {
  const began = performance.now();
  const tell = (text) => place.replaceChildren(el("p", { class: "muted" }, text));
  tell("The server makes the file, which may take long. It is left where you leave this page.");
  const begun = (size) => tell(`The file is made, and its ${bytes(size)} are on their way.`);
  const { blob, name } = await download("backup", { signal, begun });
  save(name, blob);
  const ms = performance.now() - began;
  const took = ms < 1000 ? milliseconds(ms) : duration(ms / 1000);
  const command = `faissbase restore ${name} --into ./restored`;
  const saved = el("p", {}, el("span", { class: "data" }, name), ` was saved: ${bytes(blob.size)}, in ${took}.`);
  const again = el("p", {}, "It becomes a folder again by ", el("code", {}, command), ".");
  place.replaceChildren(el("div", { class: "notice good" }, saved, again));
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
      button("Download openapi.json", () => saveText("openapi.json", text)),
    ),
    table("Routes", ["Method", "Path", "What it does", "Scope"], rows),
  );
}

function saveText(name, text) {
  save(name, new Blob([text], { type: "application/json" }));
}
