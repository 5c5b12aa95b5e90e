/** A software CPU with RAM and fake devices, for tests that run code on it. */
import { Core, type CoreHost, coreMemory } from "../../../vmm/accel/software/core.ts";
import { RAM_ADDRESS } from "../../../vmm/accel/software/cpu_state.ts";

const file = Deno.env.get("DENOVO_CORE") ??
  new URL("../../../vmm/accel/software/core.wasm", import.meta.url);
let compiled: WebAssembly.Module | undefined;

/** The committed module, or the one that DENOVO_CORE names while it is developed. */
export function coreModule(): WebAssembly.Module {
  return compiled ??= new WebAssembly.Module(Deno.readFileSync(file));
}

/** A machine in which nothing answers; ports read as ones, output is collected. */
export function quietHost(output: number[] = []): CoreHost {
  return {
    portIn: () => 0xffff_ffff,
    portOut: (_port, _size, value) => void output.push(value),
    mmioRead: () => 0xffff_ffff,
    mmioWrite: () => {},
    readTsc: () => {},
    msrRead: () => 0,
    msrWrite: () => 0,
    interruptVector: () => -1,
    cr8Changed: () => {},
    fpuError: () => {},
    random: () => 4,
  };
}

/** A CPU with RAM at guest physical address 0. */
export class TestCore {
  readonly core: Core;
  readonly ram: Uint8Array;
  /** What was written to ports. */
  readonly output: number[] = [];

  constructor(ramSize = 1 << 20, host: Partial<CoreHost> = {}) {
    const memory = coreMemory(ramSize);
    this.core = new Core(coreModule(), memory, { ...quietHost(this.output), ...host });
    this.ram = new Uint8Array(memory.buffer, RAM_ADDRESS, ramSize);
    const region = this.core.state.regions.at(0);
    region.gpa = 0n;
    region.size = BigInt(ramSize);
    region.address = RAM_ADDRESS;
    this.core.state.region_count = 1;
    this.core.exports.powerOn(1, 0);
    this.core.exports.refresh();
  }

  get state(): Core["state"] {
    return this.core.state;
  }

  /** Sets a segment: base, limit, attributes of descriptor bits 40 to 55. */
  setSegment(
    index: number,
    selector: number,
    base: bigint,
    limit: number,
    attributes: number,
  ): void {
    const segment = this.state.segments.at(index);
    segment.selector = selector;
    segment.base = base;
    segment.limit = limit;
    segment.attributes = attributes;
  }

  /** 64-bit mode with all RAM mapped at its own address by 2 MiB pages, at CPL 0 or 3. */
  enterLongMode(user = false): void {
    const tables = new DataView(this.ram.buffer, this.ram.byteOffset, this.ram.byteLength);
    const top = this.ram.byteLength - 0x10000;
    tables.setBigUint64(top, BigInt(top + 0x1000) | 7n, true);
    tables.setBigUint64(top + 0x1000, BigInt(top + 0x2000) | 7n, true);
    for (let i = 0; i < 512; i++) {
      tables.setBigUint64(top + 0x2000 + i * 8, BigInt(i * 0x20_0000) | 0xe7n, true);
    }
    const state = this.state;
    state.cr3 = BigInt(top);
    state.cr4 = 0x620n;
    state.cr0 = 0x8005_0033n;
    state.efer = 0xd01n;
    const dpl = user ? 0x60 : 0;
    this.setSegment(1, user ? 0x33 : 0x10, 0n, 0xffff_ffff, 0xa09b | dpl);
    for (const index of [0, 2, 3]) {
      this.setSegment(index, user ? 0x2b : 0x18, 0n, 0xffff_ffff, 0xc093 | dpl);
    }
    state.rflags = 2n;
    this.core.exports.refresh();
  }

  /** Flat 32-bit protected mode without paging. */
  enterProtectedMode(): void {
    this.state.cr0 = 0x11n;
    this.setSegment(1, 8, 0n, 0xffff_ffff, 0xc09b);
    for (const index of [0, 2, 3]) this.setSegment(index, 0x10, 0n, 0xffff_ffff, 0xc093);
    this.core.exports.refresh();
  }

  /** Puts code into RAM. */
  load(address: number, code: ArrayLike<number>): void {
    this.ram.set(code, address);
  }

  /** Runs until the guest halts or the budget is used up; returns STOP_*. */
  run(rip: number, budget = 100_000): number {
    this.state.rip = BigInt(rip);
    return this.core.run(budget);
  }
}
