// The playground: takes a photo or its link, uploads what is a file, follows the job and shows how it ended.
// What happens changes `state`; `render` alone writes to the page. Text from the API is only ever textContent.

import { TEXTS } from "./texts.js";

const API = "/api/v1/scan";
const UPLOADS = "/api/v1/images/scan";
const STAGES = ["queued", "fetch", "vision", "rule", "answer", "done"]; // The API's `reward` is kept for older clients.
const UPLOAD = "upload"; // The page's own stage, before the API's, of a photo that is a file.
const TIMING_OF = { queued: "queued", fetch: "fetch", vision: "vision", rule: "rules", answer: "answer" };
const POLL_MS = 2000;
const PREVIEW_MS = 400;
const REQUEST_MS = 20_000;
const MAX_STREAM_FAILURES = 3;
const MAX_POLL_FAILURES = 5;
const SHOWN_SECONDS = 0.01; // A stage that took less was there at once.
const LINK_EXPIRED = 410;
const MAX_LINKS = 2; // As many may expire before that is a failure.
const LOCALE_KEY = "bunri.locale";

// For files whose type the browser does not know. What it knows it says itself.
const TYPE_OF = { heic: "image/heic", heif: "image/heif", avif: "image/avif" };

// What becomes of a stage that had begun, or was still to come, when the job ends.
const FATES = {
  completed: { started: "completed", waiting: "completed" },
  failed: { started: "failed", waiting: "skipped" },
  cancelled: { started: "skipped", waiting: "skipped" },
};

const BUSY = new Set(["uploading", "sending", "running"]); // Phases of a scan that goes on.

// `photo` is the file to upload, and null when the link counts.
const state = { locale: rememberedLocale(), notice: null, photo: null, scan: null };

const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const text = (key) => TEXTS[state.locale][key];

// --- Talking to the API ---

