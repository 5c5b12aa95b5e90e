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
import { MachineTarget } from "./machine_state.ts";
import { Owner, Ownership } from "./ownership.ts";
import { enter, leave } from "./pause.ts";
import { encodeStream } from "./stream.ts";
import { readVm, VmImage } from "./vm_state.ts";

/** Enough for the optimizing compiler to take the inner loops; half a millisecond each. */
const ROUNDS = 100;
/** Enough to find the caches warm. */
const LAST_ROUNDS = 5;
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
    this.ownership.timeline.observed = false;
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

/** Rehearses the old VMM's half of the pause; the guest runs on. */
export class LeavingRehearsal implements Disposable {
  /** Buffers for the machine's own state. */
  readonly image: VmImage;
  readonly #vm: VirtualMachine;
  readonly #scratch: Hardware;
  readonly #scratchImage: VmImage;
  readonly #vcpu: Vcpu;
  readonly #stage = new Stage(Owner.OLD);
  readonly #events = new EventHub();

  /** Makes what it takes, and rehearses until all is compiled. */
  constructor(vm: VirtualMachine) {
    this.#vm = vm;
    this.#scratch = vm.machine.hardware.makeScratch();
    this.#scratchImage = new VmImage(vm.machine, this.#scratch);
    this.#vcpu = scratchVcpu(this.#scratch);
    this.image = new VmImage(vm.machine);
    this.#play(ROUNDS);
  }

  /** Brings everything back into the processor's caches: the pause comes next. */
  finish(): void {
    this.#play(LAST_ROUNDS);
    if (!this.#vm.running) return;
    for (const { threadId } of this.#vm.machine.vcpus) {
      for (let kick = 0; kick < KICKS; kick++) kickThread(threadId);
    }
  }

  /** Closes the scratch VM, which takes as long as the pause should never be. */
  [Symbol.dispose](): void {
    this.#stage[Symbol.dispose]();
    this.#scratch.close();
  }

  #play(rounds: number): void {
    for (let round = 0; round < rounds; round++) {
      this.#stage.reset();
      this.#events.hold();
      const sections = leave({
        ownership: this.#stage.ownership,
        image: this.#scratchImage,
        stop: () => (this.#vcpu.rehearsePark(), this.#events.emit("STOP"), nobody),
        chardevs: () => chardevStates(this.#vm),
        send: (bytes) => this.#stage.near.sink(bytes),
      });
      this.#stage.far.source(encodeStream(sections).length);
      this.#events.release();
    }
  }
}

/** Rehearses the new VMM's half of the pause, with its own vCPU threads and devices. */
export class EnteringRehearsal implements Disposable {
  readonly #vm: VirtualMachine;
  readonly #scratch: Hardware;
  readonly #image: VmImage;
  readonly #scratchTarget: MachineTarget;
  readonly #stage = new Stage(Owner.HANDED_OVER);
  /** Buffers for the machine's own state. */
  readonly target: MachineTarget;

  /** Makes what it takes, and rehearses until all is compiled. */
  constructor(vm: VirtualMachine) {
    this.#vm = vm;
    this.#scratch = vm.machine.hardware.makeScratch();
    this.#image = new VmImage(vm.machine, this.#scratch);
    this.#scratchTarget = new MachineTarget(vm.machine, this.#scratch);
    this.target = new MachineTarget(vm.machine);
    this.#play(ROUNDS);
  }

  /** Brings everything back into the processor's caches: the state comes next. */
  finish(): void {
    this.#play(LAST_ROUNDS);
  }

  /** Closes the scratch VM, which takes as long as the pause should never be. */
  [Symbol.dispose](): void {
    this.#stage[Symbol.dispose]();
    this.#scratch.close();
  }

  #play(rounds: number): void {
    const { machine } = this.#vm;
    const release = machine.hardware.holdVcpus();
    try {
      for (let round = 0; round < rounds; round++) {
        this.#stage.reset();
        this.#stage.far.sink(encodeStream(this.#image.save(nobody, chardevStates(this.#vm))));
        enter({
          ownership: this.#stage.ownership,
          await: () => this.#stage.near.awaitData(),
          read: () =>
            readVm(machine, this.#stage.near.source, {
              agreed: true,
              ignoreShared: false,
              target: this.#scratchTarget,
            }),
          apply: (state) => state.apply(true),
          run: () => machine.resume(),
        });
        machine.park();
      }
    } finally {
      release();
    }
  }
}

/** A vCPU whose thread is this one, and which always is as good as parked. */
function scratchVcpu(hardware: Hardware): Vcpu {
  const vcpu = new Vcpu(0, hardware.vcpus[0], new SharedArrayBuffer(controlBlockSize(1)));
  vcpu.control.threadId = threadId();
  return vcpu;
}
