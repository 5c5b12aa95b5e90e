/**
 * Guests that test the system part of the software CPU: ROMs of 64 KiB that keep a log of numbers.
 *
 * `record.ts` assembles them and records their logs from QEMU's TCG where that follows the manuals; the
 * log of a guest in `ownGuests` is the manuals', checked by hand.
 *
 * @module
 */
import { encodeCpuid } from "../../../../ffi/kvm/cpuid.ts";
import { Core, coreMemory } from "../../../../vmm/accel/software/core.ts";
import { RAM_ADDRESS, STOP } from "../../../../vmm/accel/software/cpu_state.ts";
import { supportedCpuid } from "../../../../vmm/accel/software/cpuid_model.ts";
import { coreModule, quietHost } from "../core_testing.ts";

/** The guests whose logs are the same in QEMU. */
export const guests = ["real", "protected", "long"] as const;
/** The guests that test what QEMU leaves out. */
export const ownGuests = ["strict_real", "strict", "strict64"] as const;

/** Bytes of a guest's ROM, which ends at 4 GiB and at 1 MiB. */
const ROM_SIZE = 0x1_0000;
const RAM_SIZE = 0x20_0000;
/** Where the guest's log is, and where a guest writes when it has ended (common.inc). */
const LOG = { start: 0x3_0000, end: 0x4_0000 };
const EXIT_PORT = 0xf4;
/** A guest executes some ten thousand instructions; it must not go on for ever. */
const BUDGET = 5_000_000;
/** A test's number: 0x1d at level 0, 0x3d at level 3, 0x8d in virtual-8086 mode; and the end. */
const isHeading = (value: number) => [0x1d, 0x3d, 0x8d].includes(value >>> 16) || value === 0xe0d;

/** The log as text: a line for each test. */
export function readLog(ram: Uint8Array): string[] {
  const data = new DataView(ram.buffer, ram.byteOffset + LOG.start, LOG.end - LOG.start);
  const values = Array.from({ length: data.byteLength / 4 }, (_, i) => data.getUint32(i * 4, true));
  const last = values.lastIndexOf(0xe0d);
  const lines: string[] = [];
  for (const value of values.slice(0, last + 1)) {
    const text = value.toString(16);
    if (isHeading(value) || lines.length === 0) lines.push(text);
    else lines[lines.length - 1] += ` ${text}`;
  }
  return lines;
}

/** The ROM of a guest, as it was assembled. */
export async function readRom(name: string): Promise<Uint8Array<ArrayBuffer>> {
  const file = await Deno.open(new URL(`${name}.gz`, import.meta.url));
  const unzipped = file.readable.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unzipped).arrayBuffer());
}

/** Runs a guest to its end on the software CPU; gives its log. */
export function runGuest(rom: Uint8Array): string[] {
  const memory = coreMemory(RAM_SIZE + ROM_SIZE);
  const core = new Core(coreModule(), memory, {
    ...quietHost(),
    portOut: (port) => {
      if (port === EXIT_PORT) core.state.attention |= 1;
    },
  });
  const { state, exports } = core;
  const romAddress = RAM_ADDRESS + RAM_SIZE;
  new Uint8Array(memory.buffer, romAddress).set(rom);
  // The ROM is in front of the RAM below it.
  [
    { gpa: 0xf_0000n, size: BigInt(ROM_SIZE), address: romAddress, readonly: 1 },
    { gpa: 0xffff_0000n, size: BigInt(ROM_SIZE), address: romAddress, readonly: 1 },
    { gpa: 0n, size: BigInt(RAM_SIZE), address: RAM_ADDRESS, readonly: 0 },
  ].forEach((region, i) => Object.assign(state.regions.at(i), region));
  state.region_count = 3;
  const cpuid = supportedCpuid();
  new Uint8Array(memory.buffer).set(encodeCpuid(cpuid).subarray(8), exports.cpuidTable());
  exports.cpuidChanged(cpuid.length);
  exports.powerOn(1, cpuid.find((entry) => entry.function === 1)!.eax);
  exports.refresh();
  const stop = core.run(BUDGET);
  if (stop !== STOP.attention) {
    throw new Error(`The guest stopped by ${stop} at ${state.rip.toString(16)}`);
  }
  return readLog(new Uint8Array(memory.buffer, RAM_ADDRESS, RAM_SIZE));
}
