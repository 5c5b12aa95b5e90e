/**
 * A worker that writes lines to a character sink, as a vCPU thread does, until it is told to stop
 * or, with `untilBlocked`, until the host takes no more.
 */
import { openSink, type SinkDescription } from "../../devices/chardev/sink.ts";

interface Job {
  sink: SinkDescription;
  /** [lines written; 1: stop, 2: stopped] */
  progress: Int32Array<SharedArrayBuffer>;
  untilBlocked?: boolean;
}

const line = new TextEncoder().encode("abcdefghijklmnopqrstuvwxyz\n");

addEventListener("message", (message) => {
  const { data } = message as MessageEvent<Job>;
  const sink = openSink(data.sink);
  const { progress, untilBlocked } = data;
  while (Atomics.load(progress, 1) === 0) {
    const taken = sink.write(line);
    Atomics.add(progress, 0, 1);
    if (taken < line.length && untilBlocked) break;
  }
  Atomics.store(progress, 1, 2);
});
