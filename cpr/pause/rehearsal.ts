/**
 * Rehearsals: the code of the pause, run on scratch hardware before the guest stops.
 *
 * JavaScript that runs for the first time is ten to a hundred times slower than compiled code, and a
 * function of the C library costs most of a millisecond at its first call. After some rounds the
 * compiler has seen everything, and so has the processor's cache.
 *
 * @module
 */
import { socketPair } from "../../ffi/socket.ts";
import { enterOnce } from "../../vmm/threads/first_entry.ts";
import type { Hardware } from "../../vmm/accel/hardware.ts";
import { ScratchVcpu } from "../../vmm/threads/vcpu.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { Channel } from "../channel/channel.ts";
import { Owner, Ownership } from "../handover/ownership.ts";
import { enter, leave } from "./pause.ts";
import { FramedImage } from "../state/vm_state.ts";

/**
 * Enough for the compiler to take the inner loops: with twice as many the pause is no shorter, with half
 * of them it is longer. Each takes one to two milliseconds.
 */
const ROUNDS = 50;
/** Enough to find the caches warm. */
const LAST_ROUNDS = 5;
/** How often the guest's own threads are interrupted, some 20 µs each, before it counts. */
const KICKS = 4;
const ANSWER = new Uint8Array(1);
const nobody = { wasRunning: true, stoppedNs: 0 };

/** A scratch VM, two ends of a connection that leads nowhere, an ownership page of nobody's guest. */
class Stage implements Disposable {
  readonly hardware: Hardware;
  readonly near: Channel;
  readonly far: Channel;
  readonly ownership: Ownership;
  readonly #owner: number;
  readonly #opened: DisposableStack;

  constructor(vm: VirtualMachine, owner: number) {
    using opened = new DisposableStack();
    this.hardware = opened.adopt(vm.machine.hardware.makeScratch(), (scratch) => scratch.close());
    const [near, far] = socketPair();
    this.near = opened.use(new Channel(near));
    this.far = opened.use(new Channel(far));
    this.ownership = opened.use(Ownership.create("old", owner));
    this.ownership.timeline.observed = false;
    this.#owner = owner;
    this.#opened = opened.move();
  }

  /** Once more from the top. */
  reset(): void {
    this.ownership.swap(this.ownership.owner, this.#owner);
    this.ownership.timeline.clear();
  }

  /** Closes the scratch VM too, which takes as long as the pause should never be. */
  [Symbol.dispose](): void {
    this.#opened.dispose();
  }
}

/** Rehearses the old VMM's half of the pause; the guest runs on. */
export class LeavingRehearsal implements Disposable {
  /** Buffers for the machine's own state. */
  readonly image: FramedImage;
  readonly #vm: VirtualMachine;
  readonly #stage: Stage;
  readonly #scratchImage: FramedImage;
  readonly #vcpu: ScratchVcpu;

  /** Makes what it takes. */
  constructor(vm: VirtualMachine) {
    this.#vm = vm;
    this.#stage = new Stage(vm, Owner.OLD);
    this.#scratchImage = new FramedImage(vm.machine, this.#stage.hardware);
    this.#vcpu = new ScratchVcpu(this.#stage.hardware.vcpus[0]);
    this.image = new FramedImage(vm.machine);
  }

  /** Rehearses until all is compiled. */
  begin(): void {
    this.#play(ROUNDS);
  }

  /** Brings everything back into the processor's caches: the pause comes next. */
  finish(): void {
    this.#play(LAST_ROUNDS);
    if (this.#vm.running) {
      for (const thread of this.#vm.machine.threads) {
        for (let kick = 0; kick < KICKS; kick++) thread.interrupt();
      }
    }
    this.#play(1);
  }

  /** Closes what it made. */
  [Symbol.dispose](): void {
    this.#stage[Symbol.dispose]();
  }

  #play(rounds: number): void {
    const { near, far, ownership } = this.#stage;
    for (let round = 0; round < rounds; round++) {
      this.#stage.reset();
      far.sink(ANSWER);
      const { length } = leave({
        ownership,
        channel: near,
        vm: this.#vm,
        image: this.#scratchImage,
        guest: undefined,
        threads: [this.#vcpu],
        onParked: undefined,
      });
      near.source(ANSWER.length);
      far.source(length);
    }
  }
}

/** Rehearses the new VMM's half of the pause, with its own vCPU threads and devices. */
export class EnteringRehearsal implements Disposable {
  readonly #vm: VirtualMachine;
  readonly #stage: Stage;
  readonly #image: FramedImage;
  readonly #scratchTarget: FramedImage;
  /** Buffers for the machine's own state. */
  readonly target: FramedImage;

  /** Makes what it takes. */
  constructor(vm: VirtualMachine) {
    this.#vm = vm;
    this.#stage = new Stage(vm, Owner.HANDED_OVER);
    this.#image = new FramedImage(vm.machine, this.#stage.hardware);
    this.#scratchTarget = new FramedImage(vm.machine, this.#stage.hardware);
    this.target = new FramedImage(vm.machine);
  }

  /** Rehearses until all is compiled. */
  begin(): void {
    enterOnce(this.#vm.machine);
    this.#play(ROUNDS);
  }

  /** Brings everything back into the processor's caches: the state comes next. */
  finish(): void {
    this.#play(LAST_ROUNDS);
  }

  /** Closes what it made. */
  [Symbol.dispose](): void {
    this.#stage[Symbol.dispose]();
  }

  #play(rounds: number): void {
    const { machine, keepers } = this.#vm;
    const { near, far, ownership } = this.#stage;
    const release = machine.hardware.holdVcpus();
    try {
      for (let round = 0; round < rounds; round++) {
        this.#stage.reset();
        // As a rule nothing has changed of what keepers have told before; both ways are gone.
        const changed = round % 4 === 1 ? keepers : [];
        far.sink(this.#image.encode(this.#image.save(nobody, changed)));
        enter({
          ownership,
          channel: near,
          machine,
          reading: { agreed: true, ignoreShared: false, keepers, target: this.#scratchTarget },
          tscGoesOn: true,
          isCopy: false,
          claimants: [],
          mayRun: true,
          wakesEarly: false,
        });
        machine.park();
        // Not for longer: the processors are the guest's, which is running.
        machine.makeReady();
        machine.park();
      }
    } finally {
      release();
    }
  }
}
