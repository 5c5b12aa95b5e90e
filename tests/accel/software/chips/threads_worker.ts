/** A vCPU's thread that takes interrupts until it has had as many as it was told; see threads_test. */
import { Chipset } from "../../../../vmm/accel/software/chips/chipset.ts";
import { VcpuChips } from "../../../../vmm/accel/software/chips/vcpu_chips.ts";
import { patience } from "../../../patience.ts";

export interface Task {
  readonly buffer: SharedArrayBuffer;
  /** A word of attention for each vCPU. */
  readonly words: SharedArrayBuffer;
  readonly index: number;
  readonly vcpus: number;
  /** How many interrupts it takes; after each it sends one to its neighbour. */
  readonly rounds: number;
}

const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<Task>) => void) | null;
  postMessage(taken: number): void;
  close(): void;
};

const VECTOR = 0x50;
const PATIENCE_MS = patience(120_000);

scope.onmessage = ({ data }) => {
  const { buffer, index, vcpus, rounds } = data;
  const words = new Int32Array(data.words);
  const chipset = new Chipset({
    buffer,
    vcpus,
    pic: true,
    clock: { monotonicNs: () => 1, realtimeNs: () => 1n, tsc: () => 1n, tscKhz: 1_000_000 },
    kick: (vcpu) => {
      Atomics.store(words, vcpu, 1);
      Atomics.notify(words, vcpu);
    },
  });
  const chips = new VcpuChips(chipset, {
    index,
    tsc: { read: (into) => into.fill(0), offset: () => 0n },
    memory: { read: () => 0, write: () => {} },
    features: { x2apic: true, tscDeadline: true, physicalBits: 40 },
  });
  let taken = 0;
  while (taken < rounds) {
    if (chips.acknowledge() === VECTOR) {
      taken++;
      chips.lapic.writeMemory(0xb0, 4, 0);
      // A line that both drive, and an interrupt for the neighbour.
      chipset.pulse(16);
      chips.lapic.writeMemory(0x310, 4, ((index + 1) % vcpus) << 24);
      chips.lapic.writeMemory(0x300, 4, 0x4000 | VECTOR);
    } else if (Atomics.exchange(words, index, 0) === 0) {
      if (Atomics.wait(words, index, 0, PATIENCE_MS) === "timed-out") break;
    }
  }
  scope.postMessage(taken);
  scope.close();
};
