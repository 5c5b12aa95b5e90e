/**
 * A VM's guest as its owner drives it: started, stopped, put to sleep, reset.
 *
 * @module
 */
import { MAX_KEYS } from "../devices/isa/ps2_keyboard.ts";
import type { BlockSet } from "./block_set.ts";
import type { ChardevSet } from "./chardev_set.ts";
import type { MachineConfig } from "./config.ts";
import { EventHub } from "./events.ts";
import { GED_ID } from "./machine/devices.ts";
import type { Machine } from "./machine/machine.ts";
import { needsReset, type RunState } from "./run_state.ts";
import type { Vcpu } from "./threads/vcpu.ts";
import { registersAtReset } from "./view/vcpu_failure.ts";

/** The run state of a VM, and all that changes it. */
export abstract class GuestControl {
  #config: MachineConfig;
  /** Events with QEMU's names and data. */
  readonly events: EventHub = new EventHub();
  /** Takes a line for the user. */
  readonly notice: (text: string) => void;
  /** Asked before vCPUs are let run; an error message means no. */
  guard: (() => string | undefined) | undefined;
  /**
   * Memory, vCPUs and devices.
   *
   * @internal
   */
  abstract readonly machine: Machine;
  /**
   * The character devices.
   *
   * @internal
   */
  abstract readonly chardevs: ChardevSet;
  /**
   * The disks' images.
   *
   * @internal
   */
  abstract readonly blocks: BlockSet;
  #runState: RunState;
  #startOnArrival: boolean;

  /**
   * Begins before the guest's first instruction.
   *
   * @param config what the VM is made of
   * @param options.incoming whether a predecessor's state will come
   * @param options.notice takes a line for the user
   */
  constructor(
    config: MachineConfig,
    options: { readonly incoming?: boolean; readonly notice?: (text: string) => void },
  ) {
    this.#config = config;
    this.notice = options.notice ?? ((text) => console.error(text));
    this.#runState = options.incoming ? "inmigrate" : "prelaunch";
    this.#startOnArrival = !config.startPaused;
  }

  /** What the VM is made of now. */
  get config(): MachineConfig {
    return this.#config;
  }

  /**
   * A device has come or gone.
   *
   * @internal
   */
  setDevices(devices: MachineConfig["devices"]): void {
    this.#config = { ...this.#config, devices };
  }

  /** The run state, with QEMU's names. */
  get runState(): RunState {
    return this.#runState;
  }

  /** Whether the guest runs. */
  get running(): boolean {
    return this.#runState === "running";
  }

  /** Whether the guest starts by itself once a predecessor's state has arrived. */
  get startsOnArrival(): boolean {
    return this.#startOnArrival;
  }

  /** Starts the guest, unless the configuration says to wait (`-S`). */
  start(): void {
    if (!this.config.startPaused) this.cont();
  }

