/**
 * A CPU of a machine of several, on a thread of its own: it runs until it halts, and says what is in RAX.
 *
 * @module
 */
import { mapOver } from "../../../ffi/memory.ts";
import {
  COMMON_ADDRESS,
  COMMON_SIZE,
  RAM_ADDRESS,
  STOP,
} from "../../../vmm/accel/software/cpu_state.ts";
import { TestCore } from "./core_testing.ts";

/** What it is told. */
export interface SplitLockOrder {
  /** RAM and the CPUs' common pages. */
  readonly ramFd: number;
  readonly commonFd: number;
  readonly ramSize: number;
  /** The CPU's number. */
  readonly number: number;
  /** Where it starts, in 64-bit mode. */
  readonly rip: number;
}

interface Scope {
  onmessage: (event: MessageEvent<SplitLockOrder>) => void;
  postMessage(message: string | bigint): void;
  close(): void;
}
const scope = self as unknown as Scope;

scope.onmessage = ({ data: { ramFd, commonFd, ramSize, number, rip } }) => {
  const cpu = new TestCore(ramSize);
  const bytes = new Uint8Array(cpu.core.memory.buffer as ArrayBuffer);
  mapOver(bytes.subarray(RAM_ADDRESS, RAM_ADDRESS + ramSize), ramFd, 0);
  mapOver(bytes.subarray(COMMON_ADDRESS, COMMON_ADDRESS + COMMON_SIZE), commonFd, 0);
  cpu.state.cpu_bit = 1 << (number - 1);
  cpu.state.cpu_number = number;
  cpu.enterLongMode();
  scope.postMessage("runs");
  let stop = cpu.run(rip);
  while (stop === STOP.budget) stop = cpu.core.run(100_000);
  scope.postMessage(cpu.state.gpr.at(0));
  scope.close();
};
