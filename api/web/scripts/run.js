// One run of a scan or of a question, from the upload of its photo to its end. scan.js and chat.js say what is their own.

import { call, cancelJob, failureOf, newKey, post } from "./api.js";
import { endOf, follow, poll } from "./events.js";
import { notify, reveal, state } from "./page.js";
import { upload } from "./upload.js";

/**
 * @import { JobView, Locale, PipelineResultView, Stage, SubmittedView, TokenView } from "bunri-api"
 * @import { Failure } from "./api.js"
 * @import { Handlers, Outcome, StageEvent } from "./events.js"
 */

/** @typedef {"uploading" | "sending" | "running" | "ended"} Phase */

/**
 * The body of a request for a job.
 * @typedef {object} RunRequest
 * @property {Locale} locale
 * @property {string} [message] of a question
 * @property {string} [user_input] of a scan
 * @property {string} [image_url]
 * @property {string} [image_key] of an uploaded photo
 */

/**
 * What the page knows of a run, and what can be done with it.
 * @typedef {object} Run
 * @property {Locale} locale of what the API says in it
 * @property {Phase} phase
 * @property {SubmittedView | null} job null until the API has accepted it
 * @property {Stage} stage the last that was reported
 * @property {number} uploaded the share of the file that has been sent, from 0 to 1
 * @property {boolean} couldNotCancel
 * @property {Outcome | null} outcome
 * @property {PipelineResultView | null} result
 * @property {Failure | null} failure
 * @property {JobView | null} details of a completed job, a moment later than its result
 * @property {(() => void) | null} retry
 * @property {() => void} stop lets go of the upload or the stream
 * @property {() => Promise<void>} submit
 * @property {() => Promise<void>} cancel
 */

/**
 * What differs between scans and questions. `Own` are the fields that their runs have besides those of `Run`.
 * @template {object} Own
 * @typedef {object} Kind
 * @property {string} path where jobs are submitted
 * @property {string} uploads where links for uploads are given
 * @property {Record<string, string>} headers of a submission
 * @property {readonly Stage[]} stages the names of the events that report them
 * @property {"scan" | "chat"} section id of the part of the page that shows it
 * @property {(request: RunRequest, hasUpload: boolean) => Own} own
 * @property {(run: Run & Own) => void} makeCurrent makes it the run that is shown
 * @property {() => void} render
 * @property {(run: Run & Own) => void} onUploaded
 * @property {(run: Run & Own) => void} onAccepted
 * @property {(run: Run & Own, event: StageEvent) => void} onStage
 * @property {(run: Run & Own, event: TokenView) => void} onToken
 * @property {(run: Run & Own) => void} onEnd before the end is shown
 * @property {(run: Run & Own) => void} focus after the end is shown
 */

/** @type {ReadonlySet<Phase | undefined>} */
const BUSY = new Set(/** @type {const} */ (["uploading", "sending", "running"]));

/**
 * Whether the run goes on.
 * @param {Run | null} run
 */
export const isBusy = (run) => BUSY.has(run?.phase);

/**
 * A run that has not begun; `submit` begins it and takes the place of the one before.
 * `key` is its idempotency key: a request that is sent again with the same key remains one job.
 * @template {object} Own
 * @param {Kind<Own>} kind
 * @param {RunRequest} request
 * @param {{ file?: File | null | undefined, key?: string }} options a `file` is uploaded first
 * @returns {Run & Own}
 */