  /**
   * Lets the guest run.
   *
   * @param held indices of vCPUs that a debugger wants to stand still meanwhile
   * @throws {Error} if it must not: after a crash, or because another VMM owns it
   */
  cont(held?: ReadonlySet<number>): void {
    if (this.running || this.#runState === "suspended") return;
    if (this.#runState === "inmigrate") {
      this.#startOnArrival = true;
      return;
    }
    if (needsReset.has(this.#runState)) {
      throw new Error("Resetting the Virtual Machine is required");
    }
    const refusal = this.guard?.();
    if (refusal !== undefined) throw new Error(refusal);
    this.resume(held);
  }

  /**
   * Lets the vCPUs run, whatever the run state; for those who have checked it. One that somebody has to
   * decide on first runs no guest code until it is done.
   *
   * @param held indices of vCPUs that a debugger wants to stand still meanwhile
   */
  resume(held: ReadonlySet<number> = new Set()): void {
    const { machine } = this;
    if (machine.isAsleep) return this.sleepOn();
    this.blocks.clearErrors();
    const isHeld = ({ index, control }: Vcpu) => held.has(index) || control.hasEvent;
    machine.resume(new Set(machine.vcpus.filter(isHeld)));
    this.resumed();
  }

  /**
   * The vCPUs have been let run.
   *
   * @internal
   */
  resumed(): void {
    this.#runState = "running";
    this.events.emit("RESUME");
    this.chardevs.acceptInput();
  }

  /**
   * The VM goes on, but its guest sleeps: the vCPUs stand still until it is woken.
   *
   * @internal
   */
  sleepOn(): void {
    this.#runState = "suspended";
    this.events.emit("RESUME");
  }

  /** The guest has put the machine to sleep: stops it until it is woken. */
  suspend(): void {
    if (!this.running || !this.machine.isAsleep) return;
    this.machine.park();
    this.machine.hardware.freezeClock();
    this.#runState = "suspended";
    this.events.emit("SUSPEND");
  }

  /**
   * Wakes a guest that sleeps.
   *
   * @throws {Error} if it does not, or cannot
   */
  wakeup(): void {
    if (!this.config.machine.acpi) {
      throw new Error("wake-up from suspend is not supported by this guest");
    }
    if (this.#runState !== "suspended") {
      throw new Error("Unable to wake up: guest is not in suspended state");
    }
    const refusal = this.guard?.();
    if (refusal !== undefined) throw new Error(refusal);
    const { machine } = this;
    machine.devices.with(GED_ID, (device) => device.wake!());
    this.blocks.clearErrors();
    machine.resume();
    this.#runState = "running";
    this.events.emit("WAKEUP");
    this.chardevs.acceptInput();
  }

  /** Stops the guest; `cont` lets it go on. In `inmigrate` it only takes back the automatic start. */
  stop(): void {
    if (this.#runState === "inmigrate") this.#startOnArrival = false;
    else if (this.#runState === "suspended") {
      this.#runState = "paused";
      this.events.emit("STOP");
    } else this.pause("paused");
  }

  /**
   * Stops the guest into a run state. Without effect when it does not run.
   *
   * @param agoNs how long ago its vCPUs were stopped, if they were
   */
  pause(state: RunState, agoNs = 0): void {
    if (!this.running) return;
    this.machine.park();
    // While a person has the guest stopped its time stands still; over a live update it goes on.
    if (state !== "finish-migrate" || this.config.machine.xPauseClock) {
      this.machine.hardware.freezeClock();
    }
    this.#runState = state;
    this.events.emit("STOP", undefined, agoNs);
  }

  /** Changes the run state of a VM that does not run. */
  setRunState(state: RunState): void {
    this.#runState = state;
  }

  /** Resets the machine; it goes on in the run state it was in, or paused after a crash. */
  reset(reason = "host-qmp-system-reset"): void {
    const refusal = this.guard?.();
    if (refusal !== undefined) throw new Error(refusal);
    const resetEvent = { guest: reason.startsWith("guest"), reason };
    if (this.#runState === "inmigrate") {
      // The machine is as a reset leaves it, and its memory is in use where the guest still runs.
      return this.events.emit("RESET", resetEvent);
    }
    const wasRunning = this.running || this.#runState === "suspended";
    this.machine.park();
    this.log("cpu_reset", () => registersAtReset(this.machine));
    try {
      this.machine.reset();
    } catch (error) {
      // Memory or an image is gone: what is left is no machine that could run.
      if (this.running) this.pause("internal-error");
      else this.#runState = "internal-error";
      throw error;
    }
    this.blocks.clearErrors();
    this.events.emit("RESET", resetEvent);
    if (needsReset.has(this.#runState)) this.#runState = "paused";
    else if (wasRunning) {
      this.#runState = "running";
      this.machine.resume();
    }
  }

  /** Presses the power button; without ACPI there is none, only the event is sent. */
  powerdown(): void {
    const { devices } = this.machine;
    if (this.config.machine.acpi) devices.with(GED_ID, (device) => device.pressPowerButton!());
    this.events.emit("POWERDOWN");
  }

  /**
   * Presses keys of the keyboard together, by QEMU's names, and releases them after a while. As
   * under QEMU nothing is typed while the guest does not run.
   *
   * @throws {Error} if too many are waiting already, because the guest does not read them
   */
  sendKeys(keys: readonly string[], holdMs: number): void {
    if (!this.running) return;
    if (keys.length > MAX_KEYS) {
      throw new Error(`${keys.length} keys cannot be pressed together, the most is ${MAX_KEYS}`);
    }
    const isTaken = this.machine.devices.with("i8042", (device) => device.press!(keys, holdMs));
    if (!isTaken) throw new Error("Too many keys are waiting to be pressed: try again later");
  }

  /** Sends every vCPU a non-maskable interrupt. */
  injectNmi(): void {
    this.whileParked(() => this.machine.vcpus.forEach((vcpu) => vcpu.hardware.nmi()));
  }

  /** Looks at the vCPUs: stops them for as long as `look` takes, without anyone noticing. */
  whileParked<T>(look: () => T): T {
    if (!this.running) return look();
    this.machine.park();
    try {
      return look();
    } finally {
      this.machine.resume();
    }
  }

  /**
   * Logs what `-d ITEM` asks for.
   *
   * @internal
   */
  log(item: string, text: () => string): void {
    if (this.config.debugItems.includes(item)) this.notice(text());
  }
}
