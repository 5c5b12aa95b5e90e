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
import {
  type DeviceDescription,
  type DeviceSetDescription,
  type IoService,
  isServedBy,
  ThreadDevices,
} from "../bus/thread_devices.ts";
import { ThreadControl } from "./control_block.ts";
import { type IoDoorbell, ioLoop, IoWatcher } from "./io_loop.ts";
import { type NewsReader, type NewsSource, openNews } from "./news.ts";
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
  readonly news?: NewsSource;
  readonly devices: DeviceSetDescription;
}

/** The part of DedicatedWorkerGlobalScope that is used here. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<IoThreadDescription>) => void) | null;
  close(): void;
}

const scope = globalThis as unknown as WorkerScope;

scope.onmessage = async ({ data }) => {
  const accelerator = await loadAcceleratorThread(data.devices.interrupts.accelerator);
  runIo(data, accelerator, await openNews(data.news));
  scope.close();
};

/** What the thread has for devices. */
class Service implements IoService {
  uring: IoUring | undefined;

  constructor(
    readonly ioThread: string | undefined,
    readonly watcher: IoWatcher,
    readonly rings: DisposableStack,
  ) {}

  /** Makes the ring, if one of the devices needs it and it is not there yet. */
  prepare(devices: readonly DeviceDescription[]): void {
    if (this.uring || !devices.some(({ disk }) => disk && needsIoUring(disk))) return;
    this.uring = this.rings.use(new IoUring(MOST_TRANSFERS));
  }
}

function runIo(
  data: IoThreadDescription,
  accelerator: AcceleratorThread,
  news: NewsReader | undefined,
): void {
  const control = new ThreadControl(data.control, data.line);
  control.threadId = threadId();
  nameThread(data.id === undefined ? "IO" : `IO ${data.id}`);
  try {
    using watcher = new IoWatcher(control);
    const lines = accelerator.openInterrupts(data.devices.interrupts);
    using rings = new DisposableStack();
    const isServed = (device: DeviceDescription) => isServedBy(device, data.id);
    const service = new Service(data.id, watcher, rings);
    service.prepare(data.devices.devices.filter(isServed));
    const devices = new ThreadDevices(data.devices, control, lines, service);
    const doorbells = () =>
      devices.entries.filter(isServed).flatMap(({ id, doorbellFds }) =>
        doorbellFds.map((fd, index): IoDoorbell => ({ fd, answer: () => devices.rung(id, index) }))
      );
    const learn = () =>
      news?.take((one) => {
        if ("added" in one && isServed(one.added)) service.prepare([one.added]);
        devices.learn(one);
      }) ?? false;
    const rest = () => devices.entries.filter(isServed).forEach(({ id }) => devices.rest(id));
    ioLoop({ control, watcher, kickFd: data.kickFd, doorbells, learn, rest });
  } catch (error) {
    threadFailed(data.title, error, control, () => signalEventfd(data.devices.eventFd));
  }
}
