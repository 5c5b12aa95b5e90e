/**
 * What is measured: a base configuration, then one thing changed at a time. The product of all
 * would take days and show little more.
 *
 * @module
 */
import type { PauseOptions } from "./options.ts";
import { type Configuration, type Mode, sizeText, type Subject } from "./results.ts";

/** What is known about the host that decides what can be measured. */
export interface Capacity {
  /** Bytes of memory that can be allocated. */
  readonly available: number;
  /** Bytes of free huge pages of 2 MiB. */
  readonly hugeFree: number;
}

/** Something that was asked for and cannot be measured here. */
export interface Skipped {
  readonly what: string;
  readonly reason: string;
}

/** Every configuration that the options ask for, the base first, none twice. */
export function configurations(options: PauseOptions): Configuration[] {
  const base = {
    guest: options.guests[0],
    ram: options.ram[0],
    page: options.pages[0],
    cpus: 1,
    populated: options.populate[0],
  };
  const variants = [
    base,
    ...options.populate.flatMap((populated) =>
      options.ram.map((ram) => ({ ...base, populated, ram }))
    ),
    ...options.pages.map((page) => ({ ...base, page })),
    ...options.guests.map((guest) => ({ ...base, guest })),
    ...options.cpus.map((cpus) => ({ ...base, guest: "smp" as const, cpus })),
  ];
  const named = variants.map((variant) => ({ name: nameOf(variant), ...variant }));
  return [...new Map(named.map((variant) => [variant.name, variant])).values()];
}

/** For people and as a key: `cpl3, 256M`, `smp, 4 vCPUs, 256M`, `cpl3, 4G populated, 2M pages`. */
export function nameOf({ guest, ram, page, cpus, populated }: Omit<Configuration, "name">): string {
  return [
    guest,
    ...(guest === "smp" ? [`${cpus} vCPU${cpus === 1 ? "" : "s"}`] : []),
    `${sizeText(ram)}${populated ? " populated" : ""}`,
    ...(page === "2M" ? ["2M pages"] : []),
  ].join(", ");
}

/** What takes turns: Denovo's modes and, with a QEMU, its machines' modes. */
export function subjects(options: PauseOptions): Subject[] {
  const denovo = options.modes.map((mode) => subject("denovo", "microvm", mode));
  if (options.qemu === undefined) return denovo;
  const theirs = options.modes.filter((mode) => mode !== "exec-relay");
  return [
    ...denovo,
    ...options.machines.flatMap((machine) => theirs.map((mode) => subject("qemu", machine, mode))),
  ];
}

function subject(vmm: Subject["vmm"], machine: Subject["machine"], mode: Mode): Subject {
  const name = vmm === "denovo" ? `Denovo ${mode}` : `QEMU ${machine} ${mode}`;
  return { name, vmm, machine, mode };
}

/** Why a configuration cannot be measured on this host, or undefined. */
export function obstacle(
  { ram, page, populated }: Configuration,
  { available, hugeFree }: Capacity,
): string | undefined {
  if (page === "2M") {
    if (hugeFree >= ram) return undefined;
    const need = Math.ceil(ram / 2 ** 21);
    return `needs ${need} free huge pages of 2 MiB (/proc/sys/vm/nr_hugepages), ` +
      `${hugeFree / 2 ** 21} are there`;
  }
  // Half of it, so that the host has no reason to reclaim anything meanwhile.
  if (!populated || ram <= available / 2) return undefined;
  return `needs ${sizeText(2 * ram)} of available memory, ${
    Math.floor(available / 2 ** 20)
  }M are there`;
}

/** Why a subject cannot be measured in a configuration, or undefined. */
export function mismatch(subject: Subject, { page }: Configuration): string | undefined {
  return subject.mode === "reboot" && page === "2M"
    ? "huge pages in a file need a mounted hugetlbfs"
    : undefined;
}
