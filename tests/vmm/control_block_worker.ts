/** A thread that follows orders as a vCPU thread does, without a vCPU. */
import { ThreadControl, ThreadPhase, Wanted } from "../../vmm/threads/control_block.ts";

const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<SharedArrayBuffer>) => void) | null;
  close(): void;
};

scope.onmessage = ({ data }) => {
  const control = new ThreadControl(data, 1);
  let runs = 0;
  for (;;) {
    control.phase = ThreadPhase.PARKED;
    while (control.wanted === Wanted.PARK) control.waitWhileWanted(Wanted.PARK);
    if (control.wanted === Wanted.EXIT) break;
    control.phase = ThreadPhase.RUNNING;
    runs++;
    while (control.wanted === Wanted.RUN) control.waitWhileWanted(Wanted.RUN);
  }
  control.post(1, runs);
  control.phase = ThreadPhase.EXITED;
  scope.close();
};
