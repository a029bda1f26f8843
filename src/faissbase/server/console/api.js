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
  listRecords: ["GET", "/v1/index/{index}/vectors"],
  putRecords: ["POST", "/v1/index/{index}/vectors"],
  getRecords: ["POST", "/v1/index/{index}/vectors/get"],
  updateRecords: ["POST", "/v1/index/{index}/vectors/update"],
  countRecords: ["POST", "/v1/index/{index}/vectors/count"],
  deleteRecords: ["POST", "/v1/index/{index}/vectors/delete"],
  search: ["POST", "/v1/index/{index}/search"],
  specializedSearch: ["POST", "/v1/index/{index}/specialized_search"],
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

/**
 * What the server answers, and how long that took.
 *
 * `body` is JSON text as it is sent, or a value that becomes it.
 */
export async function call(route, { index, query, body, signal } = {}) {
  const [method, path] = ROUTES[route];
  const url = new URL(SERVER + path.replace("{index}", encodeURIComponent(index ?? "")));
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null) url.searchParams.set(name, value);
  }
  const began = performance.now();
  const { response, text } = await answer(url, request(method, body, signal), signal);
  const ms = performance.now() - began;
  if (response.ok) return { data: read(response, text), ms, text };
  const fault = faultOf(response, text);
  if (response.status === 401 && !signal?.aborted) {
    document.dispatchEvent(new CustomEvent("faissbase:unauthenticated", { detail: fault }));
  }
  throw fault;
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

async function answer(url, options, signal) {
  try {
    const response = await fetch(url, options);
    return { response, text: await response.text() };
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable(`no answer from ${SERVER} (${error.message})`);
  }
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
