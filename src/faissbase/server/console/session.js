// Who asks: an API key, kept for this tab alone and forgotten when it is closed or at "Sign out".

const PLACE = "faissbase.key";
let key = stored();

function stored() {
  try {
    return sessionStorage.getItem(PLACE);
  } catch {
    return null; // the browser keeps nothing: it lives as long as the page
  }
}

export function keyOf() {
  return key;
}

export function signIn(text) {
  key = text;
  try {
    sessionStorage.setItem(PLACE, text);
  } catch {
    // as above
  }
}

export function signOut() {
  key = null;
  try {
    sessionStorage.removeItem(PLACE);
  } catch {
    // as above
  }
}

/** The part of a key that is no secret, by which it stands in the list of keys; null without one. */
export function idOf() {
  return key === null ? null : (key.split("_")[1] ?? null);
}

/** Whether a text can be a key at all: what cannot stand in a header never leaves the page. */
export function isKey(text) {
  return /^[\x21-\x7e]+$/.test(text);
}
