// Uploads of photos, straight to where the API's link leads.

import { isProblem, post, Refusal, UploadFailed } from "./api.js";

/**
 * @import { UploadView } from "bunri-api"
 * @import { Phase } from "./run.js"
 */

/**
 * What an upload needs of a run, and changes in it.
 * @typedef {object} Upload
 * @property {Phase} phase an upload goes on while it is "uploading"
 * @property {number} uploaded the share that has been sent, from 0 to 1
 * @property {() => void} stop aborts it
 */

const LINK_EXPIRED = 410;
const MAX_LINKS = 2; // The second one that expires is a failure.

/**
 * For files whose type the browser does not know. Where it knows the type, the browser's counts.
 * @type {Record<string, string>}
 */
const TYPE_OF = { heic: "image/heic", heif: "image/heif", avif: "image/avif" };

/**
 * The key of the uploaded photo. A link that has expired before the file was sent is replaced.
 * Throws UploadFailed, also when it was stopped, or what `call` throws.
 * @param {Upload} run
 * @param {File} file
 * @param {string} path of the API, that gives links
 * @param {() => void} onProgress called after `run.uploaded` has changed
 * @returns {Promise<string>}
 */
export async function upload(run, file, path, onProgress) {
  for (let links = 1; ; links += 1) {
    /** @type {UploadView} */
    const link = await post(path, { filename: file.name, content_type: typeOf(file) });
    if (run.phase !== "uploading") throw new UploadFailed();
    try {
      await put(run, link, file, onProgress);
      return link.key;
    } catch (error) {
      const hasExpired = error instanceof Refusal && error.status === LINK_EXPIRED;
      if (!hasExpired || links === MAX_LINKS) throw error;
    }
  }
}

/**
 * By XMLHttpRequest, because fetch does not report the progress of an upload.
 * @param {Upload} run
 * @param {UploadView} link
 * @param {File} file
 * @param {() => void} onProgress
 * @returns {Promise<void>}
 */
function put(run, link, file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    /** @param {number} share */
    const report = (share) => {
      run.uploaded = share;
      onProgress();
    };
    request.upload.onprogress = ({ loaded, total }) => report(total ? loaded / total : 1);
    request.onload = () => (request.status >= 200 && request.status < 300 ? resolve() : reject(refusalOf(request)));
    request.onerror = () => reject(new UploadFailed());
    request.onabort = request.onerror;
    request.open("PUT", link.upload_url);
    for (const [name, value] of Object.entries(link.required_headers)) request.setRequestHeader(name, value);
    run.stop = () => request.abort();
    report(0);
    request.send(file);
  });
}

/** @param {XMLHttpRequest} request */
function refusalOf(request) {
  if (!isProblem(request.getResponseHeader("Content-Type"))) return new UploadFailed();
  try {
    return new Refusal(request.status, JSON.parse(request.responseText));
  } catch {
    return new UploadFailed();
  }
}

/** @param {File} file */
function typeOf(file) {
  const extension = file.name.split(".").at(-1)?.toLowerCase() ?? "";
  return file.type || (TYPE_OF[extension] ?? "");
}
