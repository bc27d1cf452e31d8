// One question in words, perhaps with a photo, and its answer, which is shown while it is written.
// Each question stands alone, so the last one is all there is to show.

import { call, decoded, failureOf, newKey, upload } from "./api.js";
import { BUSY, cancelled, endOf, follow, poll } from "./job.js";
import { $, focusOn, inPercent, inSeconds, renderFailure, reveal, show, state, text, write } from "./page.js";

const API = "/api/v1/chat/messages";
const UPLOADS = "/api/v1/images/chat";
const STAGES = ["queued", "fetch", "vision", "rule", "answer"];

/** `question` is `{ message, image_url? }`; a `file` is uploaded first. */
export async function ask(question, file) {
  const chat = begin(question.message, file ? "uploading" : "sending");
  const { locale } = chat;
  let photo = {};
  try {
    if (file) photo = { image_key: await upload(chat, file, UPLOADS, renderChat) };
  } catch (error) {
    if (chat.phase === "uploading") end(chat, "refused", failureOf(error), () => ask(question, file));
    return;
  }
  await send(chat, { ...question, ...photo, locale }, newKey());
}

/** `key` stays the same when a request is sent again, so that it remains one job. */
async function send(chat, request, key) {
  chat.phase = "sending";
  chat.again = () => send(begin(request.message, "sending"), { ...request, locale: state.locale }, newKey());
  renderChat();
  try {
    chat.job = await call(API, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": key, Prefer: "respond-async" },
      body: JSON.stringify(request),
    });
  } catch (error) {
    end(chat, "refused", failureOf(error), () => send(begin(request.message, "sending", request.locale), request, key));
    return;
  }
  chat.phase = "running";
  renderChat();
  follow(chat, [...STAGES, "token"], toldOf(chat));
}

function begin(message, phase, locale = state.locale) {
  const chat = { locale, message, phase, job: null, stage: "queued", text: "", uploaded: 0, stop: () => {} };
  state.chat = chat;
  state.notice = null;
  renderChat();
  reveal("chat");
  return chat;
}

function toldOf(chat) {
  return {
    step: (name, event) => {
      if (chat.phase !== "running") return;
      if (name === "token") hear(chat, event);
      else chat.stage = event.stage;
      chat.couldNotCancel = false;
      renderChat();
    },
    conclude: (said, result, error) => {
      if (chat.phase !== "running") return;
      const [outcome, failure] = endOf(said, result, error);
      chat.result = result;
      if (result) chat.text = decoded(result.final_answer.user_answer);
      end(chat, outcome, failure, chat.again);
    },
    lost: (error, isFinal) => end(chat, "refused", failureOf(error), isFinal ? chat.again : () => resume(chat)),
  };
}

/** Each piece is escaped by itself. After a reconnect, or when a job is tried again, the text begins anew. */
function hear(chat, { text: piece, restart }) {
  chat.text = (restart ? "" : chat.text) + decoded(piece);
}

function resume(chat) {
  Object.assign(chat, { phase: "running", outcome: null, failure: null });
  renderChat();
  poll(chat, toldOf(chat));
}

async function end(chat, outcome, failure = null, retry = null) {
  chat.stop();
  if (outcome !== "completed") chat.text = ""; // Half an answer may be worse than none.
  Object.assign(chat, { phase: "ended", outcome, failure, retry });
  renderChat();
  if (failure) focusOn("chat-failure-title", "chat");
  if (outcome !== "completed") return;
  // Which model answered only the job itself knows. The answer is good without it.
  chat.details = await call(chat.job.status_url).catch(() => null);
  renderChat();
}

export async function cancelChat() {
  const { chat } = state;
  if (chat.phase === "uploading") {
    end(chat, "cancelled");
    return;
  }
  const isCancelled = await cancelled(chat);
  if (isCancelled === false) chat.couldNotCancel = true;
  if (isCancelled && chat.phase === "running") end(chat, "cancelled");
  renderChat();
}

// --- Showing it ---

export function renderChat() {
  const { chat } = state;
  const { phase, outcome } = chat ?? {};
  const isBusy = BUSY.has(phase);
  $("chat").dataset.outcome = outcome ?? phase ?? "idle";
  $("chat-submit").setAttribute("aria-disabled", String(isBusy));
  show("chat-welcome", !chat);
  show("chat-asked", Boolean(chat?.message));
  show("chat-upload-progress", phase === "uploading");
  show("chat-answer", Boolean(chat?.text));
  show("chat-now", Boolean(chat));
  show("chat-cancel", phase === "uploading" || phase === "running");
  show("chat-result", outcome === "completed");
  show("chat-failure", Boolean(chat?.failure));
  write("chat-asked", chat?.message ?? "");
  write("chat-status", chat ? statusOf(chat) : "");
  // Busy: a screen reader waits for the whole answer and does not read each word as it comes.
  $("chat-answer").setAttribute("aria-busy", String(isBusy));
  write("chat-answer", chat?.text ?? "");
  if (!chat) return;
  $("chat-answer").lang = chat.locale;
  $("chat-upload-progress").value = chat.uploaded;
  if (outcome === "completed") renderResult(chat);
  if (chat.failure) {
    renderFailure("chat-failure", chat, "chat.failed");
    show("chat-retry", Boolean(chat.failure.retryable && chat.retry));
  }
}

function statusOf(chat) {
  if (chat.phase === "uploading") return text("stage.upload.now");
  if (chat.phase === "sending") return text("scan.sending");
  if (chat.phase === "running") return text(chat.couldNotCancel ? "scan.not_cancelled" : nowOf(chat));
  return text(`chat.outcome.${chat.outcome}`) ?? text("chat.outcome.failed");
}

function nowOf({ stage, text: written }) {
  if (written) return "chat.writing";
  return stage === "vision" ? "chat.reading" : `stage.${stage}.now`;
}

function renderResult({ result, details, job }) {
  const things = thingsOf(result);
  $("chat-things").replaceChildren(...things.map(thingItem));
  show("chat-things-part", things.length > 0);
  const isLocal = Boolean(details?.model?.startsWith("local/"));
  show("chat-degraded-note", Boolean(details?.degraded));
  show("chat-local-note", isLocal && !details.degraded);
  write("chat-local-note", text(details?.model === "local/words" ? "chat.local" : "result.local"));
  show("chat-model-part", Boolean(details?.model));
  show("chat-time-part", Boolean(details?.finished_at));
  write("chat-model", details?.model ?? "");
  write("chat-time", details?.finished_at ? inSeconds(details.finished_at - details.created_at) : "");
  write("chat-version", job.pipeline_version);
}

/** What the answer is about. A question about nothing that is known has a confidence of 0. */
function thingsOf({ classification_result: first, others }) {
  return [first, ...others].filter(({ confidence }) => confidence > 0);
}

function thingItem({ classification, confidence }, index) {
  const name = Object.assign(document.createElement("span"), {
    id: `chat-thing-${index}`,
    className: "name",
    lang: "ko",
    textContent: classification.middle_category,
  });
  const meter = Object.assign(document.createElement("meter"), { min: 0, max: 1, low: 0.5, high: 0.75, optimum: 1 });
  meter.value = confidence;
  meter.setAttribute("aria-labelledby", `chat-things-label ${name.id}`);
  const value = Object.assign(document.createElement("span"), {
    className: "value",
    textContent: inPercent(confidence),
  });
  const item = document.createElement("li");
  item.append(name, meter, value);
  return item;
}
