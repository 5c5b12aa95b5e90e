/**
 * What a thread of the machine says and does when it cannot go on.
 *
 * @module
 */
import { GuestEvent, type ThreadControl, ThreadPhase, Wanted } from "./control_block.ts";

/**
 * Ends a thread that has thrown, which is a defect of ours, never the guest's doing: it stops and says
 * so; the VM is not killed. One that is ended while it comes up only finds things closed.
 *
 * @param title its name in the message
 * @param notify tells the main thread that there is an event
 */
export function threadFailed(
  title: string,
  error: unknown,
  control: ThreadControl,
  notify: () => void,
): void {
  if (control.wanted === Wanted.EXIT) {
    control.phase = ThreadPhase.EXITED;
    return;
  }
  console.error(`denovo: ${title}: ${(error as Error).stack ?? error}`);
  control.requestPark();
  control.post(GuestEvent.THREAD_FAILED);
  control.phase = ThreadPhase.EXITED;
  notify();
}
