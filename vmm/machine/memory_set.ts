/**
 * All memory of a VM: the backends of `-object`, the RAM that the machine makes itself, firmware.
 *
 * @module
 */
import type { FdRequirement } from "../../ffi/fd_requirement.ts";
import type { MachineConfig, MemoryBackendConfig } from "../config.ts";
import { makeMappable, type MemoryBackend, openBackend } from "./guest_memory.ts";
import { describeKey, type Handover, type Inheritance, type Keeper } from "../inheritance.ts";
import { MACHINE_TYPE } from "./microvm.ts";

/** The id of the RAM that the machine makes itself. */
export const DEFAULT_RAM_ID = `${MACHINE_TYPE}.ram`;

/** The id of the memory behind `-bios`. */
export const ROM_ID = "pc.bios";

/** What a backend's descriptor is handed over as; the id is the backend's. */
const MEMORY = "memory";
/** A memfd, or a file that others have as well. */
const memoryFd: FdRequirement = { kind: "file", sealed: "if possible" };

/** Memory backends by id, which a successor maps in place. */
export class MemorySet implements Keeper {
  /** All of them, the machine's RAM among them. */
  readonly backends: Map<string, MemoryBackend> = new Map();
  #inheritance: Inheritance | undefined;

  /**
   * Opens the backends of `-object`, and the machine's own RAM if none of them is that.
   *
   * @param inheritance what a predecessor left; without its memory the guest would find zeros
   * @throws {Error} with the reason: no such path, not enough memory, not passed
   */
  open(config: MachineConfig, inheritance?: Inheritance): void {
    this.#inheritance = inheritance;
    for (const object of wantedBackends(config)) {
      if (this.backends.has(object.id)) throw new Error(`Duplicate ID '${object.id}' for object`);
      this.#advise(this.#open(object), config);
    }
    for (const id of inheritance?.idsOf(MEMORY) ?? []) {
      if (id === ROM_ID && config.bios !== undefined) continue;
      throw new Error(`Unknown ramblock ${JSON.stringify(id)}, cannot accept migration`);
    }
  }

  /**
   * Makes all memory such that this process can map it several times; what is private stays so. Nothing is
   * in it yet but what is in files.
   *
   * @throws {Error} if there is not enough memory
   */
  makeMappable(config: MachineConfig): void {
    for (const [id, backend] of this.backends) {
      if (backend.mappable) continue;
      const mappable = makeMappable(backend);
      this.backends.set(id, mappable);
      this.#advise(mappable, config);
    }
  }

  /** The firmware's memory: a memfd as well, so that a successor shows the guest the same bytes. */
  openRom(size: number): MemoryBackend {
    return this.#open(sharedMemfd(ROM_ID, size));
  }

  /** The backend that is the machine's RAM. @throws {Error} if there is none of that id */
  ram({ machine }: MachineConfig): MemoryBackend {
    const ram = this.backends.get(machine.memoryBackend ?? DEFAULT_RAM_ID);
    if (ram) return ram;
    throw new Error(`Memory backend '${machine.memoryBackend}' not found`);
  }

  handOver(): Handover {
    const fds = [...this.backends].flatMap(([id, { fd, config }]) =>
      fd && config.share ? [{ name: MEMORY, id, fd: fd.fd }] : []
    );
    return { fds, values: [] };
  }

  /** RAM that a successor cannot map would read as zeros there: the reasons, in QEMU's words. */
  blockers(): string[] {
    return [...this.backends].filter(([, { fd, config }]) => !fd || !config.share).map(([id]) =>
      `Memory region ${id} is not compatible with CPR. share=on is required for memory-backend` +
      " objects, and aux-ram-share=on is required."
    );
  }

  /** Unmaps and closes everything. */
  close(): void {
    for (const { mapping, fd } of this.backends.values()) {
      mapping.close();
      fd?.close();
    }
  }

  #advise({ mapping, config: { share } }: MemoryBackend, { machine }: MachineConfig): void {
    if (!machine.dumpGuestCore) mapping.excludeFromDumps();
    if (machine.memMerge && !share) mapping.allowMerging();
  }

  #open(config: MemoryBackendConfig): MemoryBackend {
    const backend = openBackend(config, this.#inherited(config));
    this.backends.set(config.id, backend);
    return backend;
  }

  /** @throws {Error} if there is a predecessor, but it did not pass this memory */
  #inherited({ id, share }: MemoryBackendConfig) {
    if (!this.#inheritance) return undefined;
    const fd = share ? this.#inheritance.takeFd(MEMORY, id, memoryFd) : undefined;
    if (fd) return fd;
    throw new Error(`Memory backend ${describeKey(id, "")} was not passed by the old VMM`);
  }
}

/** The backends that a configuration asks for, firmware aside. */
export function wantedBackends(config: MachineConfig): MemoryBackendConfig[] {
  if (config.machine.memoryBackend !== undefined) return [...config.objects];
  return [...config.objects, defaultRam(config)];
}

/**
 * RAM without a backend of the user's is a memfd, so that a live update works without any further
 * option; `aux-ram-share=off` makes it private, as it is in QEMU.
 */
function defaultRam(
  { machine, memory, memPath, memPrealloc }: MachineConfig,
): MemoryBackendConfig {
  const share = machine.auxRamShare !== false;
  const ram = { ...sharedMemfd(DEFAULT_RAM_ID, memory), share, prealloc: memPrealloc };
  if (memPath !== undefined) return { ...ram, qomType: "memory-backend-file", memPath };
  return share ? ram : { ...ram, qomType: "memory-backend-ram" };
}

function sharedMemfd(id: string, size: number): MemoryBackendConfig {
  return {
    qomType: "memory-backend-memfd",
    id,
    size,
    share: true,
    prealloc: false,
    hugetlb: false,
    readonly: false,
    seal: true,
  };
}
