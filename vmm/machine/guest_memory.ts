/**
 * Guest RAM: memory backends, and where they lie in the guest's physical address space.
 *
 * Every backend that can be shared is a memfd or a file mapped shared, because that is what a
 * successor can map in place.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import {
  dataRanges,
  fileStatus,
  findNamed,
  O,
  openFile,
  type OwnedFd,
  spaceLeft,
  unlinkFile,
} from "../../ffi/fd.ts";
import {
  addSeals,
  makeMemfd,
  mapAnonymous,
  type MappedRegion,
  mapPrivate,
  mapShared,
  MemoryLost,
  resizeFile,
  Seal,
} from "../../ffi/memory.ts";
import type { AcceleratorVm } from "../accel/accelerator.ts";
import type { MemorySlot } from "../accel/memory_slot.ts";
import { HIGH_RAM_START, LOW_RAM_LIMIT } from "./microvm.ts";
import type { MemoryBackendConfig } from "../config.ts";

/** The region that there is only if not all RAM fits below 4 GiB. */
export const RAM_ABOVE = "ram-above-4g";

/** A memory backend with its memory. */
export interface MemoryBackend {
  readonly config: MemoryBackendConfig;
  /** The memfd or file; undefined for anonymous memory, which no successor can map. */
  readonly fd?: OwnedFd;
  readonly mapping: MappedRegion;
  /** Whether who maps the descriptor has the same memory. */
  readonly mappable: boolean;
  /** Whether a predecessor passed it, with the guest's memory in it. */
  readonly inherited: boolean;
}

/** A range of guest physical addresses backed by host memory: one memory slot. */
export interface MemoryRegion {
  readonly name: string;
  /** First guest physical address. */
  readonly gpa: number;
  /** Bytes. */
  readonly size: number;
  readonly mapping: MappedRegion;
  /** Where the region starts in its mapping. */
  readonly offset: number;
  readonly file?: MemorySlot["file"];
  readonly readonly: boolean;
  /** How its pages can be given back to the host; undefined if they are kept. */
  readonly pages?: "shared" | "anonymous";
  /** Whether a predecessor passed it, with the guest's memory in it. */
  readonly inherited: boolean;
}

/** Runs `setUp` on a new file and closes it if that fails. */
function opened(fd: OwnedFd, setUp: (fd: number) => void): OwnedFd {
  try {
    setUp(fd.fd);
    return fd;
  } catch (error) {
    fd.close();
    throw error;
  }
}

function openBackingFile(config: MemoryBackendConfig): OwnedFd {
  const path = config.memPath!;
  let fd: OwnedFd;
  try {
    fd = openFile(path, config.readonly ? O.RDONLY : O.RDWR | O.CREAT, 0o644);
  } catch (error) {
    if (!(error instanceof OsError) || error.code !== "EISDIR") throw openError(path, error);
    const file = `${path}/denovo-${config.id}-${crypto.randomUUID()}`;
    fd = openFile(file, O.RDWR | O.CREAT | O.EXCL, 0o600);
    unlinkFile(file);
  }
  return opened(fd, (fd) => growFile(fd, config));
}

/** A new file gets its size; one that was there must have it. */
function growFile(fd: number, config: MemoryBackendConfig): void {
  const size = (config.offset ?? 0) + config.size;
  const actual = fileStatus(fd).size;
  if (actual === 0) resizeFile(fd, size);
  else if (actual < size) {
    throw new Error(
      `backing store size 0x${actual.toString(16)} does not match 'size' option 0x${
        config.size.toString(16)
      }`,
    );
  }
}

function openError(path: string, error: unknown): unknown {
  if (!(error instanceof OsError)) return error;
  return new Error(`can't open backing store ${path} for guest RAM: ${error.reason}`, {
    cause: error,
  });
}

function openShm(config: MemoryBackendConfig): OwnedFd {
  const path = `/dev/shm/denovo-${config.id}-${crypto.randomUUID()}`;
  const fd = openFile(path, O.RDWR | O.CREAT | O.EXCL, 0o600);
  unlinkFile(path);
  return opened(fd, (fd) => resizeFile(fd, config.size));
}

function openMemfd(config: MemoryBackendConfig): OwnedFd {
  const sealing = config.seal !== false;
  const fd = makeMemfd(config.qomType, config.size, {
    sealing,
    hugePageSize: config.hugetlb ? config.hugetlbsize ?? 0 : undefined,
  });
  // A successor must be able to trust the size: a shrunk memfd would kill it with SIGBUS.
  return opened(fd, (fd) => {
    if (sealing) addSeals(fd, Seal.SHRINK | Seal.GROW | Seal.SEAL);
  });
}

function openMemory(config: MemoryBackendConfig): OwnedFd | undefined {
  switch (config.qomType) {
    case "memory-backend-file":
      return openBackingFile(config);
    case "memory-backend-shm":
      return openShm(config);
    case "memory-backend-memfd":
      return openMemfd(config);
    case "memory-backend-ram":
      return config.share ? openMemfd(config) : undefined;
  }
}

