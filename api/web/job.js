// A job of either kind, followed to its end: by its stream, or by polling where that is of no use.
// A `run` is what the page knows of it. Here only `phase`, `job` and `stop` matter: it goes on while it is "running".

import { call, failureOf, Refusal } from "./api.js";
import { pause } from "./page.js";

export const POLL_MS = 2000;
const MAX_STREAM_FAILURES = 3;
const MAX_POLL_FAILURES = 5;

export const BUSY = new Set(["uploading", "sending", "running"]); // Phases of a run that goes on.

/**
 * `told.step` gets the name and data of each event called so; `told.conclude` how the job ended; `told.lost` what was
 * in the way when nobody could say, and whether that is final. The browser comes back by itself with its last id.
 */
export function follow(run, names, told) {
  const stream = new EventSource(run.job.stream_url);
  let failures = 0;
  const leave = () => {
    stream.close();
    poll(run, told);
  };
  run.stop = () => stream.close();
  for (const name of [...names, "done"]) {
    stream.addEventListener(name, (message) => {
      failures = 0;
      const event = JSON.parse(message.data);
      if (name !== "done") told.step(name, event);
      else if (event.outcome !== "completed" || event.result) told.conclude(event.outcome, event.result, event.error);
      else leave();
    });
  }
  stream.onerror = () => {
    failures += 1;
    if (stream.readyState === EventSource.CLOSED || failures === MAX_STREAM_FAILURES) leave();
  };
}

export async function poll(run, told) {
  let failures = 0;
  while (run.phase === "running") {
    try {
      const reply = await call(run.job.result_url);
      failures = 0;
      if (reply.status !== "processing") {
        told.conclude(reply.status, reply.pipeline_result, reply.error);
        return;
      }
      const { current_stage: stage, progress } = reply;
      told.step(stage, { stage, status: "started", progress });
    } catch (error) {
      if (run.phase !== "running") return;
      failures += 1;
      const isFinal = error instanceof Refusal && error.problem?.retryable === false;
      if (isFinal || failures === MAX_POLL_FAILURES) {
        told.lost(error, isFinal);
        return;
      }
    }
    await pause(POLL_MS);
  }
}

/** The outcome to show of a job that says that it has ended in this way, and why it has no result. */
export function endOf(outcome, result, error) {
  if (outcome === "completed" && !result) return ["refused", failureOf(new Refusal(200, null))];
  if (!error) return [outcome, null];
  const { message, code, retryable, trace_id } = error;
  return [outcome, { key: "failure", message, code, retryable, trace: trace_id }];
}

/** Whether the job is cancelled now. One that has just ended says so itself: null. */
export async function cancelled({ job }) {
  try {
    await call(job.cancel_url, { method: "POST" });
    return true;
  } catch (error) {
    return error instanceof Refusal && error.problem?.code === "job.finished" ? null : false;
  }
}
