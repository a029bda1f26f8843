// Commands to copy, with this server's address filled in. The key stays out of them.

import { SERVER } from "./api.js";
import { code, el } from "./dom.js";
import { keyOf } from "./session.js";

const SMALL = 6;

/** An argument of a shell, quoted. */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function curl(path, body) {
  const key = keyOf() === null ? "" : ` \\\n  -H "X-API-Key: $FAISSBASE_API_KEY"`;
  return `curl -s ${quoted(SERVER + path)}${key} \\\n  -H "content-type: application/json" \\\n  -d ${body}`;
}

export function curlSearch(name, route, body) {
  return curl(`/v1/index/${name}/${route}`, quoted(body));
}

export function curlCreate() {
  return curl("/v1/index", quoted('{"name": "docs", "dimension": 384, "metric": "cosine"}'));
}

export function curlBackup() {
  const key = keyOf() === null ? "" : ` -H "X-API-Key: $FAISSBASE_API_KEY"`;
  return `curl -f -X POST ${quoted(`${SERVER}/v1/backup`)}${key} -o backup.faissbase`;
}

function connect() {
  const key = keyOf() === null ? "" : "  # the key is taken from FAISSBASE_API_KEY";
  return `db = faissbase.connect(${JSON.stringify(SERVER)})${key}`;
}

export function pythonCreate() {
  return `import faissbase

${connect()}
docs = db.create_collection("docs", dimension=384, metric="cosine")`;
}

/** How to store two records in an index, from a shell. */
export function curlInsert({ name, dimension }) {
  const path = `/v1/index/${name}/vectors`;
  if (dimension <= SMALL) {
    const values = Array.from({ length: dimension }, (_, i) => ((i + 1) / 10).toFixed(1)).join(", ");
    const record = (id, text) =>
      `  {"id": "${id}", "values": [${values}], "metadata": {"lang": "en"}, "document": "${text}"}`;
    const records = [record("first", "A first document"), record("second", "A second document")].join(",\n");
    return curl(path, quoted(`{"vectors": [\n${records}]}`));
  }
  const numbers = `[random.random() for _ in range(${dimension})]`;
  const maker = `import json, random
print(json.dumps({"vectors": [
    {"id": "first", "values": ${numbers}, "metadata": {"lang": "en"}, "document": "A first document"},
    {"id": "second", "values": ${numbers}, "metadata": {"lang": "en"}, "document": "A second document"},
]}))`;
  return `python3 -c ${quoted(maker)} | ${curl(path, "@-")}`;
}

/** The same from Python. */
export function pythonInsert({ name, dimension }) {
  return `import faissbase
import numpy as np

${connect()}
docs = db.get_collection(${JSON.stringify(name)})
docs.upsert(
    ids=["first", "second"],
    vectors=np.random.rand(2, ${dimension}),  # your model's embeddings
    metadatas=[{"lang": "en"}, {"lang": "en"}],
    documents=["A first document", "A second document"],
)`;
}

/** How to bring records into an index that has none. */
export function nothingYet(index) {
  return el(
    "section",
    { class: "card" },
    el("h2", {}, "No records yet"),
    el("p", {}, "Store two from a shell, and come back here to search them:"),
    code(curlInsert(index), "with curl"),
    el("p", {}, "or from Python, with ", el("code", {}, 'pip install "faissbase[client]"'), ":"),
    code(pythonInsert(index), "with Python"),
    el(
      "p",
      { class: "muted" },
      "Whole files go faster: ",
      el("code", {}, 'docs.load_file("vectors.parquet")'),
      ".",
    ),
  );
}
