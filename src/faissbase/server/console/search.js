// The form that asks an index, and what it answers.

import { call } from "./api.js";
import { askedOf } from "./asked.js";
import { code, el, field, form, table } from "./dom.js";
import { explained } from "./explain.js";
import { documentOf, likeOf, metadataOf, openerOf } from "./record.js";
import { curlSearch } from "./snippets.js";
import { jsonText, milliseconds, real, several, vectorLength, vectorText } from "./text.js";

const MODES = [
  ["text", "Text", "Words of the documents, ranked by BM25."],
  ["vector", "Vector", "The records nearest to a vector."],
  ["both", "Text and vector", "Both rankings, fused into one."],
  ["record", "Like a record", "The records nearest to one that is stored."],
];
export async function showSearch(context, index, place) {
  const asked = askedOf(index);
  const results = el("section", { "aria-label": "Results", "aria-live": "polite" });
  const node = formOf(context, index, asked, results);
  place.replaceChildren(node, results);
  if (asked.runs) node.requestSubmit();
  asked.runs = false;
  return () => node.requestSubmit();
}

// ---- the form --------------------------------------------------------------------------------------

function formOf(context, index, asked, results) {
  const controls = controlsOf(index, asked);
  const shown = () => {
    for (const [name, node] of Object.entries(controls)) node.hidden = !isUsed(index, asked, name);
  };
  const modes = index.kind === "faiss" ? [] : [modesOf(asked, shown)];
  shown();
  const { text, vector, id, filter, ...small } = controls;
  const large = el("div", { class: "sides" }, el("div", {}, text, vector, id), filter);
  const send = el("button", { type: "submit", class: "main" }, "Search");
  const row = el("div", { class: "row" }, Object.values(small), send);
  const node = form([modes, large, row], send, () => run(context, index, asked, results));
  node.className = "card";
  node.setAttribute("role", "search");
  return node;
}

function modesOf(asked, changed) {
  const about = el("small", { class: "muted" });
  const tell = () => (about.textContent = MODES.find(([mode]) => mode === asked.mode)[2]);
  const choices = MODES.map(([mode, text]) => {
    const choose = () => ((asked.mode = mode), tell(), changed());
    const input = el("input", {
      type: "radio",
      name: "mode",
      value: mode,
      checked: mode === asked.mode,
      onchange: choose,
    });
    return el("label", {}, input, el("span", {}, text));
  });
  tell();
  return el("fieldset", { class: "choices" }, el("legend", {}, "Search by"), el("div", {}, choices), about);
}

function controlsOf(index, asked) {
  const keep = (name, node) => {
    if (node.type === "checkbox") node.checked = asked[name];
    else node.value = asked[name];
    node.addEventListener(
      "input",
      () => (asked[name] = node.type === "checkbox" ? node.checked : node.value),
    );
    return node;
  };
  const line = (attributes) => el("input", { autocomplete: "off", ...attributes });
  const area = (attributes) => el("textarea", { spellcheck: "false", class: "data", ...attributes });
  const check = (name, text) =>
    el("label", { class: "check" }, keep(name, el("input", { type: "checkbox" })), text);
  return {
    text: field("Text", keep("text", line({ placeholder: "words of the documents" }))),
    vector: vectorField(index, keep("vector", area({ rows: "3", placeholder: "[0.12, -0.03, …]" }))),
    id: field("Id of the record", keep("id", line({ class: "data", spellcheck: "false" }))),
    filter: field(
      "Filter",
      keep("filter", area({ rows: "2", placeholder: '{"year": {"$gte": 2025}}' })),
      "JSON; empty for none.",
    ),
    k: field("Hits", keep("k", line({ type: "number", min: "1", required: true, class: "short" }))),
    recall: field(
      "Recall",
      keep(
        "recall",
        line({ type: "number", min: "0", max: "1", step: "any", placeholder: "0.95", class: "short" }),
      ),
    ),
    documents: check("documents", "Documents"),
    explain: check("explain", "Explain"),
  };
}