/**
 * Makes a backend's memory, or maps memory that a predecessor left.
 *
 * @param config the backend
 * @param kept the predecessor's memfd or file
 * @throws {Error} with the reason: no such path, no huge pages, not enough memory
 */
export function openBackend(config: MemoryBackendConfig, kept?: OwnedFd): MemoryBackend {
  let fd = kept;
  const { memPath } = config;
  const isNew = memPath !== undefined && !kept && findNamed(memPath) === undefined;
  try {
    if (!kept) checkPromise(config);
    fd ??= openMemory(config);
    if (kept) checkSize(kept.fd, config, (config.offset ?? 0) + config.size);
    else if (config.share && fd) checkSpace(fd.fd, config);
    const mapping = mapMemory(config, fd, !kept);
    const mappable = config.share && fd !== undefined;
    return { config, fd, mapping, mappable, inherited: kept !== undefined };
  } catch (error) {
    fd?.close();
    if (isNew && findNamed(memPath)) unlinkFile(memPath);
    throw inWords(error, config);
  }
}

/**
 * Makes a private backend's memory once more so that this process can map it several times: as a memfd,
 * which nobody gets. What a file holds is copied, as it would be on write.
 *
 * @param backend which is closed
 * @throws {Error} if there is not enough memory, or the file cannot be read; the backend is as it was
 */
export function makeMappable(backend: MemoryBackend): MemoryBackend {
  try {
    return remake(backend);
  } catch (error) {
    throw inWords(error, backend.config);
  }
}

function remake({ config, fd: file, mapping: old }: MemoryBackend): MemoryBackend {
  const fd = openMemfd({ ...config, seal: false });
  let mapping: MappedRegion | undefined;
  try {
    mapping = mapMemory({ ...config, share: true, offset: 0 }, fd, true);
    if (config.qomType === "memory-backend-file") copyFile(file!.fd, config, mapping);
  } catch (error) {
    mapping?.close();
    fd.close();
    throw error;
  }
  old.close();
  file?.close();
  return { config, fd, mapping, mappable: true, inherited: false };
}

function copyFile(
  file: number,
  { size, offset = 0 }: MemoryBackendConfig,
  mapping: MappedRegion,
): void {
  for (const [from, to] of dataRanges(file, offset, offset + size)) {
    mapping.readFrom(file, from, from - offset, to - from);
  }
}

function inWords(error: unknown, { size, id, hugetlb, qomType }: MemoryBackendConfig): unknown {
  if (error instanceof MemoryLost) return noRoom(size, id, "No space left on device", error);
  if (!(error instanceof OsError)) return error;
  // mmap(2): the huge pages of a mapping are set aside when it is made.
  const isFile = hugetlb || qomType === "memory-backend-file";
  if (error.syscall === "mmap" && error.code === "ENOMEM" && isFile) {
    return new Error(`unable to map backing store for guest RAM: ${error.reason}`, {
      cause: error,
    });
  }
  return noRoom(size, id, error.reason, error);
}

function noRoom(size: number, id: string, reason: string, cause: unknown): Error {
  return new Error(`Cannot allocate ${size} bytes of guest RAM '${id}': ${reason}`, { cause });
}

/**
 * Refuses more memory than the kernel would promise to a process: a memfd it promises without looking
 * (Documentation/mm/overcommit-accounting.rst).
 */
function checkPromise({ qomType, hugetlb, id, size }: MemoryBackendConfig): void {
  if (hugetlb || qomType === "memory-backend-file") return;
  try {
    mapAnonymous(size).close();
  } catch (cause) {
    if (!(cause instanceof OsError)) throw cause;
    throw new Error(`cannot set up guest memory '${id}': ${cause.reason}`, { cause });
  }
}

/** Refuses a file that its file system has no room for: the guest would find that out. */
function checkSpace(fd: number, { id, size, offset = 0 }: MemoryBackendConfig): void {
  const left = spaceLeft(fd);
  const missing = offset + size - fileStatus(fd).allocated;
  if (left === undefined || missing <= left) return;
  throw new Error(
    `Cannot allocate ${size} bytes of guest RAM '${id}': its file system has only ${left} bytes left`,
  );
}

/** Maps a backend's file, or anonymous memory; new memory is allocated now if that is wanted. */
function mapMemory(
  { id, size, offset = 0, share, prealloc }: MemoryBackendConfig,
  fd: OwnedFd | undefined,
  isNew: boolean,
): MappedRegion {
  const mapping = fd === undefined
    ? mapAnonymous(size)
    : share
    ? mapShared(fd.fd, size, offset)
    : mapPrivate(fd.fd, size, offset);
  mapping.name = `guest RAM '${id}'`;
  try {
    if (prealloc && isNew) mapping.populate();
    return mapping;
  } catch (error) {
    mapping.close();
    throw error;
  }
}

