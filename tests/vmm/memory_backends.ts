/**
 * Memory backends for tests.
 *
 * @module
 */
import type { MemoryBackendConfig } from "../../vmm/config.ts";
import { type MemoryBackend, openBackend } from "../../vmm/machine/guest_memory.ts";

/** Bytes that a backend has unless a test says otherwise. */
export const BACKEND_SIZE = 1 << 20;

/** A backend of 1 MiB in a memfd, unless options say otherwise. */
export function backendConfig(options: Partial<MemoryBackendConfig>): MemoryBackendConfig {
  return {
    qomType: "memory-backend-memfd",
    id: "ram0",
    size: BACKEND_SIZE,
    share: true,
    prealloc: false,
    hugetlb: false,
    readonly: false,
    seal: true,
    ...options,
  };
}

/** Opens a backend for the length of a test. */
export function withBackend(
  options: Partial<MemoryBackendConfig>,
  run: (b: MemoryBackend) => void,
): void {
  const backend = openBackend(backendConfig(options));
  try {
    run(backend);
  } finally {
    backend.mapping.close();
    backend.fd?.close();
  }
}

/** Makes a folder for the length of a test. */
export async function withFolder(run: (folder: string) => void): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "denovo-memory-" });
  try {
    run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
