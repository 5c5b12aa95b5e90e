/**
 * Where the chips' state is: one block of shared memory, the machine's chips first and then one
 * LAPIC a vCPU.
 *
 * What KVM's structs hold is in exactly these structs, so that saving is copying. Beside it lies the
 * little that KVM keeps to itself and derives again when a state is loaded. Zeroed memory is not yet a
 * chipset: it has to be reset or loaded first.
 *
 * @module
 */
import { array, f64, i32, struct, u32, u64 } from "../../../../ffi/struct.ts";
import {
  kvmIoapicState,
  kvmPicState,
  kvmPitState2,
  lapicRegisters,
} from "../../../../ffi/kvm/structs.ts";

/** The chips that a machine has once. */
export const chipsetState = struct("chipset_state", {
  /** Mutex of PIC, IOAPIC and PIT, first so that its index is 0. */
  lock: i32,
  /** The levels of the lines (GSI 0 to 23) as devices drive them, a bit each. */
  levels: u32,
  /** Whether the master 8259A asserts INTR. */
  pic_output: u32,
  /** Edges at the IOAPIC that have been sent on, which KVM_GET_IRQCHIP leaves out of `irr`. */
  irr_delivered: u32,
  /** Vectors whose end the IOAPIC wants to know although they are edge-triggered, a bit each. */
  eoi_vectors: array(u32, 8),
  pic: array(kvmPicState, 2),
  ioapic: kvmIoapicState,
  pit: kvmPitState2,
  /** When channel 0 of the PIT next interrupts, ns of CLOCK_MONOTONIC; 0 is never. */
  pit_deadline: f64,
  /** Time between interrupts of channel 0, ns. */
  pit_period: f64,
  /** Interrupts of channel 0 that wait for the one before to be acknowledged. */
  pit_pending: u32,
  /** Whether the last interrupt of channel 0 has been acknowledged. */
  pit_acknowledged: u32,
  /** How long channel 2 had counted when its gate went low, ns. */
  pit_gated: f64,
  /** kvmclock in ns when the host's TSC was `clock_tsc`. */
  clock_ns: u64,
  clock_tsc: u64,
  /** MSR_KVM_WALL_CLOCK. */
  wall_clock: u64,
});

/** What a machine has for each vCPU. */
export const lapicState = struct("lapic_state", {
  /** The registers as KVM_GET_LAPIC gives them, but for the current count. */
  registers: lapicRegisters,
  /** IA32_APIC_BASE. */
  apic_base_low: u32,
  apic_base_high: u32,
  /** The id at power-on. */
  initial_id: u32,
  /** What waits for the vCPU besides interrupts: bits of {@linkcode LapicEvent}. */
  events: u32,
  /** Vector of the last startup IPI. */
  sipi_vector: u32,
  /** Errors since the ESR was last written. */
  errors: u32,
  /** IA32_TSC_DEADLINE; 0 is disarmed. */
  tsc_deadline_low: u32,
  tsc_deadline_high: u32,
  /** When the timer expires, ns of CLOCK_MONOTONIC; 0 is never. */
  timer_deadline: f64,
  /** What the initial count amounts to, ns. */
  timer_period: f64,
  /** MSR_KVM_SYSTEM_TIME. */
  system_time: u64,
  /** Whether the vCPU's page of kvmclock has to be written again, and how: bits. */
  clock_request: u32,
});

/** Bits of `lapic_state.events`. */
export const LapicEvent = { INIT: 1, SIPI: 2, NMI: 4, ALL: 7 } as const;

/** A LAPIC's state begins at a multiple of this: a cache line. */
const ALIGN = 64;

const aligned = (size: number) => Math.ceil(size / ALIGN) * ALIGN;

/** Where the LAPIC of vCPU number `index` begins. */
export function lapicOffset(index: number): number {
  return aligned(chipsetState.size) + index * aligned(lapicState.size);
}

/** Bytes of all chips of a machine with `vcpus` vCPUs. */
export function chipsetSize(vcpus: number): number {
  return lapicOffset(vcpus);
}
