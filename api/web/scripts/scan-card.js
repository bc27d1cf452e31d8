// Shows the last scan: its stages, its result, or why there is none.

import { decoded } from "./api.js";
import {
  $,
  inPercent,
  inSeconds,
  isWebLink,
  list,
  renderFailure,
  renderOrigin,
  show,
  state,
  text,
  write,
} from "./page.js";
import { isBusy } from "./run.js";

/**
 * @import { Locale, PipelineResultView, Timings } from "bunri-api"
 * @import { Run } from "./run.js"
 * @import { Scan, ShownStage, ShownStatus } from "./scan.js"
 */

/**
 * Of a rule document, which is data of ours, but not of this page's.
 * @typedef {object} RuleDocument
 * @property {string} [title]
 * @property {string[]} [cautions]
 * @property {string[]} [not_this]
 * @property {{ title: string, url: string } | null} [source]
 */

/** @type {Partial<Record<ShownStage, keyof Timings>>} */
const TIMING_OF = { queued: "queued", fetch: "fetch", vision: "vision", rule: "rules", answer: "answer" };
const MIN_SHOWN_SECONDS = 0.01; // A stage that took less was there at once.

export function renderScan() {
  const { scan } = state;
  const { phase, outcome, result, failure } = scan ?? {};
  $("scan").dataset.outcome = outcome ?? phase ?? "idle";
  $("scan").setAttribute("aria-busy", String(isBusy(scan)));
  $("submit").setAttribute("aria-disabled", String(isBusy(scan)));
  show("welcome", !scan);
  show("now", Boolean(scan));
  show("cancel", phase === "uploading" || phase === "running");
  show("running", Boolean(scan?.job || scan?.stages.upload));
  show("result", outcome === "completed");
  show("failure", Boolean(failure));
  show("cancelled", outcome === "cancelled");
  write("status", scan ? statusOf(scan) : "");
  if (!scan) return;
  renderStages(scan);
  if (result) renderResult(scan, result);
  if (failure) renderFailure("failure", scan, failure, "failure.title");
  show("retry", Boolean(failure?.retryable && scan.retry));
}

/** @param {Scan} scan */
function statusOf(scan) {
  if (scan.phase === "uploading") return text("stage.upload.now");
  if (scan.phase === "sending") return text("scan.sending");
  if (scan.phase === "running") return scan.couldNotCancel ? text("scan.not_cancelled") : stageText(scan);
  return text(`outcome.${scan.outcome === null || scan.outcome === "refused" ? "failed" : scan.outcome}`);
}

/** @param {Scan} scan */
function stageText({ stage, job }) {
  if (stage === "reward") return "";
  return text(`stage.${stage}.now`) + (stage === "queued" ? queueText(job) : "");
}

/**
 * How many are ahead of a waiting job and how long that takes, as far as the API knows.
 * @param {Scan["job"]} job
 */
function queueText(job) {
  if (!job?.queue_position || job.queue_position <= 1) return "";
  const { queue_position, estimated_wait } = job;
  const ahead = text("queue.ahead").replace("{count}", String(queue_position - 1));
  const wait = estimated_wait === null ? "" : text("queue.wait").replace("{time}", inSeconds(estimated_wait));
  return ` ${ahead} ${wait}`.trimEnd();
}

/**
 * The items stay the same elements, so that screen readers and animations are not disturbed.
 * @param {Scan} scan
 */
function renderStages(scan) {
  const stages = /** @type {[ShownStage, ShownStatus][]} */ (Object.entries(scan.stages));
  if ($("stages").children.length !== stages.length) {
    $("stages").replaceChildren(...stages.map(([stage]) => stageItem(stage)));
  }
  stages.forEach(([stage, status], at) => {
    renderStage(/** @type {HTMLElement} */ ($("stages").children[at]), stage, status, scan.details?.timings);
  });
  $("upload-progress", HTMLProgressElement).value = scan.uploaded;
  show("upload-progress", scan.phase === "uploading");
  $("progress", HTMLProgressElement).value = scan.progress;
  show("progress", scan.phase === "sending" || scan.phase === "running");
}

/**
 * @param {HTMLElement} item
 * @param {ShownStage} stage
 * @param {ShownStatus} status
 * @param {Timings} [timings]
 */
function renderStage(item, stage, status, timings) {
  const timing = TIMING_OF[stage];
  const seconds = (timing && timings?.[timing]) ?? 0;
  const [name, hidden, duration] = item.children;
  item.dataset.status = status;
  item.setAttribute("aria-current", status === "started" ? "step" : "false");
  if (name) name.textContent = text(`stage.${stage}`);
  if (hidden) hidden.textContent = text(`stage_status.${status}`);
  if (duration) duration.textContent = seconds >= MIN_SHOWN_SECONDS ? inSeconds(seconds) : "";
}

/** @param {ShownStage} stage */
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

/**
 * @param {Run} scan
 * @param {PipelineResultView} result
 */
function renderResult({ locale, details, job }, result) {
  const { classification, confidence } = result.classification_result;
  const { disposal_steps, insufficiencies, user_answer } = result.final_answer;
  const { major_category, middle_category, minor_category } = classification;
  const rule = /** @type {RuleDocument} */ (result.disposal_rules);
  for (const id of ["result-title", "answer", "steps", "checks"]) $(id).lang = locale;
  list("category", "span", [major_category, middle_category, minor_category ?? ""].filter(Boolean));
  write("result-title", rule.title ?? middle_category);
  $("confidence-meter", HTMLMeterElement).value = confidence;
  write("confidence-value", inPercent(confidence));
  write("answer", decoded(user_answer));
  list("steps", "li", Object.values(disposal_steps).map(decoded));
  list("checks", "li", insufficiencies.map(decoded));
  show("checks-part", insufficiencies.length > 0);
  renderRule(rule, locale);
  show("degraded-note", Boolean(details?.degraded));
  show("local-note", Boolean(details?.model?.startsWith("local/")));
  show("cached-note", Boolean(details?.cached));
  renderOrigin("", details, job);
}

/**
 * What the rule document says besides the answer. Its source must be a web link to become a link.
 * @param {RuleDocument} rule
 * @param {Locale} locale
 */
function renderRule({ cautions = [], not_this = [], source = null }, locale) {
  for (const id of ["cautions", "not-this", "source"]) $(id).lang = locale;
  list("cautions", "li", cautions);
  list("not-this", "li", not_this);
  write("source", source?.title ?? "");
  if (source && isWebLink(source.url)) $("source", HTMLAnchorElement).href = source.url;
  else $("source").removeAttribute("href");
  show("cautions-part", cautions.length > 0);
  show("not-this-part", not_this.length > 0);
  show("source-part", Boolean(source));
  show("rule-part", Boolean(source) || cautions.length + not_this.length > 0);
}
