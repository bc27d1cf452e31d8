// Shows the last question, its answer, and what the answer is about.

import { $, inPercent, renderFailure, renderOrigin, show, state, text, write } from "./page.js";
import { isBusy } from "./run.js";

/**
 * @import { ClassificationView, NamedThingView, PipelineResultView } from "bunri-api"
 * @import { Chat } from "./chat.js"
 * @import { TextKey } from "./page.js"
 */

export function renderChat() {
  const { chat } = state;
  const { phase, outcome, result, failure } = chat ?? {};
  $("chat").dataset.outcome = outcome ?? phase ?? "idle";
  $("chat-submit").setAttribute("aria-disabled", String(isBusy(chat)));
  show("chat-welcome", !chat);
  show("chat-asked", Boolean(chat?.message));
  show("chat-upload-progress", phase === "uploading");
  show("chat-answer", Boolean(chat?.text));
  show("chat-now", Boolean(chat));
  show("chat-cancel", phase === "uploading" || phase === "running");
  show("chat-result", outcome === "completed");
  show("chat-failure", Boolean(failure));
  write("chat-asked", chat?.message ?? "");
  write("chat-status", chat ? statusOf(chat) : "");
  // Busy: a screen reader waits for the whole answer and does not read each word as it comes.
  $("chat-answer").setAttribute("aria-busy", String(isBusy(chat)));
  write("chat-answer", chat?.text ?? "");
  if (!chat) return;
  $("chat-answer").lang = chat.locale;
  $("chat-upload-progress", HTMLProgressElement).value = chat.uploaded;
  if (outcome === "completed" && result) renderResult(chat, result);
  if (failure) {
    renderFailure("chat-failure", chat, failure, "chat.failed");
    show("chat-retry", Boolean(failure.retryable && chat.retry));
  }
}

/** @param {Chat} chat */
function statusOf(chat) {
  if (chat.phase === "uploading") return text("stage.upload.now");
  if (chat.phase === "sending") return text("scan.sending");
  if (chat.phase === "running") return text(chat.couldNotCancel ? "scan.not_cancelled" : runningText(chat));
  return text(`chat.outcome.${chat.outcome === null || chat.outcome === "refused" ? "failed" : chat.outcome}`);
}

/**
 * @param {Chat} chat
 * @returns {TextKey}
 */
function runningText({ stage, text: written }) {
  if (written) return "chat.writing";
  if (stage === "vision") return "chat.reading";
  return `stage.${stage === "reward" ? "answer" : stage}.now`;
}

/**
 * @param {Chat} chat
 * @param {PipelineResultView} result
 */
function renderResult({ details, job }, result) {
  const things = thingsOf(result);
  $("chat-things").replaceChildren(...things.map(thingItem));
  show("chat-things-part", things.length > 0);
  const isLocal = Boolean(details?.model?.startsWith("local/"));
  show("chat-degraded-note", Boolean(details?.degraded));
  show("chat-local-note", isLocal && !details?.degraded);
  write("chat-local-note", text(details?.model === "local/words" ? "chat.local" : "result.local"));
  renderOrigin("chat-", details, job);
}

/**
 * What the answer is about. A question about nothing that is known has a confidence of 0.
 * @param {PipelineResultView} result
 */
function thingsOf({ classification_result: first, others }) {
  return [first, ...others].filter(({ confidence }) => confidence > 0);
}

/**
 * @param {ClassificationView | NamedThingView} thing
 * @param {number} index
 */
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
