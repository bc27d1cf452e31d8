// The API: calls, uploads and their failures. Of the page it knows the language only.

import { state } from "./page.js";

const REQUEST_MS = 20_000;
const LINK_EXPIRED = 410;
const MAX_LINKS = 2; // As many may expire before that is a failure.

// For files whose type the browser does not know. What it knows it says itself.
const TYPE_OF = { heic: "image/heic", heif: "image/heif", avif: "image/avif" };

/** An answer that is no success; `problem` is its RFC 9457 body, or null when it has none. */
export class Refusal extends Error {
  constructor(status, problem) {
    super(`HTTP ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/** The file did not arrive, and nobody says why. */
export class UploadFailed extends Error {}

/** The JSON of a successful answer. Throws Refusal, or what fetch throws when nothing answered. */
export async function call(path, options = {}) {
  const headers = { "Accept-Language": state.locale, ...options.headers };
  const reply = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(REQUEST_MS) });
  const body = await reply.json().catch(() => null);
  const isProblem = reply.headers.get("content-type")?.startsWith("application/problem+json");
  if (!reply.ok || body === null) throw new Refusal(reply.status, isProblem ? body : null);
  return body;
}

/** What to show of anything that `call` throws. Texts of ours go by their key, so that they follow the language. */
export function failureOf(error) {
  if (error instanceof UploadFailed) {
    return { code: "page.upload_failed", key: "failure.upload_failed", retryable: true };
  }
  if (!(error instanceof Refusal)) return { code: "page.unreachable", key: "failure.unreachable", retryable: true };
  if (!error.problem) return { code: "page.unreadable", key: "failure.unreadable", retryable: true };
  const { title, detail, code, retryable, trace_id, errors } = error.problem;
  return { title, message: detail, code, retryable, trace: trace_id, fields: errors };
}

/** The API escapes the model's words for clients that show them as HTML. This undoes it, once. */
export function decoded(escaped) {
  const characters = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };
  return escaped.replace(/&(?:amp|lt|gt|quot|#x27);/g, (entity) => characters[entity]);
}

/**
 * The key of the uploaded photo. A link that has expired before the file was sent is replaced.
 * `job` says by its phase whether it is still wanted; its `uploaded` grows, which `arrived` is told.
 */
export async function upload(job, file, uploads, arrived) {
  for (let links = 1; ; links += 1) {
    const link = await call(uploads, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ filename: file.name, content_type: typeOf(file) }),
    });
    if (job.phase !== "uploading") throw new UploadFailed();
    try {
      await put(job, link, file, arrived);
      return link.key;
    } catch (error) {
      if (error.status !== LINK_EXPIRED || links === MAX_LINKS) throw error;
    }
  }
}

/** By XMLHttpRequest, because fetch does not tell how far an upload is. */
function put(job, link, file, arrived) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const grow = (share) => {
      job.uploaded = share;
      arrived();
    };
    request.upload.onprogress = ({ loaded, total }) => grow(total ? loaded / total : 1);
    request.onload = () => (request.status >= 200 && request.status < 300 ? resolve() : reject(refusalOf(request)));
    request.onerror = () => reject(new UploadFailed());
    request.onabort = request.onerror;
    request.open("PUT", link.upload_url);
    for (const [name, value] of Object.entries(link.required_headers)) request.setRequestHeader(name, value);
    job.stop = () => request.abort();
    grow(0);
    request.send(file);
  });
}

function refusalOf(request) {
  if (!request.getResponseHeader("Content-Type")?.startsWith("application/problem+json")) return new UploadFailed();
  try {
    return new Refusal(request.status, JSON.parse(request.responseText));
  } catch {
    return new UploadFailed();
  }
}

function typeOf(file) {
  return file.type || (TYPE_OF[file.name.split(".").pop().toLowerCase()] ?? "");
}

/** randomUUID exists on https and localhost only; this works anywhere. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
