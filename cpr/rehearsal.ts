/**
 * Rehearsals: the code of the pause, run on scratch hardware before the guest stops.
 *
 * JavaScript that runs for the first time is ten to a hundred times slower than compiled code, and a
 * function of the C library costs most of a millisecond at its first call. After some rounds the
 * compiler has seen everything, and so has the processor's cache.
 *
 * @module
 */
import { kickThread, threadId } from "../ffi/process.ts";
import { socketPair } from "../ffi/socket.ts";
import { controlBlockSize } from "../vmm/control_block.ts";
import { EventHub } from "../vmm/events.ts";
import type { Hardware } from "../vmm/hardware.ts";
import { Vcpu } from "../vmm/vcpu.ts";
import type { VirtualMachine } from "../vmm/virtual_machine.ts";
import { Channel } from "./channel.ts";
import { chardevStates } from "./fd_table.ts";
import { Owner, Ownership } from "./ownership.ts";
import { enter, leave } from "./pause.ts";
import { encodeStream } from "./stream.ts";
import { readVm, VmImage } from "./vm_state.ts";

/** Enough for the optimizing compiler to take the inner loops; about a millisecond each. */
const ROUNDS = 40;
/** How often the guest's own threads are interrupted, some 20 µs each, before it counts. */
const KICKS = 4;
const nobody = { wasRunning: true, stoppedNs: 0 };

/** Two ends of a connection that leads nowhere, and an ownership page of nobody's guest. */
class Stage implements Disposable {
  readonly near: Channel;
  readonly far: Channel;
  readonly ownership: Ownership;
  readonly #owner: number;

  constructor(owner: number) {
    const [near, far] = socketPair();
    this.near = new Channel(near);
    this.far = new Channel(far);
    this.ownership = Ownership.create("old", owner);
    this.#owner = owner;
  }

  /** Once more from the top. */
  reset(): void {
    this.ownership.swap(this.ownership.owner, this.#owner);
    this.ownership.timeline.clear();
  }

  [Symbol.dispose](): void {
    this.near[Symbol.dispose]();
    this.far[Symbol.dispose]();
    this.ownership.close();
  }
}

/**
 * Rehearses the old VMM's half of the pause; the guest runs on.
 *
 * @returns buffers for the machine's own state
 */
export function rehearseLeaving(vm: VirtualMachine): VmImage {
  const { machine } = vm;
  using scratch = machine.hardware.makeScratch();
  using stage = new Stage(Owner.OLD);
  const image = new VmImage(machine, scratch);
  const vcpu = scratchVcpu(scratch);
  const events = new EventHub();
  for (let round = 0; round < ROUNDS; round++) {
    stage.reset();
    events.hold();
    const sections = leave({
      ownership: stage.ownership,
      image,
      stop: () => (vcpu.rehearsePark(), events.emit("STOP"), nobody),
      chardevs: () => chardevStates(vm),
      send: (bytes) => stage.near.sink(bytes),
    });
    stage.far.source(encodeStream(sections).length);
    events.release();
  }
  if (vm.running) {
    for (const { threadId } of [...machine.vcpus, ...machine.vcpus].slice(0, KICKS)) {
      kickThread(threadId);
    }
  }
  return new VmImage(machine);
}

/** Rehearses the new VMM's half of the pause, with its own vCPU threads and devices. */
export function rehearseEntering(vm: VirtualMachine): void {
  const { machine } = vm;
  using scratch = machine.hardware.makeScratch();
  using stage = new Stage(Owner.HANDED_OVER);
  const image = new VmImage(machine, scratch);
  const release = machine.hardware.holdVcpus();
  try {
    for (let round = 0; round < ROUNDS; round++) {
      stage.reset();
      stage.far.sink(encodeStream(image.save(nobody, chardevStates(vm))));
      enter({
        ownership: stage.ownership,
        await: () => stage.near.awaitData(),
        read: () => readVm(machine, stage.near.source, { agreed: true, hardware: scratch }),
        apply: (state) => state.apply(true),
        run: () => machine.resume(),
      });
      machine.park();
    }
  } finally {
    release();
  }
}

/** A vCPU whose thread is this one, and which always is as good as parked. */
function scratchVcpu(hardware: Hardware): Vcpu {
  const vcpu = new Vcpu(0, hardware.vcpus[0], new SharedArrayBuffer(controlBlockSize(1)));
  vcpu.control.threadId = threadId();
  return vcpu;
}
