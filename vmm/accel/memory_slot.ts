/**
 * Memory that a guest is shown.
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";

/** A range of guest physical addresses and the host memory behind it. */
export interface MemorySlot {
  readonly slot: number;
  /** First guest physical address. */
  readonly gpa: number;
  /** Bytes. */
  readonly size: number;
  /** Where it is mapped in this process. */
  readonly address: number;
  /** The file that is mapped there, and where in it; without one the memory is anonymous. */
  readonly file?: { readonly fd: OwnedFd; readonly offset: number };
  /** Guest writes exit as accesses to a device. */
  readonly readonly: boolean;
}
