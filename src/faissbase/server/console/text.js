// Numbers and values as people read them.

const WHOLE = new Intl.NumberFormat("en");
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** A number that may have kept its digits as text: see `parse` in api.js. */
function plain(value) {
  return typeof value === "object" && value !== null ? Number(value.rawJSON) : value;
}

export function count(value) {
  return value === null || value === undefined ? "unknown" : WHOLE.format(plain(value));
}

export function bytes(value) {
  let [left, unit] = [plain(value), 0];
  while (left >= 1024 && unit < UNITS.length - 1) [left, unit] = [left / 1024, unit + 1];
  return `${unit === 0 || left >= 100 ? Math.round(left) : left.toFixed(1)} ${UNITS[unit]}`;
}

export function share(part, whole) {
  return whole ? `${((100 * part) / whole).toFixed(part === whole || !part ? 0 : 1)} %` : "–";
}

export function real(value, digits = 5) {
  const number = plain(value);
  return number === null || number === undefined ? "–" : String(Number(number.toPrecision(digits)));
}

export function milliseconds(value) {
  return value >= 100 ? `${Math.round(value)} ms` : `${real(value, 3)} ms`;
}

export function duration(seconds) {
  const [days, hours, minutes] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60].map(
    Math.floor,
  );
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

export function several(n, one, many = `${one}s`) {
  return `${n === null ? "?" : count(n)} ${n === 1 ? one : many}`;
}

/** The beginning of a text, cut between its characters. */
export function start(text, most) {
  return text.length <= most ? text : `${text.slice(0, most).replace(/[\uD800-\uDBFF]$/, "")}…`;
}

/** JSON text that a person typed for `what`; says what is wrong with it before it is sent. */
export function jsonText(typed, what) {
  try {
    JSON.parse(typed);
  } catch (error) {
    throw new SyntaxError(`${what} is not JSON: ${error.message}`);
  }
  return typed;
}

/** Numbers that a person pasted, as a JSON array: with commas or without, with brackets or without. */
export function vectorText(typed) {
  const words = typed
    .replaceAll(/[[\]()]/g, " ")
    .split(/[\s,;]+/)
    .filter(Boolean);
  for (const word of words) {
    if (!Number.isFinite(Number(word)))
      throw new SyntaxError(`the vector has ${JSON.stringify(start(word, 40))}, which is no number`);
  }
  return `[${words.map(Number).join(", ")}]`;
}

export function vectorLength(typed) {
  return typed.split(/[^\d.eE+-]+/).filter(Boolean).length;
}
