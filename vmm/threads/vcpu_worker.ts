/**
 * A vCPU thread's entry: builds the thread's view of the machine and runs the vCPU loop.
 *
 * @module
 */
import { signalEventfd } from "../../ffi/event.ts";
import { nameThread, threadId } from "../../ffi/process.ts";
import type { AcceleratorThread, RunnerDescription } from "../accel/accelerator.ts";
import { loadAcceleratorThread } from "../accel/open.ts";
import { ThreadControl, vcpuControls } from "./control_block.ts";
import { type DeviceSetDescription, ThreadDevices } from "../bus/thread_devices.ts";
import { type NewsReader, type NewsSource, openNews } from "./news.ts";
import { threadFailed } from "./thread_failure.ts";
import { handleExit, vcpuLoop, type VcpuThread } from "./vcpu_loop.ts";

/** What the main thread sends to a vCPU thread, once; null if there is no vCPU for it. */
export interface VcpuThreadDescription {
  readonly index: number;
  /** How many vCPUs there are. */
  readonly vcpuCount: number;
  readonly runner: RunnerDescription;
  readonly control: SharedArrayBuffer;
  readonly news?: NewsSource;
  readonly devices: DeviceSetDescription;
}

/** The part of DedicatedWorkerGlobalScope that is used here. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<VcpuThreadDescription | null>) => void) | null;
  close(): void;
}

const scope = globalThis as unknown as WorkerScope;

scope.onmessage = async ({ data }) => {
  if (data) {
    const accelerator = await loadAcceleratorThread(data.runner.accelerator);
    runThread(data, accelerator, await openNews(data.news));
  }
  scope.close();
};

function runThread(
  data: VcpuThreadDescription,
  accelerator: AcceleratorThread,
  news: NewsReader | undefined,
): void {
  const control = new ThreadControl(data.control, data.index);
  const notify = () => signalEventfd(data.devices.eventFd);
  control.threadId = threadId();
  nameThread(`CPU ${data.index}/KVM`);
  try {
    const interrupts = accelerator.openInterrupts(data.devices.interrupts);
    const devices = new ThreadDevices(data.devices, control, interrupts);
    const vcpu: VcpuThread = {
      runner: accelerator.openRunner(data.runner, () => handleExit(vcpu)),
      bus: devices.bus,
      learn: () => news?.take((one) => devices.learn(one)),
      control,
      all: vcpuControls(data.control, data.vcpuCount),
      notify,
    };
    vcpuLoop(vcpu);
  } catch (error) {
    threadFailed(`CPU ${data.index}`, error, control, notify);
  }
}
