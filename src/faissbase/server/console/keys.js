// API keys of the tenant: listed, made, rotated, revoked. A new key is shown once, in a window of its own.

import { call, Fault } from "./api.js";
import { button, code, dialog, el, facts, field, form, option, table, trouble } from "./dom.js";
import { idOf, keyOf, signIn } from "./session.js";
import { several } from "./text.js";

const DAY_S = 86_400;
const SCOPES = [
  ["read", "read: search and look", ["read"]],
  ["write", "write: also make, change and delete", ["read", "write"]],
  ["admin", "admin: also keys and backups", ["read", "write", "admin"]],
];
const GRACES = [
  [0, "ends at once"],
  [3600, "is good for another hour"],
  [DAY_S, "is good for another day"],
  [7 * DAY_S, "is good for another week"],
];

export async function showKeys(context) {
  const keys = await listed(context);
  if (!context.isCurrent()) return;
  document.title = "Keys – faissbase";
  const title = el("h1", { tabindex: "-1" }, "Keys");
  if (keys instanceof Fault) {
    context.main.replaceChildren(el("div", { class: "head" }, title), trouble(keys), whoMay());
    return;
  }
  const create = button("New key", () => askNew(context, keys.length === 0), { class: "main" });
  const head = el("div", { class: "head" }, title, create);
  context.main.replaceChildren(head, ...(keys.length ? listing(context, keys) : [noneYet()]));
}

/** The keys, or why this key may not see them. */
async function listed({ signal }) {
  try {
    return (await call("listKeys", { signal })).data.keys;
  } catch (error) {
    if (error instanceof Fault && error.status === 403) return error;
    throw error;
  }
}

function whoMay() {
  return el(
    "p",
    {},
    "Keys are made and ended with a key that has the scope ",
    el("code", {}, "admin"),
    " and is not limited to some indexes, or where the server runs: ",
    el("code", {}, "faissbase keys --help"),
    ".",
  );
}

function noneYet() {
  return el(
    "section",
    { class: "card" },
    el("h2", {}, "No key yet"),
    el("p", {}, "This server serves its own machine, and asks nobody who it is."),
    el(
      "p",
      {},
      "From the first key on, every request needs one, and so does this page. Give the first one the scope ",
      el("code", {}, "admin"),
      " to make others with it here.",
    ),
  );
}

// ---- listed ----------------------------------------------------------------------------------------

function listing(context, keys) {
  const good = keys.filter((each) => each.state === "active");
  const ended = keys.filter((each) => each.state !== "active");
  const tenant = el("span", { class: "data" }, keys[0].tenant_id);
  const summary = el("p", { class: "muted" }, `${several(good.length, "good key")} of tenant `, tenant);
  const columns = ["Key", "Scopes", "Indexes", "Made", "Expires", ["", "acts"]];
  const shown = good.length
    ? table("Keys", columns, good.map((each) => [...cellsOf(each), actsOf(context, each)]))
    : el("p", { class: "empty" }, "No key is good any more.");
  if (ended.length === 0) return [summary, shown];
  const past = table(
    "Ended keys",
    ["Key", "Scopes", "Indexes", "Made", "Expires", "State"],
    ended.map((each) => [...cellsOf(each), each.state]),
  );
  const summaryOfPast = el("summary", {}, `${several(ended.length, "key")} revoked or expired`);
  return [summary, shown, el("details", {}, summaryOfPast, past)];
}

function cellsOf({ id, name, scopes, indexes, created_s: made, expires_s: ends }) {
  const isOwn = id === idOf();
  return [
    el(
      "span",
      {},
      name ? el("span", { class: "text strong" }, name, " ") : null,
      el("span", { class: "data muted" }, id),
      isOwn ? el("span", { class: "badge" }, "yours") : null,
    ),
    scopes.join(", "),
    indexes === undefined ? "all" : el("span", { class: "data" }, indexes.join(", ")),
    moment(made),
    ends === undefined ? "never" : moment(ends),
  ];
}

function actsOf(context, key) {
  const named = key.name || key.id;
  const act = (text, run) => button(text, run, { class: "small quiet", "aria-label": `${text} ${named}` });
  return el(
    "span",
    {},
    act("Rotate", () => askRotate(context, key)),
    act("Revoke", () => askRevoke(context, key)),
  );
}

