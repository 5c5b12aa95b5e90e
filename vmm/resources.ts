/**
 * What a VM has besides its machine: event loop, character devices, memory; its own or inherited.
 *
 * @module
 */
import { MACHINE_TYPE } from "./machine/microvm.ts";
import type { KeptChardev } from "../devices/chardev/backend.ts";
import type { OwnedFd } from "../ffi/fd.ts";
import { Reactor } from "../ffi/reactor.ts";
import { ChardevSet } from "./chardev_set.ts";
import type { MachineConfig, MemoryBackendConfig } from "./config.ts";
import { Console } from "./console.ts";
import { type MemoryBackend, openBackend } from "./machine/guest_memory.ts";

/** The id of the RAM that the machine makes itself. */
export const DEFAULT_RAM_ID = `${MACHINE_TYPE}.ram`;

/** The id of the memory behind `-bios`. */
export const ROM_ID = "pc.bios";

/** The id of the character device behind `console`. */
const CONSOLE_ID = "console";

/**
 * What a predecessor leaves to its successor in the way of descriptors.
 *
 * @internal
 */
export interface KeptResources {
  /** Memory backends' memfds and files, by id. */
  readonly memory: ReadonlyMap<string, OwnedFd>;
  /** Character backends, by id. */
  readonly chardevs: ReadonlyMap<string, KeptChardev>;
  /** Whether the predecessor still uses them: its peers are left alone until the guest is here. */
  readonly shared: boolean;
}

/** What a VM has besides its machine, and what is left to close when making the machine fails. */
export class Resources {
  /** Watches descriptors on the main thread. */
  readonly reactor: Reactor = new Reactor();
  /** The character devices. */
  readonly chardevs: ChardevSet;
  /** All memory backends, the machine's RAM among them. */
  readonly backends: Map<string, MemoryBackend> = new Map();
  /** The first serial port as streams, if no character device was named for it. */
  console: Console | undefined;

  /**
   * Makes an event loop; nothing else is open yet.
   *
   * @param notice takes lines for the user
   * @param quit the user wants the VM to end
   */
  constructor(notice: (text: string) => void, quit: () => void) {
    // The program listens for signals itself and closes the VM: the terminal is put back then.
    this.chardevs = new ChardevSet(this.reactor, { notice, quit, terminate: () => {} });
  }

  /** Gives a VM that has no serial port of its own one that code reads and writes. */
  withConsole(config: MachineConfig): MachineConfig {
    this.console = new Console(CONSOLE_ID, this.reactor);
    const chardevs = [...config.chardevs, this.console.chardev];
    return { ...config, chardevs, serials: [CONSOLE_ID] };
  }

  /** All backends: those of `-object`, and the machine's own RAM if none of them is that. */
  openBackends(config: MachineConfig, kept?: KeptResources): void {
    for (const object of wantedBackends(config)) {
      if (this.backends.has(object.id)) throw new Error(`Duplicate ID '${object.id}' for object`);
      const backend = openBackend(object, inheritedMemory(object, kept));
      this.backends.set(object.id, backend);
      if (!config.machine.dumpGuestCore) backend.mapping.excludeFromDumps();
      if (config.machine.memMerge && !object.share) backend.mapping.allowMerging();
    }
    const known = (id: string) => this.backends.has(id) || (id === ROM_ID && config.bios);
    for (const id of kept?.memory.keys() ?? []) {
      if (!known(id)) throw new Error(`Unknown ramblock "${id}", cannot accept migration`);
    }
  }

  /** The firmware's memory: a memfd as well, so that a successor shows the guest the same bytes. */
  openRom(size: number, kept?: KeptResources): MemoryBackend {
    const config = sharedMemfd(ROM_ID, size);
    const rom = openBackend(config, inheritedMemory(config, kept));
    this.backends.set(ROM_ID, rom);
    return rom;
  }

  /** Closes connections of character devices that this VM does not have. */
  closeUnused(kept: KeptResources | undefined): void {
    for (const [id, { fds }] of kept?.chardevs ?? []) {
      if (this.chardevs.backends.has(id)) continue;
      for (const fd of fds.values()) fd.close();
    }
  }

  /** Closes all that a predecessor passed: nothing here will use it. */
  closeKept(kept: KeptResources | undefined): void {
    for (const fd of kept?.memory.values() ?? []) fd.close();
    for (const { fds } of kept?.chardevs.values() ?? []) for (const fd of fds.values()) fd.close();
  }

  /** The backend that is the machine's RAM. @throws {Error} if there is none of that id */
  ram({ machine }: MachineConfig): MemoryBackend {
    const ram = this.backends.get(machine.memoryBackend ?? DEFAULT_RAM_ID);
    if (ram) return ram;
    throw new Error(`Memory backend '${machine.memoryBackend}' not found`);
  }

  /** Closes everything. */
  async close(): Promise<void> {
    for (const backend of this.backends.values()) closeBackend(backend);
    this.chardevs.close();
    this.console?.close();
    await this.reactor.close();
  }
}

/** The backends that a configuration asks for, firmware aside. */
export function wantedBackends(config: MachineConfig): MemoryBackendConfig[] {
  if (config.machine.memoryBackend !== undefined) return [...config.objects];
  return [...config.objects, defaultRam(config)];
}

/**
 * The memory that a predecessor left. Without it the guest would find zeros where its RAM was.
 *
 * @throws {Error} if there is a predecessor, but it did not pass this memory
 */
function inheritedMemory(config: MemoryBackendConfig, kept?: KeptResources): OwnedFd | undefined {
  if (!kept) return undefined;
  const fd = kept.memory.get(config.id);
  if (fd && config.share) return fd;
  throw new Error(`Memory backend '${config.id}' was not passed by the old VMM`);
}

/**
 * RAM without a backend of the user's is a memfd, so that a live update works without any further
 * option; `aux-ram-share=off` makes it private, as it is in QEMU.
 */
function defaultRam({ machine, memory }: MachineConfig): MemoryBackendConfig {
  const shared = sharedMemfd(DEFAULT_RAM_ID, memory);
  if (machine.auxRamShare !== false) return shared;
  return { ...shared, qomType: "memory-backend-ram", share: false };
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

function closeBackend(backend: MemoryBackend): void {
  backend.mapping.close();
  backend.fd?.close();
}
