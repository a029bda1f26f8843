// One index: its head, and the page of the chosen tab below it.

import { call } from "./api.js";
import { el } from "./dom.js";
import { badges } from "./indexes.js";
import { showOverview } from "./overview.js";
import { showRecords } from "./records.js";
import { showSearch } from "./search.js";
import { nothingYet } from "./snippets.js";
import { several } from "./text.js";

const TABS = [
  ["search", "Search", showSearch],
  ["records", "Records", showRecords],
  ["overview", "Overview", showOverview],
];

export async function showIndex(context, name, tab) {
  const { data } = await call("describeIndex", { index: name, signal: context.signal });
  if (!context.isCurrent()) return;
  document.title = `${data.name} – faissbase`;
  const tabs = data.kind === "faiss" ? TABS.filter(([each]) => each !== "records") : TABS;
  const [chosen, , show] = tabs.find(([each]) => each === tab) ?? tabs[0];
  const place = el("div");
  let head = headOf(data);
  context.main.replaceChildren(head, tabsOf(data, tabs, chosen), place);
  const isEmpty = data.kind !== "faiss" && data.ntotal === 0 && chosen === "search";
  if (isEmpty) {
    place.replaceChildren(nothingYet(data));
    return;
  }
  const changed = async () => {
    const fresh = (await call("describeIndex", { index: name, signal: context.signal })).data;
    const before = head;
    head = headOf(fresh);
    before.replaceWith(head);
    await again(fresh);
  };
  const again = (await show({ ...context, changed }, data, place)) ?? context.again;
}

function headOf(index) {
  const facts = [several(index.ntotal, "record"), `d = ${index.dimension}`, index.metric, index.index_type];
  return el(
    "div",
    { class: "head" },
    el(
      "div",
      {},
      el("p", { class: "crumbs" }, el("a", { href: "#/" }, "Indexes"), " /"),
      el("h1", { tabindex: "-1", class: "data" }, index.name),
    ),
    el(
      "p",
      { class: "badges" },
      badges(index),
      facts.map((each) => el("span", { class: "badge data" }, each)),
    ),
  );
}

function tabsOf(index, tabs, chosen) {
  const links = tabs.map(([tab, text]) =>
    el(
      "a",
      {
        href: `#/index/${encodeURIComponent(index.name)}/${tab}`,
        "aria-current": tab === chosen ? "page" : null,
      },
      text,
    ),
  );
  return el("nav", { class: "tabs", "aria-label": "Index" }, links);
}
