// Calls of the API and their failures. Of the page it knows the language only.

import { state } from "./page.js";

/**
 * @import { MistakeView, ProblemView, SubmittedView } from "bunri-api"
 */

/** @typedef {"failure.unreachable" | "failure.unreadable" | "failure.upload_failed"} FailureKey */

/**
 * Why something failed, to be shown. `key` is for texts of ours, which follow the page's language; `title` and
 * `message` are the API's.
 * @typedef {object} Failure
 * @property {string} code
 * @property {boolean} retryable
 * @property {FailureKey} [key]
 * @property {string} [title]
 * @property {string} [message]
 * @property {string} [trace]
 * @property {MistakeView[] | null} [fields]
 */

const REQUEST_TIMEOUT_MS = 20_000;

/** An unsuccessful answer; `problem` is its RFC 9457 body, or null when it has none. */
export class Refusal extends Error {
  /**
   * @param {number} status
   * @param {ProblemView | null} problem
   */
  constructor(status, problem) {
    super(`HTTP ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/** The file did not arrive, and no answer says why. */
export class UploadFailed extends Error {}

/**
 * The JSON of a successful answer. Throws Refusal, or what fetch throws when nothing answered.
 * @param {string} path
 * @param {RequestInit & { headers?: Record<string, string> }} options
 * @returns {Promise<any>} any, because its type depends on the path: callers name it
 */
export async function call(path, options = {}) {
  const headers = { "Accept-Language": state.locale, ...options.headers };
  const reply = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
  const body = await reply.json().catch(() => null);
  if (!reply.ok || body === null) {
    throw new Refusal(reply.status, isProblem(reply.headers.get("content-type")) ? body : null);
  }
  return body;
}

/**
 * As `call`, with a JSON body.
 * @param {string} path
 * @param {object} body
 * @param {Record<string, string>} headers
 * @returns {Promise<any>} as of `call`
 */
export function post(path, body, headers = {}) {
  return call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}

/**
 * Whether the job is cancelled now. Null for one that has just ended: its end will be reported.
 * @param {SubmittedView} job
 */
export async function cancelJob(job) {
  try {
    await call(job.cancel_url, { method: "POST" });
    return true;
  } catch (error) {
    return error instanceof Refusal && error.problem?.code === "job.finished" ? null : false;
  }
}

/**
 * Whether a body of this Content-Type is a problem of RFC 9457.
 * @param {string | null} contentType
 */
export function isProblem(contentType) {
  return Boolean(contentType?.startsWith("application/problem+json"));
}

/**
 * What to show of anything that `call` or an upload throws.
 * @param {unknown} error
 * @returns {Failure}
 */
export function failureOf(error) {
  if (error instanceof UploadFailed) {
    return { code: "page.upload_failed", key: "failure.upload_failed", retryable: true };
  }
  if (!(error instanceof Refusal)) return { code: "page.unreachable", key: "failure.unreachable", retryable: true };
  if (!error.problem) return { code: "page.unreadable", key: "failure.unreadable", retryable: true };
  const { title, detail, code, retryable, trace_id, errors } = error.problem;
  return { title, message: detail, code, retryable, trace: trace_id, fields: errors };
}

/** @type {Record<string, string>} */
const CHARACTERS = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };

/**
 * The API escapes the model's words for clients that show them as HTML. This undoes it, once.
 * @param {string} escaped
 */
export function decoded(escaped) {
  return escaped.replace(/&(?:amp|lt|gt|quot|#x27);/g, (entity) => CHARACTERS[entity] ?? entity);
}

/** A new idempotency key. randomUUID exists on https and localhost only; this works anywhere. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