/** What a predecessor passed may be anything: a mapping beyond the end of a file kills by SIGBUS. */
function checkSize(fd: number, config: MemoryBackendConfig, needed: number): void {
  const { size } = fileStatus(fd);
  if (size >= needed) return;
  throw new Error(
    `Size mismatch: ${config.id}: 0x${size.toString(16)} != 0x${needed.toString(16)}`,
  );
}

/** The guest's physical memory. */
export class GuestMemory {
  readonly #regions: MemoryRegion[] = [];

  /**
   * Lays a backend out below 3 GiB and above 4 GiB.
   *
   * @param ram the backend that is the machine's RAM
   */
  constructor(readonly ram: MemoryBackend) {
    const { size } = ram.config;
    const low = Math.min(size, LOW_RAM_LIMIT);
    this.#add("ram-below-4g", 0, low, ram, 0);
    if (size > low) this.#add(RAM_ABOVE, HIGH_RAM_START, size - low, ram, low);
  }

  /** All regions in slot order. */
  get regions(): readonly MemoryRegion[] {
    return this.#regions;
  }

  /** Bytes of RAM. */
  get size(): number {
    return this.ram.config.size;
  }

  /** Shows a backend read-only to the guest, for firmware. */
  addRom(name: string, gpa: number, rom: MemoryBackend): void {
    this.#add(name, gpa, rom.config.size, rom, 0, true);
  }

  /** Gives all regions to a VM as memory slots. */
  attach(vm: AcceleratorVm): void {
    this.#regions.forEach(({ name, gpa, size, mapping, offset, file, readonly }, slot) => {
      try {
        vm.setMemory({ slot, gpa, size, address: mapping.address + offset, file, readonly });
      } catch (cause) {
        if (!(cause instanceof OsError)) throw cause;
        throw new Error(
          `Cannot show the guest ${size} bytes of memory at 0x${gpa.toString(16)} (${name}): ` +
            cause.reason,
          { cause },
        );
      }
    });
  }

  /** Whether a range of guest addresses is RAM or ROM throughout. */
  contains(gpa: number, length: number): boolean {
    return this.#find(gpa, length) !== undefined;
  }

  /** Copies guest memory out. @throws {RangeError} if the range is not memory throughout */
  read(gpa: number, length: number): Uint8Array<ArrayBuffer> {
    const region = this.#region(gpa, length);
    return region.mapping.read(region.offset + gpa - region.gpa, length);
  }

  /** Copies bytes into guest memory. @throws {RangeError} if the range is not memory throughout */
  write(gpa: number, data: Uint8Array<ArrayBuffer>): void {
    const region = this.#region(gpa, data.length);
    region.mapping.write(region.offset + gpa - region.gpa, data);
  }

  /** Fills guest memory with zeros. */
  zero(gpa: number, length: number): void {
    if (length === 0) return;
    const region = this.#region(gpa, length);
    region.mapping.zero(region.offset + gpa - region.gpa, length);
  }

  /** Reads part of a file straight into guest memory; returns the bytes read. */
  readFrom(fd: number, fileOffset: number, gpa: number, length: number): number {
    const region = this.#region(gpa, length);
    return region.mapping.readFrom(fd, fileOffset, region.offset + gpa - region.gpa, length);
  }

  /** Writes guest memory straight to a file. */
  writeTo(fd: number, fileOffset: number, gpa: number, length: number): void {
    const region = this.#region(gpa, length);
    region.mapping.writeTo(fd, fileOffset, region.offset + gpa - region.gpa, length);
  }

  #add(
    name: string,
    gpa: number,
    size: number,
    { mapping, mappable, inherited, fd, config }: MemoryBackend,
    offset: number,
    readonly = false,
  ): void {
    const start = config.share ? config.offset ?? 0 : 0;
    const file = fd && mappable ? { fd, offset: start + offset } : undefined;
    const pages = readonly ? undefined : pageKind(config, mappable);
    this.#regions.push({ name, gpa, size, mapping, offset, file, readonly, pages, inherited });
  }

  #find(gpa: number, length: number): MemoryRegion | undefined {
    return this.#regions.find((r) => gpa >= r.gpa && gpa + length <= r.gpa + r.size);
  }

  #region(gpa: number, length: number): MemoryRegion {
    const region = this.#find(gpa, length);
    if (region) return region;
    throw new RangeError(`Guest range of ${length} bytes at 0x${gpa.toString(16)} is not memory`);
  }
}

/**
 * How a backend's pages can be given back. Huge pages are kept: once others have taken them, a ring that
 * was in one would be nowhere. So are those of a private file, behind which is what is in the file.
 */
function pageKind(
  { hugetlb, qomType }: MemoryBackendConfig,
  mappable: boolean,
): MemoryRegion["pages"] {
  if (hugetlb) return undefined;
  if (mappable) return "shared";
  return qomType === "memory-backend-ram" ? "anonymous" : undefined;
}
