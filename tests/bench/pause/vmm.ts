/**
 * The command lines of the two VMMs: as alike as they can be, and as short as a user would write
 * them. Neither has a device more than the guests need.
 *
 * @module
 */
import type { AcceleratorName } from "../../../vmm/accel/accelerator.ts";
import type { Configuration, Subject } from "./results.ts";

/** What the command lines need to know. */
export interface CommandContext {
  /** The command that starts Denovo. */
  readonly denovo: readonly string[];
  /** QEMU's path. */
  readonly qemu: string | undefined;
  /** What runs the guests: KVM, or the VMM's own software CPU. */
  readonly accel: AcceleratorName;
  /** The guest's ELF file. */
  readonly kernel: string;
  /** Where RAM lies that outlives the VMM, for cpr-reboot. */
  readonly ramFile: string;
}

const qemuMachines = {
  microvm: "microvm,acpi=off,pit=on,pic=on,rtc=on,isa-serial=on,auto-kernel-cmdline=off",
  q35: "q35",
};

/** For KVM not `host`: kernel mode is interpreted on some hosts, which then lack CMPXCHG16B. */
const qemuCpus = { kvm: "qemu64,-cx16,+xsaveerptr,+kvmclock", tcg: "qemu64" };

/** The command that starts a subject's VMM, without its monitor and `-incoming`. */
export function commandOf(
  { vmm, machine, mode }: Subject,
  configuration: Configuration,
  { denovo, qemu, accel, kernel, ramFile }: CommandContext,
): string[] {
  const { cpus, ram } = configuration;
  const own = vmm === "denovo"
    ? [...denovo, "-machine", "microvm,memory-backend=ram0,aux-ram-share=on"]
    : [
      qemu!,
      "-machine",
      `${qemuMachines[machine]},memory-backend=ram0,aux-ram-share=on`,
      ...["-cpu", qemuCpus[accel], "-no-user-config"],
    ];
  return [
    ...own,
    ...["-accel", accel],
    ...["-smp", `${cpus}`, "-m", `${ram / 2 ** 20}M`],
    ...["-object", memoryBackend(configuration, mode === "reboot" ? ramFile : undefined)],
    ...["-nodefaults", "-display", "none", "-serial", "null", "-kernel", kernel],
  ];
}

function memoryBackend({ ram, page, populated }: Configuration, file?: string): string {
  return [
    file === undefined ? "memory-backend-memfd" : "memory-backend-file",
    `id=ram0,share=on,size=${ram / 2 ** 20}M`,
    ...(file === undefined ? [] : [`mem-path=${file}`]),
    ...(page === "2M" ? ["hugetlb=on,hugetlbsize=2M"] : []),
    ...(populated ? ["prealloc=on"] : []),
  ].join(",");
}