/** An answer that is no success; `problem` is its RFC 9457 body, or null when it has none. */
class Refusal extends Error {
  constructor(status, problem) {
    super(`HTTP ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/** The file did not arrive, and nobody says why. */
class UploadFailed extends Error {}

/** The JSON of a successful answer. Throws Refusal, or what fetch throws when nothing answered. */
async function call(path, options = {}) {
  const headers = { "Accept-Language": state.locale, ...options.headers };
  const reply = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(REQUEST_MS) });
  const body = await reply.json().catch(() => null);
  const isProblem = reply.headers.get("content-type")?.startsWith("application/problem+json");
  if (!reply.ok || body === null) throw new Refusal(reply.status, isProblem ? body : null);
  return body;
}

/** What to show of anything that `call` throws. Texts of ours go by their key, so that they follow the language. */
function failureOf(error) {
  if (error instanceof UploadFailed) {
    return { code: "page.upload_failed", key: "failure.upload_failed", retryable: true };
  }
  if (!(error instanceof Refusal)) return { code: "page.unreachable", key: "failure.unreachable", retryable: true };
  if (!error.problem) return { code: "page.unreadable", key: "failure.unreadable", retryable: true };
  const { title, detail, code, retryable, trace_id, errors } = error.problem;
  return { title, message: detail, code, retryable, trace: trace_id, fields: errors };
}

/** The API escapes the model's words for clients that show them as HTML. This undoes it, once. */
function decoded(escaped) {
  const characters = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };
  return escaped.replace(/&(?:amp|lt|gt|quot|#x27);/g, (entity) => characters[entity]);
}

// --- One scan, from sending to its end ---

/** `key` stays the same when a request is sent again, so that it remains one job. */
async function send(request, key = newKey()) {
  await ask(begin(request.locale, "sending", STAGES), request, key);
}

/** Upload the photo first. Once it is there, only the request is sent again. */
async function sendFile(request, file) {
  const scan = begin(request.locale, "uploading", [UPLOAD, ...STAGES]);
  scan.stages[UPLOAD] = "started";
  render();
  let image_key;
  try {
    image_key = await upload(scan, file);
  } catch (error) {
    if (scan.phase !== "uploading") return; // Cancelled.
    const retry = () => sendFile({ ...request, locale: state.locale }, file);
    end(scan, "refused", { failure: failureOf(error), retry });
    return;
  }
  scan.stages[UPLOAD] = "completed";
  scan.phase = "sending";
  render();
  await ask(scan, { image_key, ...request }, newKey());
}

function begin(locale, phase, stages) {
  const scan = {
    locale,
    phase,
    job: null,
    stage: "queued",
    stages: Object.fromEntries(stages.map((stage) => [stage, "waiting"])),
    uploaded: 0,
    progress: 0,
    stop: () => {},
  };
  state.scan = scan;
  state.notice = null;
  render();
  reveal();
  return scan;
}

async function ask(scan, request, key) {
  scan.resend = () => send({ ...request, locale: state.locale });
  try {
    scan.job = await call(API, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": key },
      body: JSON.stringify(request),
    });
  } catch (error) {
    end(scan, "refused", { failure: failureOf(error), retry: () => send(request, key) });
    return;
  }
  scan.phase = "running";
  advance(scan, { stage: "queued", status: "started", progress: 0 });
  follow(scan);
  watchQueue(scan);
}

/** Where the job stands in the queue, while others are ahead of it. */
async function watchQueue(scan) {
  while (scan.phase === "running" && scan.stage === "queued" && scan.job.queue_position > 1) {
    await pause(POLL_MS);
    const { queue_position, estimated_wait } = await call(scan.job.status_url).catch(() => scan.job);
    Object.assign(scan.job, { queue_position, estimated_wait });
    renderScan();
  }
}

/** The key of the uploaded photo. A link that has expired before the file was sent is replaced. */
async function upload(scan, file) {
  for (let links = 1; ; links += 1) {
    const link = await call(UPLOADS, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ filename: file.name, content_type: typeOf(file) }),
    });
    if (scan.phase !== "uploading") throw new UploadFailed();
    try {
      await put(scan, link, file);
      return link.key;
    } catch (error) {
      if (error.status !== LINK_EXPIRED || links === MAX_LINKS) throw error;
    }
  }
}

/** By XMLHttpRequest, because fetch does not tell how far an upload is. */
function put(scan, link, file) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const arrived = (share) => {
      scan.uploaded = share;
      renderScan();
    };
    request.upload.onprogress = ({ loaded, total }) => arrived(total ? loaded / total : 1);
    request.onload = () => (request.status >= 200 && request.status < 300 ? resolve() : reject(refusalOf(request)));
    request.onerror = () => reject(new UploadFailed());
    request.onabort = request.onerror;
    request.open("PUT", link.upload_url);
    for (const [name, value] of Object.entries(link.required_headers)) request.setRequestHeader(name, value);
    scan.stop = () => request.abort();
    arrived(0);
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

function follow(scan) {
  const stream = new EventSource(scan.job.stream_url);
  let failures = 0;
  const leave = () => {
    stream.close();
    poll(scan);
  };
  scan.stop = () => stream.close();
  for (const stage of [...STAGES, "reward"]) {
    stream.addEventListener(stage, (message) => {
      failures = 0;
      const event = JSON.parse(message.data);
      if (stage !== "done") advance(scan, event);
      else if (event.outcome !== "completed" || event.result) conclude(scan, event.outcome, event.result, event.error);
      else leave();
    });
  }
  stream.onerror = () => {
    failures += 1;
    if (stream.readyState === EventSource.CLOSED || failures === MAX_STREAM_FAILURES) leave();
  };
}

async function poll(scan) {
  let failures = 0;
  while (scan.phase === "running") {
    try {
      const reply = await call(scan.job.result_url);
      failures = 0;
      if (reply.status !== "processing") {
        conclude(scan, reply.status, reply.pipeline_result, reply.error);
        return;
      }
      advance(scan, { stage: reply.current_stage, status: "started", progress: reply.progress });
    } catch (error) {
      if (scan.phase !== "running") return;
      failures += 1;
      const isFinal = error instanceof Refusal && error.problem?.retryable === false;
      if (isFinal || failures === MAX_POLL_FAILURES) {
        end(scan, "refused", { failure: failureOf(error), retry: isFinal ? scan.resend : () => resume(scan) });
        return;
      }
    }
    await pause(POLL_MS);
  }
}

/** Look again for a job that may well have gone on while we could not see it. */
function resume(scan) {
  Object.assign(scan, { phase: "running", outcome: null, failure: null });
  render();
  poll(scan);
}

/** A stage began or ended: those before it are over, and when a job is tried again those after it are not. */
function advance(scan, { stage, status, progress }) {
  const place = STAGES.indexOf(stage);
  if (place < 0 || scan.phase !== "running") return;
  STAGES.forEach((other, at) => {
    const isOpen = scan.stages[other] === "waiting" || scan.stages[other] === "started";
    if (at < place && isOpen) scan.stages[other] = "completed";
    if (at > place && status === "started") scan.stages[other] = "waiting";
  });
  // Its `queued: completed` says that the job is in the queue; it has left it when another stage begins.
  scan.stages[stage] = stage === "queued" ? "started" : status;
  Object.assign(scan, { stage, progress, couldNotCancel: false });
  render();
}

/** The job has ended, says the stream or the poll. */
function conclude(scan, outcome, result, error) {
  if (scan.phase !== "running") return;
  if (outcome === "completed" && !result) {
    end(scan, "refused", { failure: failureOf(new Refusal(200, null)), retry: scan.resend });
    return;
  }
  const failure = error && {
    key: "failure",
    message: error.message,
    code: error.code,
    retryable: error.retryable,
    trace: error.trace_id,
  };
  end(scan, outcome, { result, failure, retry: scan.resend });
  if (outcome === "completed") describe(scan);
}

function end(scan, outcome, { result = null, failure = null, retry = null } = {}) {
  scan.stop();
  // Without an answer nobody knows how a job goes on; but where there is no job, nothing does.
  const fates = FATES[outcome] ?? (scan.job ? {} : FATES.failed);
  for (const stage of Object.keys(scan.stages)) scan.stages[stage] = fates[scan.stages[stage]] ?? scan.stages[stage];
  if (outcome === "completed") scan.progress = 100;
  Object.assign(scan, { phase: "ended", outcome, result, failure, retry });
  render();
  focusOn({ completed: "result-title", cancelled: "cancelled-title" }[outcome] ?? "failure-title");
}

/** Which model answered and how long it took: only the job itself knows. The result is good without it. */
async function describe(scan) {
  scan.details = await call(scan.job.status_url).catch(() => null);
  render();
}

async function cancel(scan) {
  if (scan.phase === "uploading") {
    end(scan, "cancelled");
    return;
  }
  try {
    await call(scan.job.cancel_url, { method: "POST" });
  } catch (error) {
    // A job that has just ended says so itself.
    if (error instanceof Refusal && error.problem?.code === "job.finished") return;
    scan.couldNotCancel = true;
    render();
    return;
  }
  if (scan.phase === "running") end(scan, "cancelled");
}

/** randomUUID exists on https and localhost only; this works anywhere. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- Showing it ---

function render() {
  document.documentElement.lang = state.locale;
  document.title = text("page.title");
  for (const [name, assign] of [
    ["text", (element, value) => element.replaceChildren(value)],
    ["placeholder", (element, value) => element.setAttribute("placeholder", value)],
    ["label", (element, value) => element.setAttribute("aria-label", value)],
    ["alt", (element, value) => element.setAttribute("alt", value)],
  ]) {
    for (const element of document.querySelectorAll(`[data-${name}]`)) assign(element, text(element.dataset[name]));
  }
  for (const button of document.querySelectorAll("[data-locale]")) {
    button.setAttribute("aria-pressed", String(button.dataset.locale === state.locale));
  }
  renderNotice();
  renderPhoto();
  renderScan();
}

function renderNotice() {
  show("notice", state.notice !== null);
  $("notice").dataset.code = state.notice ?? "";
  write("notice", state.notice ? text(`notice.${state.notice}`) : "");
  $("image-url").setAttribute("aria-invalid", String(state.notice === "empty"));
}

function renderPhoto() {
  const file = state.photo?.file;
  show("chosen-part", Boolean(file));
  write("chosen-name", file?.name ?? "");
  write("chosen-size", file ? inBytes(file.size) : "");
}

function renderScan() {
  const { scan } = state;
  const { phase, outcome } = scan ?? {};
  const isBusy = BUSY.has(phase);
  $("scan").dataset.outcome = outcome ?? phase ?? "idle";
  $("scan").setAttribute("aria-busy", String(isBusy));
  $("submit").setAttribute("aria-disabled", String(isBusy));
  show("welcome", !scan);
  show("now", Boolean(scan));
  show("cancel", phase === "uploading" || phase === "running");
  show("running", Boolean(scan?.job || scan?.stages[UPLOAD]));
  show("result", outcome === "completed");
  show("failure", Boolean(scan?.failure));
  show("cancelled", outcome === "cancelled");
  write("status", statusOf(scan));
  if (!scan) return;
  renderStages(scan);
  if (scan.result) renderResult(scan);
  if (scan.failure) renderFailure(scan);
}

function statusOf(scan) {
  if (!scan) return "";
  if (scan.phase === "uploading") return text("stage.upload.now");
  if (scan.phase === "sending") return text("scan.sending");
  if (scan.phase === "running") {
    return scan.couldNotCancel ? text("scan.not_cancelled") : text(`stage.${scan.stage}.now`) + placeOf(scan);
  }
  return text(`outcome.${scan.outcome}`) ?? text("outcome.failed");
}

/** How many are ahead of a waiting job and how long that takes, as far as the API knows. */
function placeOf({ stage, job }) {
  if (stage !== "queued" || !(job.queue_position > 1)) return "";
  const ahead = text("queue.ahead").replace("{count}", job.queue_position - 1);
  const wait = job.estimated_wait === null ? "" : text("queue.wait").replace("{time}", inSeconds(job.estimated_wait));
  return ` ${ahead} ${wait}`.trimEnd();
}

/** The items stay the same elements, so that screen readers and animations are not disturbed. */
function renderStages(scan) {
  const stages = Object.keys(scan.stages);
  if ($("stages").children.length !== stages.length) $("stages").replaceChildren(...stages.map(stageItem));
  for (const item of $("stages").children) {
    const { stage } = item.dataset;
    const status = scan.stages[stage];
    const seconds = scan.details?.timings[TIMING_OF[stage]];
    item.dataset.status = status;
    item.setAttribute("aria-current", status === "started" ? "step" : "false");
    item.querySelector(".name").textContent = text(`stage.${stage}`);
    item.querySelector(".hidden").textContent = text(`stage_status.${status}`);
    item.querySelector(".seconds").textContent = seconds >= SHOWN_SECONDS ? inSeconds(seconds) : "";
  }
  $("upload-progress").value = scan.uploaded;
  show("upload-progress", scan.phase === "uploading");
  $("progress").value = scan.progress;
  show("progress", scan.phase === "sending" || scan.phase === "running");
}

function stageItem(stage) {
  const item = document.createElement("li");
  item.dataset.stage = stage;
  for (const name of ["name", "hidden", "seconds"]) {
    const part = document.createElement("span");
    part.className = name;
    item.append(part);
  }
  return item;
}

function renderResult({ locale, result, details, job }) {
  const { classification, confidence } = result.classification_result;
  const { disposal_steps, insufficiencies, user_answer } = result.final_answer;
  const { major_category, middle_category, minor_category } = classification;
  for (const id of ["result-title", "answer", "steps", "checks"]) $(id).lang = locale;
  list("category", "span", [major_category, middle_category, minor_category].filter(Boolean));
  write("result-title", result.disposal_rules.title ?? middle_category);
  $("confidence-meter").value = confidence;
  write("confidence-value", inPercent(confidence));
  write("answer", decoded(user_answer));
  list("steps", "li", Object.values(disposal_steps).map(decoded));
  list("checks", "li", insufficiencies.map(decoded));
  show("checks-part", insufficiencies.length > 0);
  renderRule(result.disposal_rules, locale);
  show("degraded-note", Boolean(details?.degraded));
  show("local-note", Boolean(details?.model?.startsWith("local/")));
  show("cached-note", Boolean(details?.cached));
  show("model-part", Boolean(details?.model));
  show("time-part", Boolean(details?.finished_at));
  write("model", details?.model ?? "");
  write("time", details?.finished_at ? inSeconds(details.finished_at - details.created_at) : "");
  write("version", job.pipeline_version);
}

/** What the rule document says besides the answer. It is data of ours, but not of this page's: a link must be one. */
function renderRule({ cautions = [], not_this = [], source = null }, locale) {
  for (const id of ["cautions", "not-this", "source"]) $(id).lang = locale;
  list("cautions", "li", cautions);
  list("not-this", "li", not_this);
  write("source", source?.title ?? "");
  if (source && isWebLink(source.url)) $("source").href = source.url;
  else $("source").removeAttribute("href");
  show("cautions-part", cautions.length > 0);
  show("not-this-part", not_this.length > 0);
  show("source-part", Boolean(source));
  show("rule-part", Boolean(source) || cautions.length + not_this.length > 0);
}

function renderFailure({ locale, failure, retry }) {
  const { key, title, message, code, trace, fields } = failure;
  write("failure-title", title ?? text(key === "failure" ? "failure.title" : key));
  write("failure-message", message ?? text(`${key}.message`));
  $("failure-message").lang = message ? locale : state.locale;
  list("failure-fields", "li", (fields ?? []).map(({ field, reason }) => `${field}: ${reason}`));
  show("failure-fields", Boolean(fields?.length));
  $("failure").dataset.code = code;
  write("failure-code", code);
  write("failure-trace", trace ?? "");
  show("failure-trace-part", Boolean(trace));
  show("retry", Boolean(failure.retryable && retry));
}

function write(id, value) {
  if ($(id).textContent !== value) $(id).textContent = value; // Unchanged text is not announced again.
}

function list(id, tag, values) {
  $(id).replaceChildren(
    ...values.map((value) => Object.assign(document.createElement(tag), { textContent: value })),
  );
}

function show(id, isShown) {
  $(id).hidden = !isShown;
}

/** Rounded down: 100 % would promise too much. */
function inPercent(share) {
  const percent = Math.floor(share * 100 + 1e-9) / 100;
  return new Intl.NumberFormat(state.locale, { style: "percent" }).format(percent);
}

function inSeconds(seconds) {
  const digits = seconds < 1 ? 2 : 1;
  return new Intl.NumberFormat(state.locale, {
    style: "unit",
    unit: "second",
    unitDisplay: "narrow",
    maximumFractionDigits: digits,
  }).format(seconds);
}

function inBytes(size) {
  const [unit, count] = size < 1e6 ? ["kilobyte", Math.ceil(size / 1e3)] : ["megabyte", size / 1e6];
  return new Intl.NumberFormat(state.locale, { style: "unit", unit, maximumFractionDigits: 1 }).format(count);
}

/** Bring keyboard and screen reader to the outcome, unless someone is typing. */
function focusOn(id) {
  if (!document.activeElement?.matches("input, textarea")) $(id).focus({ preventScroll: true });
  reveal();
}

/** On a phone the scan is below the form. */
function reveal() {
  $("scan").scrollIntoView({ block: "nearest" });
}

// --- What people do ---

function rememberedLocale() {
  let remembered = null;
  try {
    remembered = localStorage.getItem(LOCALE_KEY);
  } catch {
    // Storage may be forbidden; then the browser's language decides.
  }
  if (Object.hasOwn(TEXTS, remembered)) return remembered;
  return navigator.language.toLowerCase().startsWith("ko") ? "ko" : "en";
}

function speak(locale) {
  state.locale = locale;
  try {
    localStorage.setItem(LOCALE_KEY, locale);
  } catch {
    // It holds until the page is left.
  }
  render();
}

function submit() {
  if (BUSY.has(state.scan?.phase)) return;
  const image_url = $("image-url").value.trim();
  const user_input = $("question").value.trim();
  const said = { locale: state.locale, ...(user_input && { user_input }) };
  if (state.photo) {
    sendFile(said, state.photo.file);
    return;
  }
  if (!image_url) {
    notify("empty");
    $("image-url").focus();
    return;
  }
  send({ image_url, ...said });
}

function notify(notice) {
  state.notice = notice;
  render();
}

function isWebLink(link) {
  return URL.canParse(link) && /^https?:$/.test(new URL(link).protocol);
}

function preview() {
  const link = $("image-url").value.trim();
  const source = state.photo?.url ?? (isWebLink(link) ? link : null);
  if (source === $("preview").getAttribute("src")) return;
  show("preview", false);
  if (source) $("preview").src = source;
  else $("preview").removeAttribute("src");
}

/** There is one photo, a file or a link: the one chosen last. */
function choose(file) {
  discard();
  state.photo = { file, url: URL.createObjectURL(file) };
  $("image-url").value = "";
  notify(null);
  preview();
}

function discard() {
  if (state.photo) URL.revokeObjectURL(state.photo.url);
  state.photo = null;
}

/** A picture dragged from another page comes as a file and as a link, and the link may lead to another page. */
function drop(transfer) {
  if (transfer.files.length) {
    choose(transfer.files[0]);
    return;
  }
  const lines = (transfer.getData("text/uri-list") || transfer.getData("text/plain")).split(/\r?\n/);
  const link = lines.map((line) => line.trim()).find(isWebLink);
  if (!link) {
    notify("no_link");
    return;
  }
  discard();
  $("image-url").value = link;
  notify(null);
  preview();
}

let typing = 0;

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  preview();
  submit();
});
$("image-url").addEventListener("input", () => {
  if ($("image-url").value.trim()) discard();
  notify(null);
  clearTimeout(typing);
  typing = setTimeout(preview, PREVIEW_MS);
});
for (const id of ["file", "camera"]) {
  $(id).addEventListener("change", () => {
    const [file] = $(id).files;
    $(id).value = ""; // So that the same file can be chosen again.
    if (file) choose(file);
  });
}
$("remove").addEventListener("click", () => {
  discard();
  notify(null);
  preview();
  $("file").focus();
});
document.addEventListener("paste", (event) => {
  const { clipboardData, target } = event;
  // Office programs copy a text with its picture.
  if (!clipboardData.files.length || (target === $("question") && clipboardData.getData("text/plain"))) return;
  event.preventDefault();
  choose(clipboardData.files[0]);
});
$("preview").addEventListener("load", () => show("preview", true));
$("preview").addEventListener("error", () => show("preview", false));
$("cancel").addEventListener("click", () => cancel(state.scan));
$("retry").addEventListener("click", () => state.scan.retry());
for (const button of document.querySelectorAll("[data-locale]")) {
  button.addEventListener("click", () => speak(button.dataset.locale));
}
// On the whole document: a file dropped beside the form must not replace the page.
// Text dragged into the question stays text.
const isForQuestion = (event) => event.target === $("question") && !event.dataTransfer.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (isForQuestion(event)) return;
  event.preventDefault();
  $("form").classList.add("is-target");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("form").classList.remove("is-target");
});
document.addEventListener("drop", (event) => {
  $("form").classList.remove("is-target");
  if (isForQuestion(event)) return;
  event.preventDefault();
  drop(event.dataTransfer);
});

render();
preview(); // A browser may have kept the link over a reload.