/** A time of the server's clock, in the person's own zone. */
function moment(seconds) {
  const at = new Date(1000 * seconds);
  const shown = at.toLocaleString("sv-SE", { dateStyle: "short", timeStyle: "short" });
  return el("time", { datetime: at.toISOString(), title: at.toISOString() }, shown);
}

// ---- made ------------------------------------------------------------------------------------------

function askNew(context, isFirst) {
  const name = el("input", { autocomplete: "off", maxlength: "200" });
  const scope = el(
    "select",
    {},
    SCOPES.map(([value, text]) => option(value, text, value === (isFirst ? "admin" : "read"))),
  );
  const indexes = el("input", { class: "data", autocomplete: "off", spellcheck: "false" });
  const days = el("input", { type: "number", min: "0", max: "36500", step: "any", class: "short" });
  const parts = [
    field("Name", name, "What it is for; it is no secret."),
    field("Scope", scope),
    field("Indexes", indexes, "Names with commas between; empty for all, those to come too."),
    field("Expires in days", days, "Empty for never."),
  ];
  dialog("New key", (close) =>
    form(parts, "Make it", async () => {
      const only = indexes.value.split(/[\s,]+/).filter(Boolean);
      const body = { name: name.value.trim(), scopes: SCOPES.find(([value]) => value === scope.value)[2] };
      if (only.length) body.indexes = only;
      if (days.value) body.expires_in_s = Number(days.value) * DAY_S;
      const { data } = await call("createKey", { body });
      close();
      showOnce(context, data);
    }),
  );
}

/** The text of a new key: nobody can show it again, so no accident closes the window. */
function showOnce(context, { key, id, name, scopes }, remark = null) {
  const node = dialog(
    "The new key",
    (close) => [
      el("p", {}, "Copy it now: it is shown this once, and only its hash is kept."),
      code(key, "the key"),
      facts([
        ["Id", el("span", { class: "data" }, id)],
        ["Name", name ? el("span", { class: "text" }, name) : null],
        ["Scopes", scopes.join(", ")],
      ]),
      remark === null ? null : el("p", { class: "notice warn" }, remark),
      el("div", { class: "actions" }, button("I have it", close, { class: "main" })),
    ].filter(Boolean),
    { isWide: true },
  );
  const shown = node.querySelector("pre"); // and not a button, which the next Enter would press
  shown.focus();
  getSelection().selectAllChildren(shown);
  node.setAttribute("closedby", "none");
  node.addEventListener("cancel", (event) => event.preventDefault());
  node.addEventListener("close", () => context.isCurrent() && context.again());
}

// ---- ended -----------------------------------------------------------------------------------------

function named({ id, name }) {
  return el("strong", { class: "data" }, name ? `${name} (${id})` : id);
}

function askRotate(context, key) {
  const grace = el(
    "select",
    {},
    GRACES.map(([value, text]) => option(value, text)),
  );
  const isOwn = key.id === idOf();
  dialog("Rotate a key", (close) =>
    form(
      [
        el("p", {}, "A new key takes the place of ", named(key), ": it may do the same, and expires when it would."),
        field("The old key", grace),
      ],
      "Rotate it",
      async () => {
        const { data } = await call("rotateKey", { key: key.id, body: { grace_s: Number(grace.value) } });
        close();
        if (isOwn) signIn(data.key);
        showOnce(context, data, isOwn ? "It was your own: this tab goes on with the new one." : null);
      },
    ),
  );
}

function askRevoke(context, key) {
  const isOwn = key.id === idOf() && keyOf() !== null;
  const own = el("p", { class: "notice bad" }, "You are signed in with it: this page then asks for another.");
  dialog("Revoke a key", (close) =>
    form(
      [
        el("p", {}, "Requests with ", named(key), " are refused from the next one on, for good."),
        isOwn ? own : null,
      ],
      "Revoke it",
      async () => {
        await call("revokeKey", { key: key.id });
        close();
        context.again();
      },
      { kind: "danger" },
    ),
  );
}
