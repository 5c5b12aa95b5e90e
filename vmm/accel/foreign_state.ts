/**
 * A vCPU's state as another accelerator has saved it, made into one that this one takes.
 *
 * The structs are the same everywhere. What differs is which MSRs there are, which depends on the
 * processor, the kernel and the accelerator, and how much room XSAVE's state has.
 *
 * @module
 */
import { kvmMsrEntry, kvmXsave } from "../../ffi/kvm/structs.ts";
import type { FeatureSet } from "../cpu/features.ts";
import { msrCount, msrEntry } from "./msrs.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** Bytes of a buffer of MSRs before its entries. */
const HEAD = 8;

/** What the lengths of XSAVE's components are multiples of (SDM volume 1, 13.5). */
const XSAVE_UNIT = 8;

/** MSRs that accelerators list whether or not the guest has them. */
interface OptionalMsrs {
  readonly first: number;
  readonly last: number;
  /** The feature without which no guest reads or writes them; undefined: there is none. */
  readonly feature?: string;
  /** What they are after a reset, if it is not 0. */
  readonly reset?: bigint;
}

/**
 * Intel SDM volume 4; AMD APM volume 2, appendix A; Documentation/virt/kvm/x86/msr.rst. Hyper-V's are
 * listed by any KVM that is built with it (Hypervisor Top Level Functional Specification).
 */
const OPTIONAL: readonly OptionalMsrs[] = [
  { first: 0x9e, last: 0x9e, reset: 0x3_0000n }, // SMBASE
  { first: 0x10a, last: 0x10a, feature: "arch-capabilities" },
  { first: 0x179, last: 0x179, reset: 0x20n }, // MCG_CAP of 32 banks, as KVM has it
  { first: 0x345, last: 0x345, feature: "pdcm" },
  { first: 0x480, last: 0x493, feature: "vmx" },
  { first: 0x4000_0000, last: 0x4000_01ff, feature: undefined }, // Hyper-V, which no guest here has
  { first: 0x4b56_4d05, last: 0x4b56_4d05, reset: 1n }, // kvm-poll-control
  { first: 0xc000_0104, last: 0xc000_0104, reset: 1n << 32n }, // TSC ratio
  { first: 0xc001_0114, last: 0xc001_0117, feature: "svm" },
];

/** Whether nothing of an MSR's value matters to a guest that has these features. */
function isIdle(index: number, value: bigint, features: FeatureSet): boolean {
  if (value === 0n) return true;
  const found = OPTIONAL.find(({ first, last }) => index >= first && index <= last);
  if (!found) return false;
  if (found.reset !== undefined) return value === found.reset;
  return found.feature === undefined || !features.has(found.feature);
}

/**
 * Takes MSRs that another accelerator has saved.
 *
 * @param own the MSRs that this one saves
 * @param saved struct kvm_msrs
 * @param features what the guest has
 * @returns struct kvm_msrs without those that this accelerator does not list and the guest does not
 *   miss; it is for the accelerator to refuse the others
 * @throws {RangeError} if the saved bytes are no such struct, or have an MSR twice
 */
export function adoptMsrs(own: Bytes, saved: Bytes, features: FeatureSet): Bytes {
  const count = saved.length < HEAD ? -1 : msrCount(saved);
  if (saved.length !== HEAD + count * kvmMsrEntry.size) {
    throw new RangeError(`${saved.length} bytes are no list of MSRs`);
  }
  const comes = new Set<number>();
  for (const index of indices(saved)) {
    if (comes.has(index)) throw new RangeError(`MSR 0x${index.toString(16)} comes twice`);
    comes.add(index);
  }
  const listed = new Set(indices(own));
  const kept = Array.from({ length: count }, (_, position) => position).filter((position) => {
    const { index, data } = msrEntry(saved, position);
    return listed.has(index) || !isIdle(index, data, features);
  });
  const bytes = new Uint8Array(HEAD + kept.length * kvmMsrEntry.size);
  new DataView(bytes.buffer).setUint32(0, kept.length, true);
  kept.forEach((position, i) => {
    const start = HEAD + position * kvmMsrEntry.size;
    const entry = saved.subarray(start, start + kvmMsrEntry.size);
    bytes.set(entry, HEAD + i * kvmMsrEntry.size);
  });
  return bytes;
}

function indices(msrs: Bytes): number[] {
  return Array.from({ length: msrCount(msrs) }, (_, position) => msrEntry(msrs, position).index);
}

/**
 * Makes XSAVE's state as long as this accelerator has it.
 *
 * @throws {RangeError} if it cannot be one, or if there is something in what would be cut off
 */
export function fitXsave(saved: Bytes, length: number): Bytes {
  if (saved.length < kvmXsave.size || saved.length % XSAVE_UNIT !== 0) {
    throw new RangeError(`${saved.length} bytes are no XSAVE state`);
  }
  if (saved.subarray(length).some((byte) => byte !== 0)) {
    throw new RangeError(
      `${saved.length} bytes of XSAVE state are in use, this host has ${length}`,
    );
  }
  const bytes = new Uint8Array(length);
  bytes.set(saved.subarray(0, length));
  return bytes;
}
