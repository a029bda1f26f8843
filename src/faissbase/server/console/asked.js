// What was typed into the form of each index, so that it is still there when one comes back to it.

const typed = new Map();
const NOTHING = {
  text: "",
  vector: "",
  id: "",
  k: "10",
  filter: "",
  recall: "",
  documents: true,
  explain: false,
  runs: false,
};

export function forget() {
  typed.clear();
}

export function askedOf(index) {
  if (!typed.has(index.name))
    typed.set(index.name, { ...NOTHING, mode: index.kind === "faiss" ? "vector" : "text" });
  return typed.get(index.name);
}

/** Go and search for what is like a stored record. */
export function searchLike(index, id) {
  Object.assign(askedOf(index), { mode: "record", id, runs: true });
  const place = `#/index/${encodeURIComponent(index.name)}/search`;
  if (location.hash === place) window.dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = place;
}
