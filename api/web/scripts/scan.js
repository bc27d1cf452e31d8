// A scan of one photo, and the stages it goes through.

import { call } from "./api.js";
import { POLL_MS } from "./events.js";
import { focusOn, pause, state } from "./page.js";
import { createRun } from "./run.js";
import { renderScan } from "./scan-card.js";

/**
 * @import { JobView, SubmittedView } from "bunri-api"
 * @import { Outcome, StageEvent } from "./events.js"
 * @import { Kind, Run, RunRequest } from "./run.js"
 */

/**
 * The stages of the API, without its `reward`, which is kept for older clients; and the page's own, "upload", before
 * them, of a photo that is a file.
 * @typedef {"upload" | "queued" | "fetch" | "vision" | "rule" | "answer" | "done"} ShownStage
 */

/** @typedef {"waiting" | "started" | "completed" | "failed" | "skipped"} ShownStatus */

/**
 * @typedef {object} OwnOfScan
 * @property {Partial<Record<ShownStage, ShownStatus>>} stages in their order; "upload" only where a file is sent
 * @property {number} progress from 0 to 100
 */

/** @typedef {Run & OwnOfScan} Scan */

/** @type {readonly Exclude<ShownStage, "upload">[]} */
const STAGES = ["queued", "fetch", "vision", "rule", "answer", "done"];

/**
 * What becomes of a stage that had begun, or was still to come, when the job ends.
 * @type {Partial<Record<Outcome, Partial<Record<ShownStatus, ShownStatus>>>>}
 */
const FATES = {
  completed: { started: "completed", waiting: "completed" },
  failed: { started: "failed", waiting: "skipped" },
  cancelled: { started: "skipped", waiting: "skipped" },
};

const TITLE_OF = {
  completed: "result-title",
  cancelled: "cancelled-title",
  failed: "failure-title",
  refused: "failure-title",
};

/** @type {Kind<OwnOfScan>} */
const SCAN = {
  path: "/api/v1/scan",
  uploads: "/api/v1/images/scan",
  headers: {},
  stages: ["queued", "fetch", "vision", "rule", "answer", "reward"],
  section: "scan",
  own: (_request, hasUpload) => ({ stages: stagesOf(hasUpload), progress: 0 }),
  makeCurrent: (scan) => {
    state.scan = scan;
  },
  render: renderScan,
  onUploaded: (scan) => {
    scan.stages.upload = "completed";
  },
  onAccepted: (scan) => {
    advance(scan, { stage: "queued", status: "started", progress: 0 });
    watchQueue(scan);
  },
  onStage: advance,
  onToken: () => {}, // Only questions are answered word by word.
  onEnd: settle,
  focus: ({ outcome }) => focusOn(TITLE_OF[outcome ?? "refused"], "scan"),
};

/**
 * @param {RunRequest} request
 * @param {File} [file]
 */
export function submitScan(request, file) {
  createRun(SCAN, request, { file }).submit();
}

/** @param {boolean} hasUpload */
function stagesOf(hasUpload) {
  /** @type {OwnOfScan["stages"]} */
  const stages = hasUpload ? { upload: "started" } : {};
  for (const stage of STAGES) stages[stage] = "waiting";
  return stages;
}

/**
 * A stage began or ended: those before it are over, and when a job is tried again those after it are not.
 * @param {Scan} scan
 * @param {StageEvent} event
 */
function advance(scan, { stage, status, progress }) {
  if (stage === "reward") return;
  const index = STAGES.indexOf(stage);
  STAGES.forEach((other, at) => {
    const isOpen = scan.stages[other] === "waiting" || scan.stages[other] === "started";
    if (at < index && isOpen) scan.stages[other] = "completed";
    if (at > index && status === "started") scan.stages[other] = "waiting";
  });
  // Its `queued: completed` says that the job is in the queue; it has left it when another stage begins.
  scan.stages[stage] = stage === "queued" ? "started" : status;
  Object.assign(scan, { stage, progress });
}

/**
 * Where the job stands in the queue, while others are ahead of it.
 * @param {Scan} scan
 */
async function watchQueue(scan) {
  while (scan.phase === "running" && scan.stage === "queued" && scan.job && (scan.job.queue_position ?? 0) > 1) {
    const { job } = scan;
    await pause(POLL_MS);
    /** @type {JobView | SubmittedView} */
    const { queue_position, estimated_wait } = await call(job.status_url).catch(() => job);
    Object.assign(job, { queue_position, estimated_wait });
    renderScan();
  }
}

/**
 * Every stage as the end leaves it. Without an answer nobody knows how a job goes on; but where there is no job,
 * nothing does.
 * @param {Scan} scan
 */
function settle(scan) {
  const fates = FATES[scan.outcome ?? "refused"] ?? (scan.job ? {} : FATES.failed);
  for (const [stage, status] of stagesIn(scan)) scan.stages[stage] = fates?.[status] ?? status;
  if (scan.outcome === "completed") scan.progress = 100;
}

/**
 * The stages of this scan in their order.
 * @param {Scan} scan
 */
export function stagesIn({ stages }) {
  return /** @type {[ShownStage, ShownStatus][]} */ (Object.entries(stages));
}
