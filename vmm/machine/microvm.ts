/**
 * The machine `microvm`: its memory map and its interrupt map, once.
 *
 * Boot tables, `info mtree` and `info qtree` are made of it. Addresses are those of QEMU's microvm. The
 * ISA devices have their ports and interrupts in their own files.
 *
 * @module
 */
/** Its name on the command line. */
export const MACHINE_TYPE = "microvm";
/** QEMU's limit for the machine. */
export const MAX_CPUS = 288;
/** How many CPUs a guest finds: local APIC ids have 8 bits, and 255 is everybody. */
export const USABLE_CPUS = 255;

/** Where it is and how many addresses it takes: memory or ports. */
export interface Place {
  /** The name that `info mtree` prints. */
  readonly name: string;
  readonly base: number;
  readonly size: number;
}

// Memory below 1 MiB, as on a PC.

/** The last KiB of base memory, where an EBDA would be and the MP floating pointer is. */
export const EBDA_START = 0x9_fc00;
/** End of base memory; from here to 1 MiB a PC has video memory and ROMs. */
export const BASE_MEMORY_END = 0xa_0000;
/** The BIOS area of a PC, up to 1 MiB; free for tables where no firmware runs. */
export const BIOS_AREA_START = 0xf_0000;
/** 1 MiB: end of real mode's address space. */
export const ONE_MIB = 0x10_0000;

// RAM, and the hole for devices below 4 GiB.

/** Below this address RAM is contiguous. */
export const LOW_RAM_LIMIT = 0xc000_0000;
/** Where RAM goes on above the hole; firmware ends here. */
export const HIGH_RAM_START = 0x1_0000_0000;
/** Some MiB of the hole that nothing claims, for vCPUs that enter the guest before there is one. */
export const SCRATCH_MEMORY = 0xd000_0000;
/** The IOAPIC's registers. */
export const IOAPIC: Place = { name: "kvm-ioapic", base: 0xfec0_0000, size: 0x1000 };
/** The second I/O APIC's registers, a device's. */
export const IOAPIC2_BASE = 0xfec1_0000;
/** Its id among the devices. */
export const IOAPIC2_ID = "ioapic2";
/** The interrupt (GSI) that is its first input. */
export const IOAPIC2_GSI = 24;
/** Local APICs, and the addresses to which messages are written that are interrupts. */
export const LOCAL_APIC: Place = { name: "kvm-apic-msi", base: 0xfee0_0000, size: 0x10_0000 };
/**
 * Address for KVM_SET_IDENTITY_MAP_ADDR: one page, and three more for KVM_SET_TSS_ADDR behind it.
 *
 * KVM's own default, 0xfffbc000, is where a firmware ROM of more than 256 KiB lies; this place
 * (QEMU's) leaves room for 16 MiB.
 */
export const KVM_IDENTITY_MAP_ADDRESS = 0xfeff_c000;
/** Address for KVM_SET_TSS_ADDR: three pages. */
export const KVM_TSS_ADDRESS: number = KVM_IDENTITY_MAP_ADDRESS + 0x1000;
/** End of the pages that KVM uses; the lowest address at which a firmware ROM may start. */
export const KVM_PAGES_END: number = KVM_TSS_ADDRESS + 0x3000;

// Ports of the accelerator's chips.

/** The two 8259 interrupt controllers, the first one the master. */
export const PICS: readonly [Place, Place] = [
  { name: "kvm-pic", base: 0x20, size: 2 },
  { name: "kvm-pic", base: 0xa0, size: 2 },
];
/** The registers that say which of their lines are level-triggered. */
export const ELCR: Place = { name: "kvm-elcr", base: 0x4d0, size: 2 };
/** The 8254 timer. */
export const PIT: Place = { name: "kvm-pit", base: 0x40, size: 4 };
/** The port through which a PC's speaker, and the timer's third channel, are gated. */
export const SPEAKER: Place = { name: "kvm-speaker", base: 0x61, size: 1 };

// Interrupts.

/** ISA interrupts: GSIs 0 to 15, which go to the PICs and to the IOAPIC's pins. */
export const ISA_IRQS = 16;
/** The cascade of the second 8259: no device ever raises it. */
export const CASCADE_IRQ = 2;

/**
 * The IOAPIC's pin of a GSI: the same number, 0 included, as in KVM's default routing. A machine that
 * routes GSI 0 elsewhere (QEMU: to pin 2) has to tell so in its boot tables.
 */
export function ioapicPin(gsi: number): number {
  return gsi;
}

// PCI Express.

/** A part of guest physical memory. */
export type Window = Pick<Place, "base" | "size">;

/** The root bus's name, and its id among the devices. */
export const PCIE_ID = "pcie.0";
/** Configuration space of all functions, 4 KiB each (PCI Express 5.0, 7.2.2). */
export const PCIE_ECAM: Window = { base: 0xe000_0000, size: 0x1000_0000 };
/** Where 32-bit base addresses may be. */
export const PCIE_WINDOW32: Window = { base: 0xc000_0000, size: 0x2000_0000 };
/** As far as page tables of 4 levels reach, by which hardware may translate guest physical addresses. */
const MOST_PHYSICAL_BITS = 47;

/**
 * Where 64-bit base addresses may be: the last quarter of what a processor can address.
 *
 * @param physicalBits of its addresses
 */
export function pcieWindow64(physicalBits: number): Window {
  const size = 2 ** (Math.min(physicalBits, MOST_PHYSICAL_BITS) - 2);
  return { base: 3 * size, size };
}

/** The interrupts (GSIs) of the bus's four wires; the first one's pin A is device 0's. */
export function pcieIrqs({ ioapic2 }: { readonly ioapic2: boolean }): number[] {
  const first = ioapic2 ? 16 : 12;
  return [first, first + 1, first + 2, first + 3];
}

// Virtio.

/** Where a virtio-mmio transport is, whether or not a device is behind it. */
export interface VirtioTransport {
  readonly place: Place;
  /** Its interrupt, a GSI. */
  readonly irq: number;
  /** How it is triggered, as ACPI tables say it. */
  readonly trigger: "level" | "edge";
}

const VIRTIO_MMIO_BASE = 0xfeb0_0000;
const VIRTIO_MMIO_SIZE = 512;

/**
 * The virtio-mmio transports, in order of address, which is that of their buses' names
 * (`virtio-mmio-bus.0` …). Devices take them from the last one down, as in QEMU.
 *
 * @param machine whether ACPI tells of them, otherwise the kernel's command line, and whether there is
 *   a second I/O APIC
 */
export function virtioTransports(
  { acpi, ioapic2 }: { readonly acpi: boolean; readonly ioapic2: boolean },
): VirtioTransport[] {
  const many = acpi && ioapic2;
  const firstIrq = many ? IOAPIC2_GSI : acpi ? 16 : 5;
  return Array.from({ length: many ? 24 : 8 }, (_, i) => ({
    place: {
      name: "virtio-mmio",
      base: VIRTIO_MMIO_BASE + i * VIRTIO_MMIO_SIZE,
      size: VIRTIO_MMIO_SIZE,
    },
    irq: firstIrq + i,
    trigger: many ? "edge" : "level",
  }));
}
