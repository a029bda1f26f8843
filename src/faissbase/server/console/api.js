// Requests to /v1. The only file that sends any, and these are all there are.

import { keyOf } from "./session.js";

export const ROUTES = Object.freeze({
  listIndexes: ["GET", "/v1/index"],
  createIndex: ["POST", "/v1/index"],
  describeIndex: ["GET", "/v1/index/{index}"],
  deleteIndex: ["DELETE", "/v1/index/{index}"],
  stats: ["GET", "/v1/index/{index}/stats"],
  optimize: ["POST", "/v1/index/{index}/optimize"],
  verify: ["POST", "/v1/index/{index}/verify"],
  repair: ["POST", "/v1/index/{index}/repair"],
  recall: ["POST", "/v1/index/{index}/recall"],
  listRecords: ["GET", "/v1/index/{index}/vectors"],
  putRecords: ["POST", "/v1/index/{index}/vectors"],
  getRecords: ["POST", "/v1/index/{index}/vectors/get"],
  updateRecords: ["POST", "/v1/index/{index}/vectors/update"],
  countRecords: ["POST", "/v1/index/{index}/vectors/count"],
  deleteRecords: ["POST", "/v1/index/{index}/vectors/delete"],
  search: ["POST", "/v1/index/{index}/search"],
  specializedSearch: ["POST", "/v1/index/{index}/specialized_search"],
  listKeys: ["GET", "/v1/keys"],
  createKey: ["POST", "/v1/keys"],
  revokeKey: ["DELETE", "/v1/keys/{key}"],
  rotateKey: ["POST", "/v1/keys/{key}/rotate"],
  backup: ["POST", "/v1/backup"],
  metrics: ["GET", "/v1/metrics"],
  openapi: ["GET", "/v1/openapi.json"],
  ready: ["GET", "/v1/health/ready"],
});

// The server's address: the console is one folder below it, also behind the prefix of a proxy.
export const SERVER = new URL("..", import.meta.url).href.replace(/\/$/, "");

/** An error that the server has told, in its own words. */
export class Fault extends Error {
  constructor(status, { code, message, request_id: requestId }) {
    super(message);
    Object.assign(this, { status, code, requestId });
  }
}

/** No answer came, or one that is none of this server's. */
export class Unreachable extends Error {}

const LINES = "application/x-ndjson";

/**
 * What the server answers, and how long that took.
 *
 * `index` and `key` are names for the path, `body` is JSON text as it is sent, or a value that becomes it.
 * `told` is called meanwhile with how far the work is, by routes that tell.
 */
export async function call(route, { index, key, query, body, signal, told } = {}) {
  const [method, path] = ROUTES[route];
  const named = path
    .replace("{index}", encodeURIComponent(index ?? ""))
    .replace("{key}", encodeURIComponent(key ?? ""));
  const url = new URL(SERVER + named);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null) url.searchParams.set(name, value);
  }
  const began = performance.now();
  const options = request(method, body, signal);
  if (told) options.headers.Accept = `${LINES}, application/json`;
  const take = (response) => (isLines(response) ? lastOf(response, told) : response.text());
  const { response, content: text } = await answer(url, options, take);
  const ms = performance.now() - began;
  if (isLines(response)) return { data: answerOf(text), ms, text };
  if (response.ok) return { data: read(response, text), ms, text };
  throw refusal(response, text, signal);
}

/** The file that a route answers with; `begun` is told its size as soon as the server has it. */
export async function download(route, { signal, begun }) {
  const [method, path] = ROUTES[route];
  const take = (response) => {
    if (!response.ok) return response.text();
    begun(Number(response.headers.get("content-length")));
    return response.blob(); // the browser keeps a large one on its disk
  };
  const { response, content } = await answer(SERVER + path, request(method, undefined, signal), take);
  if (!response.ok) throw refusal(response, content, signal);
  const [, name] = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "") ?? [];
  return { blob: content, name: name ?? "download" };
}

const isLines = (response) => (response.headers.get("content-type") ?? "").startsWith(LINES);

/** The last line of an answer; what is told by those before goes to `told`. */
async function lastOf(response, told) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let last = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return last;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const { progress } = JSON.parse(line);
      if (progress) told(progress);
      else last = line;
    }
  }
}

/** What the last line has: the answer, or the error that it tells. */
function answerOf(line) {
  if (line === "") throw new Unreachable(`${SERVER} has not told the end of it`);
  const { status, error, answer: found } = parse(line);
  if (error) throw new Fault(status, error);
  return found;
}

function request(method, body, signal) {
  const headers = {};
  if (keyOf() !== null) headers["X-API-Key"] = keyOf();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return {
    method,
    headers,
    body: body === undefined || typeof body === "string" ? body : JSON.stringify(body),
    signal,
    cache: "no-store",
    credentials: "same-origin",
    redirect: "error",
    referrerPolicy: "no-referrer",
  };
}

async function answer(url, options, take) {
  try {
    const response = await fetch(url, options);
    return { response, content: await take(response) };
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Unreachable(`no answer from ${SERVER} (${error.message})`);
  }
}

/** The error of an answer; that a key is needed is told to the page, too. */
function refusal(response, text, signal) {
  const fault = faultOf(response, text);
  if (response.status === 401 && !signal?.aborted) {
    document.dispatchEvent(new CustomEvent("faissbase:unauthenticated", { detail: fault }));
  }
  return fault;
}

function read(response, text) {
  const isJson = (response.headers.get("content-type") ?? "").startsWith("application/json");
  return isJson && text !== "" ? parse(text) : text;
}

function faultOf(response, text) {
  let told = null;
  try {
    told = JSON.parse(text).error;
  } catch {
    // a proxy's page, say
  }
  if (typeof told?.message === "string") return new Fault(response.status, told);
  if (response.status === 503 && text !== "") return new Unreachable("the server is not ready");
  return new Unreachable(`${SERVER} answered ${response.status}, which is none of faissbase's errors`);
}

/** JSON as it is: whole numbers that JavaScript would round keep their digits. */
export function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    const isRounded = typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value);
    return isRounded && context?.source && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
  });
}