function vectorField(index, area) {
  const told = el("span", {}, "");
  const tell = () =>
    (told.textContent = area.value.trim()
      ? `${vectorLength(area.value)} of ${index.dimension} numbers.`
      : `${index.dimension} numbers, as a JSON array.`);
  area.addEventListener("input", tell);
  tell();
  return field("Vector", area, told);
}

/** Which controls count: the server refuses what a way to search has no use for. */
function isUsed(index, { mode }, name) {
  if (index.kind === "faiss") return ["vector", "k"].includes(name);
  const used = {
    text: ["text"],
    vector: ["vector", "recall", "explain"],
    both: ["text", "vector"],
    record: ["id", "recall"],
  };
  return [...used[mode], "k", "filter", "documents"].includes(name);
}

// ---- asking ----------------------------------------------------------------------------------------

/** The route and the JSON text of a search; what was typed as JSON travels as it was typed. */
function requestOf(index, asked) {
  const uses = (name) => isUsed(index, asked, name);
  const parts = [];
  const put = (name, json) => parts.push(`${JSON.stringify(name)}: ${json}`);
  if (asked.mode === "record" && uses("id")) put("type", '"by_id"');
  if (uses("id")) put("id", JSON.stringify(asked.id));
  if (uses("text")) put("text", JSON.stringify(asked.text));
  if (uses("vector")) put("vector", vectorText(asked.vector));
  put("k", JSON.stringify(Number(asked.k)));
  if (uses("filter") && asked.filter.trim()) put("filter", jsonText(asked.filter, "the filter"));
  if (uses("recall") && asked.recall.trim()) put("recall", JSON.stringify(Number(asked.recall)));
  if (uses("documents")) put("include", asked.documents ? '["metadata", "document"]' : '["metadata"]');
  if (uses("explain") && asked.explain) put("explain", "true");
  return { route: uses("id") ? "specializedSearch" : "search", body: `{${parts.join(", ")}}` };
}

async function run(context, index, asked, results) {
  const { route, body } = requestOf(index, asked);
  results.classList.add("old"); // until there are new ones
  const { data, ms } = await call(route, { index: index.name, body, signal: context.signal });
  const path = route === "search" ? "search" : "specialized_search";
  results.replaceChildren(...answerOf(context, index, data, ms, curlSearch(index.name, path, body)));
  results.classList.remove("old");
}

function answerOf(context, index, { results, explain }, ms, command) {
  const summary = el(
    "p",
    { class: "summary" },
    el("strong", {}, several(results.length, "hit")),
    ` in ${milliseconds(ms)}`,
    el("span", { class: "muted" }, ", with the way here and back"),
  );
  const asCurl = el("details", {}, el("summary", {}, "This search as a command"), code(command, "with curl"));
  const none = el(
    "p",
    { class: "empty" },
    "Nothing matches. A text search finds whole words of documents; a filter may leave nothing.",
  );
  const hits = results.length ? hitsOf(context, index, results) : none;
  return [summary, explain ? explained(explain) : null, hits, asCurl].filter(Boolean);
}

function hitsOf(context, index, results) {
  const isFaiss = index.kind === "faiss";
  const columns = [
    ["#", "number rank"],
    ["Id", "id"],
    ["Score", "number"],
    ["Distance", "number"],
    ...(isFaiss ? [] : ["Metadata", "Document", ["", "acts"]]),
  ];
  const rows = results.map((hit, i) => [
    String(i + 1),
    isFaiss ? el("span", { class: "data" }, hit.id) : openerOf(context, index, hit.id),
    el("span", { title: JSON.stringify(hit.score) }, real(hit.score, 4)),
    el("span", { title: JSON.stringify(hit.distance) }, real(hit.distance, 4)),
    ...(isFaiss ? [] : [metadataOf(hit.metadata), documentOf(hit.document), likeOf(index, hit.id)]),
  ]);
  return table("Hits", columns, rows);
}
