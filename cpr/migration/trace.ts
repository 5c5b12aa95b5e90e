/**
 * A timeline in the Chrome trace-event format, which Perfetto and `chrome://tracing` open.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { O, openFile, writeAll } from "../../ffi/fd.ts";
import { stepLabel, type Timeline, type TimelineEntry, updateProcesses } from "./timeline.ts";

/** One event of the trace-event format; times in microseconds. */
interface TraceEvent {
  readonly name: string;
  /** `X`: a slice, `M`: metadata. */
  readonly ph: "X" | "M";
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  readonly dur?: number;
  readonly args?: Readonly<Record<string, string>>;
}

/**
 * Writes a timeline into a file.
 *
 * @throws {Error} if the file cannot be written
 */
export function writeTrace(path: string, timeline: Timeline): void {
  const trace = { displayTimeUnit: "ms", traceEvents: traceEvents(timeline.entries()) };
  try {
    using file = openFile(path, O.WRONLY | O.CREAT | O.TRUNC | O.NONBLOCK);
    writeAll(file.fd, new TextEncoder().encode(`${JSON.stringify(trace)}\n`));
  } catch (cause) {
    const reason = cause instanceof OsError ? cause.reason : String(cause);
    throw new Error(`Could not write the trace to '${path}': ${reason}`, { cause });
  }
}

/**
 * A slice for each step, from the one before it in the same process, and above them the pauses: from
 * each stop to the entry of the last vCPU.
 */
export function traceEvents(entries: readonly TimelineEntry[]): TraceEvent[] {
  const events: TraceEvent[] = updateProcesses.map((name, pid) => ({
    name: "process_name",
    ph: "M",
    pid,
    tid: 0,
    ts: 0,
    args: { name: `${name} VMM` },
  }));
  const ends = new Map<string, number>();
  for (const entry of entries) {
    const { process, ns } = entry;
    const begin = ends.get(process) ?? ns;
    ends.set(process, ns);
    const pid = updateProcesses.indexOf(process);
    const [ts, dur] = [begin / 1000, (ns - begin) / 1000];
    events.push({ name: stepLabel(entry), ph: "X", pid, tid: 1, ts, dur });
  }
  for (const { from, to, process } of pausesOf(entries)) {
    const pid = updateProcesses.indexOf(process);
    events.push({ name: "pause", ph: "X", pid, tid: 2, ts: from / 1000, dur: (to - from) / 1000 });
  }
  return events;
}

/** One moment in which nobody ran the guest. */
export interface Pause {
  /** The process that stopped the guest. */
  readonly process: TimelineEntry["process"];
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly from: number;
  readonly to: number;
}

/** The pauses of an update: two if a helper or an anchor had the guest in between. */
export function pausesOf(entries: readonly TimelineEntry[]): Pause[] {
  const stops = entries.filter(({ step }) => step === "stop");
  return stops.flatMap(({ process, ns: from }, i) => {
    const until = stops[i + 1]?.ns ?? Infinity;
    const entered = entries.filter(({ step, ns }) =>
      step === "entered" && ns >= from && ns < until
    );
    return entered.length === 0
      ? []
      : [{ process, from, to: Math.max(...entered.map((e) => e.ns)) }];
  });
}
