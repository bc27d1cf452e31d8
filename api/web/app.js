// The playground: takes a photo or its link, uploads what is a file, follows the job and shows how it ended.
// What happens changes `state`; `render` alone writes to the page. Questions in words are chat.js's.

import { call, decoded, failureOf, newKey, upload } from "./api.js";
import { ask as askInWords, cancelChat, renderChat } from "./chat.js";
import { BUSY, POLL_MS, cancelled, endOf, follow, poll } from "./job.js";
import {
  $, focusOn, inBytes, inPercent, inSeconds, isWebLink, list, pause, rememberLocale, renderFailure, reveal, show, state,
  text, write,
} from "./page.js";

const API = "/api/v1/scan";
const UPLOADS = "/api/v1/images/scan";
const STAGES = ["queued", "fetch", "vision", "rule", "answer", "done"]; // The API's `reward` is kept for older clients.
const UPLOAD = "upload"; // The page's own stage, before the API's, of a photo that is a file.
const TIMING_OF = { queued: "queued", fetch: "fetch", vision: "vision", rule: "rules", answer: "answer" };
const TABS = ["scan", "chat"];
const PREVIEW_MS = 400;
const SHOWN_SECONDS = 0.01; // A stage that took less was there at once.

// What becomes of a stage that had begun, or was still to come, when the job ends.
const FATES = {
  completed: { started: "completed", waiting: "completed" },
  failed: { started: "failed", waiting: "skipped" },
  cancelled: { started: "skipped", waiting: "skipped" },
};

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
    image_key = await upload(scan, file, UPLOADS, renderScan);
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
  reveal("scan");
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
  follow(scan, [...STAGES.slice(0, -1), "reward"], toldOf(scan));
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

/** Look again for a job that may well have gone on while we could not see it. */
function resume(scan) {
  Object.assign(scan, { phase: "running", outcome: null, failure: null });
  render();
  poll(scan, toldOf(scan));
}

function toldOf(scan) {
  return {
    step: (_name, event) => advance(scan, event),
    conclude: (...end) => conclude(scan, ...end),
    lost: (error, isFinal) =>
      end(scan, "refused", { failure: failureOf(error), retry: isFinal ? scan.resend : () => resume(scan) }),
  };
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
function conclude(scan, said, result, error) {
  if (scan.phase !== "running") return;
  const [outcome, failure] = endOf(said, result, error);
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
  focusOn({ completed: "result-title", cancelled: "cancelled-title" }[outcome] ?? "failure-title", "scan");
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
  const isCancelled = await cancelled(scan);
  if (isCancelled === null) return;
  if (!isCancelled) {
    scan.couldNotCancel = true;
    render();
    return;
  }
  if (scan.phase === "running") end(scan, "cancelled");
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
  renderTabs();
  renderNotice();
  renderPhoto();
  renderScan();
  renderChat();
}

/** There is one place to choose a photo, which goes along to the tab that is shown. */
function renderTabs() {
  for (const tab of TABS) {
    const isShown = tab === state.tab;
    $(`tab-${tab}`).setAttribute("aria-selected", String(isShown));
    $(`tab-${tab}`).tabIndex = isShown ? 0 : -1;
    show(`panel-${tab}`, isShown);
  }
  const slot = $(`slot-${state.tab}`);
  if (!slot.contains($("photo-part"))) slot.append($("photo-part"));
}

function renderNotice() {
  const isOfWords = state.notice === "no_words";
  for (const [id, notice] of [["notice", isOfWords ? null : state.notice], ["chat-notice", isOfWords ? state.notice : null]]) {
    show(id, notice !== null);
    $(id).dataset.code = notice ?? "";
    write(id, notice ? text(`notice.${notice}`) : "");
  }
  $("image-url").setAttribute("aria-invalid", String(state.notice === "empty"));
  $("message").setAttribute("aria-invalid", String(isOfWords));
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
  if (scan.failure) renderFailure("failure", scan, "failure.title");
  show("retry", Boolean(scan.failure?.retryable && scan.retry));
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

// --- What people do ---

function speak(locale) {
  rememberLocale(locale);
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

function submitWords() {
  if (BUSY.has(state.chat?.phase)) return;
  const message = $("message").value.trim();
  const image_url = state.photo ? "" : $("image-url").value.trim();
  if (!message && !image_url && !state.photo) {
    notify("no_words");
    $("message").focus();
    return;
  }
  askInWords({ message, ...(image_url && { image_url }) }, state.photo?.file);
}

/** `#chat` in the address opens that tab, so that it can be linked to. */
function openTab(tab) {
  state.tab = TABS.includes(tab) ? tab : TABS[0];
  state.notice = null;
  unfold();
  render();
}

/** A photo that will be sent is to be seen. */
function unfold() {
  if (state.photo || $("image-url").value.trim()) $("attach").open = true;
}

/** As the pattern of tabs has it: the arrows go round, and what they reach is shown. */
function moveTab(event) {
  const at = TABS.indexOf(state.tab);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  chooseTab(TABS.at(to % TABS.length));
  $(`tab-${state.tab}`).focus();
}

function chooseTab(tab) {
  history.replaceState(null, "", tab === TABS[0] ? location.pathname : `#${tab}`);
  openTab(tab);
}

function notify(notice) {
  state.notice = notice;
  render();
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
  unfold();
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
  unfold();
  notify(null);
  preview();
}

let typing = 0;
const isForWords = (target) => target instanceof HTMLTextAreaElement;
const FORMS = [$("form"), $("ask")];

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  preview();
  submit();
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  preview();
  submitWords();
});
$("message").addEventListener("input", () => {
  if (state.notice) notify(null);
});
$("message").addEventListener("keydown", (event) => {
  // While a syllable is being composed, Enter only ends it.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
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
  if (!clipboardData.files.length || (isForWords(target) && clipboardData.getData("text/plain"))) return;
  event.preventDefault();
  choose(clipboardData.files[0]);
});
$("preview").addEventListener("load", () => show("preview", true));
$("preview").addEventListener("error", () => show("preview", false));
$("cancel").addEventListener("click", () => cancel(state.scan));
$("retry").addEventListener("click", () => state.scan.retry());
$("chat-cancel").addEventListener("click", cancelChat);
$("chat-retry").addEventListener("click", () => state.chat.retry());
for (const tab of TABS) $(`tab-${tab}`).addEventListener("click", () => chooseTab(tab));
$("tabs").addEventListener("keydown", moveTab);
window.addEventListener("hashchange", () => openTab(location.hash.slice(1)));
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => {
    $("message").value = button.textContent;
    $("message").focus();
  });
}
for (const button of document.querySelectorAll("[data-locale]")) {
  button.addEventListener("click", () => speak(button.dataset.locale));
}
// On the whole document: a file dropped beside the form must not replace the page.
// Text dragged into the question stays text.
const isForQuestion = (event) => isForWords(event.target) && !event.dataTransfer.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (isForQuestion(event)) return;
  event.preventDefault();
  for (const form of FORMS) form.classList.add("is-target");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) for (const form of FORMS) form.classList.remove("is-target");
});
document.addEventListener("drop", (event) => {
  for (const form of FORMS) form.classList.remove("is-target");
  if (isForQuestion(event)) return;
  event.preventDefault();
  drop(event.dataTransfer);
});

openTab(location.hash.slice(1));
preview(); // A browser may have kept the link over a reload.