export function createRun(kind, request, { file = null, key = newKey() } = {}) {
  const blank = { ...blankRun(request.locale, file ? "uploading" : "sending"), submit, cancel };
  const run = Object.assign(blank, kind.own(request, file !== null));
  return run;

  async function submit() {
    kind.makeCurrent(run);
    notify(null);
    kind.render();
    reveal(kind.section);
    if (!file) {
      await send(request);
      return;
    }
    const image_key = await uploadPhoto(file);
    if (image_key) await send({ ...request, image_key });
  }

  /**
   * Its key, or null when there is nothing to go on with.
   * @param {File} photo
   */
  async function uploadPhoto(photo) {
    try {
      const image_key = await upload(run, photo, kind.uploads, kind.render);
      run.phase = "sending";
      kind.onUploaded(run);
      kind.render();
      return image_key;
    } catch (error) {
      const isCancelled = run.phase !== "uploading";
      if (!isCancelled) end("refused", { failure: failureOf(error), retry: () => submitAgain(request, photo) });
      return null;
    }
  }

  /** @param {RunRequest} body */
  async function send(body) {
    try {
      run.job = await post(kind.path, body, { "Idempotency-Key": key, ...kind.headers });
    } catch (error) {
      end("refused", { failure: failureOf(error), retry: () => createRun(kind, body, { key }).submit() });
      return;
    }
    run.phase = "running";
    kind.onAccepted(run);
    kind.render();
    if (run.job) follow(run, run.job, kind.stages, handlersFor(body));
  }

  /**
   * As a new job, in the language of now.
   * @param {RunRequest} body
   * @param {File | null} photo
   */
  function submitAgain(body, photo = null) {
    createRun(kind, { ...body, locale: state.locale }, { file: photo }).submit();
  }

  /**
   * @param {RunRequest} body
   * @returns {Handlers}
   */
  function handlersFor(body) {
    const retry = () => submitAgain(body);
    const handlers = {
      /** @param {StageEvent} event */
      onStage: (event) => advance(() => kind.onStage(run, event)),
      /** @param {TokenView} event */
      onToken: (event) => advance(() => kind.onToken(run, event)),
      /** @type {Handlers["onEnd"]} */
      onEnd: (...ended) => {
        if (run.phase !== "running") return;
        const { outcome, failure } = endOf(...ended);
        end(outcome, { result: ended[1], failure, retry });
        if (outcome === "completed") describe();
      },
      /** @type {Handlers["onLost"]} */
      onLost: (error, isFinal) =>
        end("refused", { failure: failureOf(error), retry: isFinal ? retry : () => resume(handlers) }),
    };
    return handlers;
  }

  /** @param {() => void} change */
  function advance(change) {
    if (run.phase !== "running") return;
    run.couldNotCancel = false;
    change();
    kind.render();
  }

  /**
   * Look again for a job that may well have gone on while we could not see it.
   * @param {Handlers} handlers
   */
  function resume(handlers) {
    if (!run.job) return;
    Object.assign(run, { phase: "running", outcome: null, failure: null });
    kind.render();
    poll(run, run.job, handlers);
  }

  /**
   * @param {Outcome} outcome
   * @param {Partial<Pick<Run, "result" | "failure" | "retry">>} reasons
   */
  function end(outcome, { result = null, failure = null, retry = null } = {}) {
    run.stop();
    Object.assign(run, { phase: "ended", outcome, result, failure, retry });
    kind.onEnd(run);
    kind.render();
    kind.focus(run);
  }

  /** Which model answered and how long it took: only the job itself knows. The result is good without it. */
  async function describe() {
    if (run.job) run.details = await call(run.job.status_url).catch(() => null);
    kind.render();
  }

  async function cancel() {
    if (run.phase === "uploading") {
      end("cancelled");
      return;
    }
    const isCancelled = run.job && (await cancelJob(run.job));
    if (isCancelled === false) run.couldNotCancel = true;
    if (isCancelled && run.phase === "running") end("cancelled");
    else kind.render();
  }
}

/**
 * @param {Locale} locale
 * @param {Phase} phase
 */
function blankRun(locale, phase) {
  /** @type {Omit<Run, "submit" | "cancel">} */
  const run = {
    locale,
    phase,
    job: null,
    stage: "queued",
    uploaded: 0,
    couldNotCancel: false,
    outcome: null,
    result: null,
    failure: null,
    details: null,
    retry: null,
    stop: () => {},
  };
  return run;
}
