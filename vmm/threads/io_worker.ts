/**
 * The I/O thread's entry: builds the thread's view of the devices and runs the I/O loop.
 *
 * @module
 */
import { needsIoUring } from "../../devices/block/disk.ts";
import { MOST_TRANSFERS } from "../../devices/block/transfers.ts";
import { signalEventfd } from "../../ffi/event.ts";
import { IoUring } from "../../ffi/io_uring.ts";
import { nameThread, threadId } from "../../ffi/process.ts";
import type { AcceleratorThread } from "../accel/accelerator.ts";
import { loadAcceleratorThread } from "../accel/open.ts";
import { type DeviceSetDescription, isServedBy, ThreadDevices } from "../bus/thread_devices.ts";
import { ThreadControl } from "./control_block.ts";
import { type IoDoorbell, ioLoop, IoWatcher } from "./io_loop.ts";
import { threadFailed } from "./thread_failure.ts";

/** What the main thread sends to an I/O thread, once. */
export interface IoThreadDescription {
  /** The id of the object that the thread is; undefined for the machine's own. */
  readonly id?: string;
  /** Its name in messages. */
  readonly title: string;
  /** The thread's line in the control block. */
  readonly line: number;
  /** An eventfd that tells of orders. */
  readonly kickFd: number;
  readonly control: SharedArrayBuffer;
  readonly devices: DeviceSetDescription;
}

/** The part of DedicatedWorkerGlobalScope that is used here. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<IoThreadDescription>) => void) | null;
  close(): void;
}

const scope = globalThis as unknown as WorkerScope;

scope.onmessage = async ({ data }) => {
  runIo(data, await loadAcceleratorThread(data.devices.interrupts.accelerator));
  scope.close();
};

function runIo(data: IoThreadDescription, accelerator: AcceleratorThread): void {
  const control = new ThreadControl(data.control, data.line);
  control.threadId = threadId();
  nameThread(data.id === undefined ? "IO" : `IO ${data.id}`);
  try {
    using watcher = new IoWatcher(control);
    const lines = accelerator.openInterrupts(data.devices.interrupts);
    const served = data.devices.devices.filter((device) => isServedBy(device, data.id));
    using uring = served.some(({ disk }) => disk && needsIoUring(disk))
      ? new IoUring(MOST_TRANSFERS)
      : undefined;
    const service = { ioThread: data.id, watcher, uring };
    const devices = new ThreadDevices(data.devices, control, lines, service);
    const doorbells = served.flatMap(({ id, doorbellFds }) =>
      doorbellFds.map((fd, index): IoDoorbell => ({ fd, answer: () => devices.rung(id, index) }))
    );
    const rest = () => served.forEach(({ id }) => devices.rest(id));
    ioLoop({ control, watcher, kickFd: data.kickFd, doorbells, rest });
  } catch (error) {
    threadFailed(data.title, error, control, () => signalEventfd(data.devices.eventFd));
  }
}
