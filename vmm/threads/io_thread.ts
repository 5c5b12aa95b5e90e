/**
 * An I/O thread from the main thread: it does what devices do for the guest while its vCPUs run.
 *
 * @module
 */
import { drainEvent, makeEventfd, signalEventfd } from "../../ffi/event.ts";
import type { OwnedFd } from "../../ffi/fd.ts";
import type { DeviceSetDescription } from "../bus/thread_devices.ts";
import type { IoThreadDescription } from "./io_worker.ts";
import { MachineThread } from "./machine_thread.ts";

/** The Worker's module: TypeScript in the source tree, JavaScript beside the bundle. */
const workerUrl = new URL(
  import.meta.url.endsWith(".ts") ? "./io_worker.ts" : "./io_worker.js",
  import.meta.url,
);

/** An I/O thread. It parks between two requests: what it has not begun is still in the rings. */
export class IoThread extends MachineThread implements Disposable {
  override readonly servesGuest = true;
  /** Readable while the thread shall look at its orders. */
  readonly #kick: OwnedFd = makeEventfd();
  readonly #line: number;

  /**
   * @param id the object's that it is; undefined for the one of all devices that name none
   * @param controlBlock the machine's control block
   * @param line the thread's line in it
   */
  constructor(readonly id: string | undefined, controlBlock: SharedArrayBuffer, line: number) {
    super(id === undefined ? "I/O thread" : `I/O thread '${id}'`, controlBlock, line);
    this.#line = line;
  }

  /** Starts the thread, parked. */
  startThread(devices: DeviceSetDescription, onFailure: (reason: string) => void): void {
    const description: IoThreadDescription = {
      id: this.id,
      title: this.title,
      line: this.#line,
      kickFd: this.#kick.fd,
      control: this.controlBlock,
      devices,
    };
    const worker = new Worker(workerUrl, { type: "module" });
    this.start(worker, { ...description }, onFailure, devices.isPluggable);
  }

  override allow(): void {
    drainEvent(this.#kick.fd);
  }

  override halt(): void {
    signalEventfd(this.#kick.fd);
  }

  override interrupt(): void {
    signalEventfd(this.#kick.fd);
  }

  /** Closes what it is kicked by; the thread has ended. */
  [Symbol.dispose](): void {
    this.#kick.close();
  }
}
