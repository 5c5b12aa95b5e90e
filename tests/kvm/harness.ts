/**
 * What the tests on real KVM share: a VM that runs a guest program, its console, and ways to wait.
 *
 * @module
 */
import assert from "node:assert/strict";
import { saveMachine } from "../../cpr/state/machine_state.ts";
import { isOpen, type OwnedFd, readFd, writeFd } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/socket.ts";
import { defaultConfig, type MachineConfig } from "../../vmm/config.ts";
import type { VmEvent } from "../../vmm/events.ts";
import type { RunState } from "../../vmm/run_state.ts";
import { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { describeCheck, layout, type ProgramName, programs } from "../guests/programs.ts";
import { patience } from "../patience.ts";
import { canonicalXsave } from "./xsave.ts";

import { testAccelerator } from "../needs_kvm.ts";
export { kvmTest } from "../needs_kvm.ts";

/** A wait that takes longer than this has failed: only broken code takes so long. */
const PATIENCE_MS = patience(120_000);

/** Lets the event loop run for a while. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits until a condition holds; `what` says what was waited for in vain. */
export async function until(condition: () => boolean, what: () => string): Promise<void> {
  const start = performance.now();
  while (!condition()) {
    assert.ok(performance.now() - start < PATIENCE_MS, `Waited in vain for ${what()}`);
    await sleep(patience(1));
  }
}

/** The machine's state, as far as neither time nor the processor's whim changes it, and its RAM. */
export function still({ machine }: VirtualMachine): unknown {
  // KVM gives all that the host has, whatever the guest may see of it.
  const cpuid = machine.accelerator.supportedCpuid();
  const moving = ["kvmclock", "cpu/msrs", "cpu/tsc_offset", "cpu/lapic", "pit"];
  const sections = saveMachine(machine).filter(({ name }) => !moving.includes(name))
    .map((section) =>
      section.name === "cpu/xsave"
        ? { ...section, data: canonicalXsave(section.data, cpuid) }
        : section
    );
  const ram = machine.memory.regions.map(({ gpa, size }) => machine.memory.read(gpa, size).toHex());
  return [...sections, ...ram];
}

/** What a test changes of the configuration that all have. */
export interface VmOptions extends Partial<Omit<MachineConfig, "machine">> {
  readonly machine?: Partial<MachineConfig["machine"]>;
  /** A guest program to start. */
  readonly program?: ProgramName;
  /** Number of vCPUs. */
  readonly cpus?: number;
  /** Whether there is an isa-debug-exit; unless given there is. */
  readonly debugExit?: boolean;
}

/** Turns a test's options into a configuration; the console is the descriptor `console`. */
function configure(options: VmOptions, console: number, image?: string): Partial<MachineConfig> {
  const { program, cpus = 1, debugExit = true, machine, ...rest } = options;
  const isRom = program !== undefined && programs[program].entry === "rom";
  return {
    memory: 64 << 20,
    accelerators: [testAccelerator],
    smp: { ...defaultConfig().smp, cpus, maxcpus: cpus, cores: cpus },
    ...(image === undefined ? {} : isRom ? { bios: image } : { kernel: image }),
    ...rest,
    machine: { ...defaultConfig().machine, ...machine },
    devices: [
      ...(debugExit ? [{ driver: "isa-debug-exit", properties: {} }] : []),
      ...(rest.devices ?? []),
    ],
    chardevs: [{ backend: "fd", id: "console", fd: console }, ...(rest.chardevs ?? [])],
    serials: ["console"],
  };
}

/** A VM under test. */
export class TestVm implements AsyncDisposable {
  /** Every event so far. */
  readonly events: VmEvent[] = [];
  #text = "";
  readonly #buffer = new Uint8Array(4096);

  private constructor(
    readonly vm: VirtualMachine,
    readonly console: OwnedFd,
    /** Lines for the user so far. */
    readonly notices: readonly string[],
    readonly image: string | undefined,
  ) {
    vm.events.subscribe((event) => this.events.push(event));
  }

  /** Creates a VM; its guest does not run yet. */
  static async create(options: VmOptions): Promise<TestVm> {
    const { program } = options;
    const image = program && await Deno.makeTempFile({ prefix: `denovo-${program}-` });
    const [inside, outside] = socketPair("stream", { nonblocking: true });
    const notices: string[] = [];
    try {
      if (image) await Deno.writeFile(image, programs[program].bytes);
      const vm = await VirtualMachine.create(configure(options, inside.fd, image), {
        notice: (text) => notices.push(text),
      });
      inside.release();
      return new TestVm(vm, outside, notices, image);
    } catch (error) {
      // A chardev that was opened has taken its descriptor over, and closed it.
      if (isOpen(inside.fd)) inside.close();
      outside.close();
      if (image) await Deno.remove(image);
      throw error;
    }
  }

  /** Creates a VM and starts its guest. */
  static async start(options: VmOptions): Promise<TestVm> {
    const test = await TestVm.create(options);
    test.vm.start();
    return test;
  }

  /** What the guest has printed so far, without carriage returns. */
  get text(): string {
    if (!this.console.closed) {
      for (let n; (n = readFd(this.console.fd, this.#buffer)) > 0;) {
        this.#text += new TextDecoder().decode(this.#buffer.subarray(0, n)).replaceAll("\r", "");
      }
    }
    return this.#text;
  }

  /** The names of the events so far. */
  get eventNames(): string[] {
    return this.events.map(({ name }) => name);
  }

  /** Waits until the guest has printed `wanted`, `count` times in all. */
  async printed(wanted: string, count = 1): Promise<void> {
    await this.#until(
      () => this.text.split(wanted).length > count,
      () => JSON.stringify(wanted),
    );
  }

  /** Types on the guest's console. */
  type(text: string): void {
    const data = new TextEncoder().encode(text);
    assert.equal(writeFd(this.console.fd, data), data.length, "the console takes no more");
  }

  /** Waits until the VM is in a run state. */
  async reaches(state: RunState): Promise<void> {
    await this.#until(() => this.vm.runState === state, () => state);
  }

  /** Waits until the machine was reset `count` times. */
  async resets(count: number): Promise<void> {
    const resets = () => this.eventNames.filter((name) => name === "RESET").length;
    await this.#until(() => resets() >= count, () => `${count} resets`);
  }

  /** Waits for the VM's end and returns its exit status. */
  async ended(): Promise<number> {
    let status: number | undefined;
    this.vm.exited.then((value) => status = value);
    await this.#until(() => status !== undefined, () => "the end");
    return status!;
  }

  /** One of the 8-byte words of a guest program. */
  word(address: number): number {
    const bytes = this.vm.machine.memory.read(address, 8);
    return Number(new DataView(bytes.buffer).getBigUint64(0, true));
  }

  /** Changes one of those words. */
  setWord(address: number, value: number): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
    this.vm.machine.memory.write(address, bytes);
  }

  /** Waits until one of those words has grown beyond `above`; returns it. */
  async grown(address: number, above = this.word(address)): Promise<number> {
    await this.#until(
      () => this.word(address) > above,
      () => `0x${address.toString(16)} to grow above ${above}`,
    );
    return this.word(address);
  }

  /** Stops the VM, and fails if one of the words changes although the VM is stopped. */
  async assertStandsStill(addresses: readonly number[]): Promise<void> {
    this.vm.stop();
    const before = addresses.map((address) => this.word(address));
    await sleep(2);
    assert.deepEqual(addresses.map((address) => this.word(address)), before);
  }

  /** Fails if a program that verifies itself has found an error. */
  assertUnharmed(): void {
    assert.equal(describeCheck(this.word(layout.check)), "no error");
  }

  /** Closes VM, console and image. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.vm.close();
    this.console.close();
    if (this.image) await Deno.remove(this.image);
  }

  /** Waits, and reads the console meanwhile: a guest whose output nobody takes stands still. */
  #until(condition: () => boolean, what: () => string): Promise<void> {
    const { vm, notices } = this;
    const drained = () => {
      void this.text;
      return condition();
    };
    return until(drained, () => {
      const told = JSON.stringify([this.#text, notices]);
      return `${what()}; run state ${vm.runState}, events ${this.eventNames}, told ${told}`;
    });
  }
}
