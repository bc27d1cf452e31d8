// How a job goes on, until it ends: by its stream of events, or by polling where the stream is of no use.

import { call, failureOf, Refusal } from "./api.js";
import { pause } from "./page.js";

/**
 * @import { ErrorView, EventView, PipelineResultView, ProcessingView, ResultView, SubmittedView, TokenView } from "bunri-api"
 * @import { Failure } from "./api.js"
 * @import { Phase } from "./run.js"
 */

/**
 * A stage of the job, as polling knows it too.
 * @typedef {Pick<EventView, "stage" | "status" | "progress">} StageEvent
 */

/** @typedef {"completed" | "failed" | "cancelled"} JobOutcome */

/**
 * How a run ended. "refused": there is no job, or the page cannot learn how it ended.
 * @typedef {JobOutcome | "refused"} Outcome
 */

/**
 * What following needs of a run, and changes in it.
 * @typedef {object} Followed
 * @property {Phase} phase it is followed while it is "running"
 * @property {() => void} stop closes the stream
 */

/**
 * @typedef {object} Handlers
 * @property {(event: StageEvent) => void} onStage
 * @property {(event: TokenView) => void} onToken
 * @property {(outcome: JobOutcome, result: PipelineResultView | null, error: ErrorView | null) => void} onEnd
 * @property {(error: unknown, isFinal: boolean) => void} onLost nothing can be learnt of the job; `isFinal`: nor later
 */

export const POLL_MS = 2000;
const MAX_STREAM_FAILURES = 3;
const MAX_POLL_FAILURES = 5;

/**
 * Follow by the stream. The browser reconnects by itself, and sends the id of the last event it had.
 * @param {Followed} run
 * @param {SubmittedView} job
 * @param {readonly string[]} stages the names of the events that report them
 * @param {Handlers} handlers
 */
export function follow(run, job, stages, handlers) {
  const stream = new EventSource(job.stream_url);
  let failures = 0;
  const leave = () => {
    stream.close();
    poll(run, job, handlers);
  };
  /**
   * @param {string} name
   * @param {(event: any) => void} handle any, because the type of an event depends on its name
   */
  const on = (name, handle) => {
    stream.addEventListener(name, (message) => {
      failures = 0;
      handle(JSON.parse(message.data));
    });
  };
  run.stop = () => stream.close();
  for (const stage of stages) on(stage, handlers.onStage);
  on("token", handlers.onToken);
  on("done", (/** @type {EventView} */ { outcome, result, error }) => {
    if (outcome && (outcome !== "completed" || result)) handlers.onEnd(outcome, result, error);
    else leave();
  });
  stream.onerror = () => {
    failures += 1;
    if (stream.readyState === EventSource.CLOSED || failures === MAX_STREAM_FAILURES) leave();
  };
}

/**
 * Follow by asking again and again. Failures in a row are borne up to a limit.
 * @param {Followed} run
 * @param {SubmittedView} job
 * @param {Handlers} handlers
 */
export async function poll(run, job, handlers) {
  let failures = 0;
  while (run.phase === "running") {
    try {
      /** @type {ProcessingView | ResultView} */
      const reply = await call(job.result_url);
      failures = 0;
      if (reply.status !== "processing") {
        handlers.onEnd(reply.status, reply.pipeline_result, reply.error);
        return;
      }
      handlers.onStage({ stage: reply.current_stage, status: "started", progress: reply.progress });
    } catch (error) {
      if (run.phase !== "running") return;
      failures += 1;
      const isFinal = error instanceof Refusal && error.problem?.retryable === false;
      if (isFinal || failures === MAX_POLL_FAILURES) {
        handlers.onLost(error, isFinal);
        return;
      }
    }
    await pause(POLL_MS);
  }
}

/**
 * What to show of a job that ended so: its outcome, and why it has no result.
 * @param {JobOutcome} outcome
 * @param {PipelineResultView | null} result
 * @param {ErrorView | null} error
 * @returns {{ outcome: Outcome, failure: Failure | null }}
 */
export function endOf(outcome, result, error) {
  if (outcome === "completed" && !result) return { outcome: "refused", failure: failureOf(new Refusal(200, null)) };
  if (!error) return { outcome, failure: null };
  const { message, code, retryable, trace_id } = error;
  return { outcome, failure: { message, code, retryable, trace: trace_id } };
}
