/**
 * What an update has come to, for people and for programs.
 *
 * @module
 */
import type { TimelineStep, UpdateError, UpdateResult } from "./types.ts";

/** The end of an update as a person reads it: where the guest is, the pause, and its steps. */
export function textOf(result: UpdateResult): string {
  const { oldPid, newPid, runState, pauseUs, pausesUs, timeline } = result;
  const where = newPid === oldPid ? `process ${newPid}, as before` : `process ${newPid}`;
  return [
    `the guest is in ${where} (${runState})`,
    ...(pausesUs
      ? [`pauses ${pausesUs.map(milliseconds).join(" and ")}, the steps of the last:`]
      : pauseUs === undefined
      ? []
      : [`pause ${milliseconds(pauseUs)}`]),
    ...tableOf(timeline),
  ].join("\n");
}

/** The steps of the pause: when each was done, and how long after the one before. */
function tableOf(timeline: readonly TimelineStep[]): string[] {
  // What was done while the guest still ran is for programs.
  const pause = timeline.filter(({ us }) => us >= 0);
  const width = Math.max(...pause.map(({ step }) => step.length));
  return pause.map(({ step, us, process }, i) => {
    const took = us - (pause[i - 1]?.us ?? 0);
    const numbers = [us, took].map((time) => milliseconds(time).padStart(12)).join("");
    return `  ${step.padEnd(width)}${numbers}  ${process}`;
  });
}

function milliseconds(us: number): string {
  return `${(us / 1000).toFixed(2)} ms`;
}

/** The end of an update as one JSON object. */
export function jsonOf(result: UpdateResult): string {
  const { mode, oldPid, newPid, commandLine, runState, pauseUs, pausesUs, timeline } = result;
  return JSON.stringify({
    ok: true,
    mode,
    old_pid: oldPid,
    new_pid: newPid,
    status: runState,
    pause_us: pauseUs ?? null,
    ...(pausesUs && { pauses_us: pausesUs }),
    timeline,
    command_line: commandLine,
  });
}

/** A failed update as one JSON object. */
export function jsonOfFailure({ message, failure }: UpdateError): string {
  const { mode, oldPid, newPid, commandLine, runState } = failure;
  return JSON.stringify({
    ok: false,
    error: message,
    mode: mode ?? null,
    old_pid: oldPid ?? null,
    new_pid: newPid ?? null,
    status: runState ?? null,
    pause_us: null,
    timeline: [],
    command_line: commandLine ?? null,
  });
}
