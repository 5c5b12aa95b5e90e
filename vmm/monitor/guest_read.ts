/**
 * Reads guest memory for commands that dump it.
 *
 * @module
 */
import type { MachineControl } from "./control.ts";

const pageSize = 4096n;
/** Bytes read at a time: other work gets its turn in between. */
const chunkBytes = 1n << 20n;

/** One piece of a range of guest memory. */
export interface Chunk {
  /** Guest address. */
  readonly address: bigint;
  /** Bytes. */
  readonly length: number;
}

/** Splits a range into pieces, with the event loop running in between; addresses wrap at 2^64. */
export async function* chunksOf(address: bigint, size: bigint): AsyncGenerator<Chunk> {
  for (let done = 0n; done < size; done += chunkBytes) {
    if (done > 0n) await new Promise((resolve) => setTimeout(resolve));
    const length = Number(size - done < chunkBytes ? size - done : chunkBytes);
    yield { address: BigInt.asUintN(64, address + done), length };
  }
}

/**
 * A copy of guest-virtual memory.
 *
 * @param cpuIndex the vCPU whose page tables count
 * @returns undefined if any byte is not mapped to memory
 */
export async function readVirtual(
  machine: MachineControl,
  cpuIndex: number,
  /** Guest address. */
  address: bigint,
  length: number,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const result = new Uint8Array(length);
  for (let done = 0; done < length;) {
    const at = BigInt.asUintN(64, address + BigInt(done));
    const inPage = Number(pageSize - at % pageSize);
    const piece = Math.min(inPage, length - done);
    const physical = await machine.translate(cpuIndex, at);
    const bytes = physical === undefined ? undefined : machine.readMemory(physical, piece);
    if (!bytes) return undefined;
    result.set(bytes, done);
    done += piece;
  }
  return result;
}
