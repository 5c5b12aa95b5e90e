/**
 * The guest programs that the demo, the tests and the benchmarks run: what each one does, its
 * bytes, and the addresses at which a host can watch it.
 *
 * All but `modes` and `probe_multiboot` are ELF64 files of a few KiB with a PVH note, loaded at 1 MiB: write the bytes
 * to a file and start it with `-kernel FILE`. `modes` is a 64 KiB ROM for `-bios FILE`.
 * They print on the serial port at 0x3f8. Those that end by themselves do so through
 * `-device isa-debug-exit,iobase=0x501,iosize=2` (the VMM's exit status is then 2 × value + 1).
 *
 * While a program runs, the words of {@linkcode layout} can be read from guest RAM at any time;
 * all are 8 bytes, little-endian, written by single stores. Nothing outside of 0x8000–0x8fff,
 * 0x100000–0x200fff, 0x300000–0x300fff and the pattern is written by any of them (`smp` with an
 * APIC id above 59 goes a little beyond 0x200fff, `memory` writes at both ends of RAM, `dirty` writes
 * 64 MiB at 16 MiB).
 *
 * @module
 */

import { image as virtioNet } from "./c/virtio_net_image.ts";
import { image as virtioBlk } from "./c/virtio_blk_image.ts";
import { image as virtioBalloon } from "./c/virtio_balloon_image.ts";
import { image as virtioRng } from "./c/virtio_rng_image.ts";
import { image as virtioBench } from "./c/virtio_bench_image.ts";
import { image as virtioSerial } from "./c/virtio_serial_image.ts";
import { image as virtioVsock } from "./c/virtio_vsock_image.ts";
import { images as assembled } from "./images.ts";

/** All programs' bytes, base64: those in assembly and those in C. */
const images = {
  ...assembled,
  virtio_net: virtioNet,
  virtio_blk: virtioBlk,
  virtio_balloon: virtioBalloon,
  virtio_rng: virtioRng,
  virtio_serial: virtioSerial,
  virtio_vsock: virtioVsock,
  virtio_bench: virtioBench,
};

/** How a VMM enters a program. */
export type EntryMode =
  /** PVH: 32-bit protected mode, paging off, EBX = `struct hvm_start_info`. */
  | "pvh"
  /** Multiboot: 32-bit protected mode, paging off, EAX = 0x2badb002, EBX = the information. */
  | "multiboot"
  /** Real mode at the reset vector, 16 bytes before 4 GiB. */
  | "rom";

/** One guest program. */
export interface GuestProgram {
  /** The name, as in {@linkcode programs}. */
  name: ProgramName;
  /** What it does, in a sentence or two. */
  summary: string;
  /** The file: an ELF64 executable for `pvh`, a ROM image for `rom`. */
  bytes: Uint8Array<ArrayBuffer>;
  /** Guest-physical address of the first byte of the file, once loaded. */
  loadAddress: number;
  /** How it wants to be entered. */
  entry: EntryMode;
  /** The least guest RAM it runs with, in MiB. */
  minimumMemoryMiB: number;
  /** The command line words it understands, with what they do. */
  commandLine: Record<string, string>;
}

/** The names of all programs. */
export type ProgramName = Exclude<keyof typeof images, "native">;

/** Guest-physical addresses and sizes, in bytes, from `layout.inc`. */
export const layout = {
  /** Incremented once an iteration (demo, counter, dirty), or once an exit or HLT (exits). */
  counter: 0x200000,
  /**
   * The longest gap between two iterations so far, in TSC cycles (demo, counter, dirty). It includes the
   * program's own interrupt handlers, tens of microseconds where kernel mode is interpreted. The
   * host may write 0 to start over, whenever it likes.
   */
  maxGap: 0x200008,
  /** LAPIC timer interrupts taken, 100 a second (demo, counter, exits in mode `h`). */
  ticks: 0x200010,
  /** Self-check: 0, or the first error's code: see {@linkcode describeCheck}. */
  check: 0x200018,
  /** kvmclock at the last timer interrupt, in ns; 0 without kvmclock (demo). */
  clockNs: 0x200020,
  /** The N of the last `tick N` that was queued for the console, once a second (demo, counter). */
  seconds: 0x200028,
  /** PIT interrupts taken through the 8259, 100 a second (counter). */
  pitTicks: 0x200030,
  /** CPUs that came up, the boot CPU included (smp). */
  cpus: 0x200038,
  /** One ASCII letter that says what `exits` does; the host may change it. */
  mode: 0x200040,
  /** The TSC at the latest iteration of any CPU (those with a longest gap). */
  lastTsc: 0x200048,
  /** TSC cycles from which a gap is listed in `gaps`. The host may change it; 0 lists all. */
  listedFrom: 0x200058,
  /** One record for each CPU, by APIC id: its own counter, then its longest gap (smp). */
  cpuRecords: 0x200100,
  /** From one CPU's record to the next. */
  cpuRecordSize: 64,
  /**
   * `steady`: one record for each CPU, by APIC id: iterations, the longest gap between two of them
   * in TSC cycles, timer interrupts, kvmclock in ns.
   */
  steadyRecords: 0x1a0300,
  /** From one of these records to the next. */
  steadyRecordSize: 0x1000,
  /**
   * The last gaps that were long enough: four words each, the length in TSC cycles, the TSC and the
   * CPU's counter at its end, 0. The oldest are overwritten, and the list has no order.
   */
  gaps: 0x201000,
  /** How many are listed. */
  gapsListed: 256,
  /** The number of the record that each sector of a disk has, 0 for zeros (virtio_blk). */
  diskRecords: 0x203000,
  /** How many sectors it uses. */
  diskSectors: 64,
  /** A byte for each of them: 1 while a request is about it. */
  diskBusy: 0x203200,
  /** How many requests each of its slots has done: one under way at a time. */
  diskDone: 0x203240,
  /** How many slots there are. */
  diskSlots: 8,
  /** How often `reset` has booted; survives resets, back to 0 before it exits. */
  boots: 0x300000,
  /** Verified all the time: word i is i × 0x9e3779b97f4a7c15 mod 2⁶⁴ (demo, counter, dirty, smp). */
  pattern: 0x400000,
  /** The pattern's size in demo, counter_cpl0, dirty and smp. */
  patternBytes: 0x4000,
  /** The pattern's size in counter_cpl3. */
  patternBytesCpl3: 0x100000,
  /** Memory to which `dirty` writes a word in each page, over and over. */
  dirty: 0x1000000,
  /** Its size. */
  dirtyBytes: 0x4000000,
  /** The port that `exits` reads and writes in modes p, r and s; no device may claim it. */
  unclaimedPort: 0x7e,
  /** The address that `exits` writes and reads in modes m and l; no device may claim it. */
  unclaimedMmio: 0xd0000000,
  /** How many rounds, of 34 instructions, a batch of `compute` has in mode s. */
  computeSmall: 6000000,
  /** The same in mode m, of 2,179 instructions. */
  computeMedium: 60000,
  /** The same in mode l, of 20,708 instructions. */
  computeLarge: 3000,
  /** How many port accesses a batch has in mode p. */
  computePorts: 20000,
  /** The port of `isa-debug-exit`. */
  debugExit: 0x501,
} as const;

/** What a value other than 0 at {@linkcode layout}'s `check` means. */
export const checkErrors: Readonly<Record<number, string>> = {
  1: "a general register changed",
  2: "the pattern in memory changed",
  3: "the TSC went backwards",
  4: "kvmclock went backwards",
  5: "an XMM register changed",
  6: "MXCSR changed",
  7: "an x87 register changed",
  8: "the x87 control word changed",
  9: "the FS base changed",
  10: "the GS base changed",
  11: "a debug register changed",
  12: "a system-call MSR changed",
  13: "the TSC is behind what another CPU has seen",
  14: "kvmclock is behind what another CPU has seen",
  15: "memory and registers are not of the same moment",
  16: "a timer interrupt came twice",
  17: "a timer interrupt came too early",
  18: "a device access gave or left a wrong value",
  19: "a pending interrupt did not come exactly once",
  20: "a CPU did not start exactly once",
  21: "the upper half of a YMM register changed",
};

/** Added to the vector of an exception that a program did not expect. */
export const CHECK_EXCEPTION = 0x100;

/**
 * Says what a value of the self-check word means.
 *
 * @param value the 8 bytes at `layout.check`, as a number
 * @returns a phrase for a message
 */
export function describeCheck(value: number): string {
  if (value === 0) return "no error";
  if (value >= CHECK_EXCEPTION && value < CHECK_EXCEPTION + 32) {
    return `exception ${value - CHECK_EXCEPTION}`;
  }
  return checkErrors[value] ?? `unknown code ${value}`;
}

/** The size of the ROM image of `modes`. */
const ROM_BYTES = 0x10000;

function elf(
  name: ProgramName,
  summary: string,
  minimumMemoryMiB: number,
  commandLine: Record<string, string> = {},
): GuestProgram {
  const bytes = Uint8Array.fromBase64(images[name]);
  return {
    name,
    summary,
    bytes,
    loadAddress: 0x100000,
    entry: "pvh",
    minimumMemoryMiB,
    commandLine,
  };
}

/** `images` holds the end of the ROM only; what is before it is zeros. */
function rom(name: ProgramName, summary: string, minimumMemoryMiB: number): GuestProgram {
  const code = Uint8Array.fromBase64(images[name]);
  const bytes = new Uint8Array(ROM_BYTES);
  bytes.set(code, ROM_BYTES - code.length);
  return {
    name,
    summary,
    bytes,
    loadAddress: 0x1_0000_0000 - ROM_BYTES,
    entry: "rom",
    minimumMemoryMiB,
    commandLine: {},
  };
}

/** All guest programs by name. */
export const programs: Readonly<Record<ProgramName, GuestProgram>> = {
  hello: elf(
    "hello",
    "Prints `hello from denovo` and exits with value 0x10; without isa-debug-exit, by a triple " +
      "fault.",
    2,
  ),
  demo: elf(
    "demo",
    "Greets, counts, verifies itself, prints `tick N` every second, answers lines typed on the " +
      "console with `you said: LINE`; `gap` prints the longest gap since the last `gap`, `reset` " +
      "resets, `quit` exits with value 0.",
    5,
  ),
  counter_cpl0: elf(
    "counter_cpl0",
    "Counts and verifies itself in kernel mode with LAPIC timer and PIT interrupts; prints " +
      "`tick N` every second.",
    5,
  ),
  counter_cpl3: elf(
    "counter_cpl3",
    "The same in user mode, verifying XMM and x87 registers and the FS and GS bases as well.",
    5,
  ),
  compute: elf(
    "compute",
    "Does the same work over and over, as `mode=LETTER` says, and prints the letter after each " +
      "batch: s, m and l loops of 34, about 2,100 and about 20,700 instructions, p OUT to a port " +
      "that nobody claims.",
    6,
    { "mode=LETTER": "what to do" },
  ),
  steady_cpl0: elf(
    "steady_cpl0",
    "Prints `steady N`, the number of CPUs, and then verifies itself on every CPU in kernel mode, " +
      "with timer interrupts; echoes what is typed, and answers `?` by `clock N`, its kvmclock " +
      "in ns. Prints `FAIL CODE on CPU N` and stops this CPU when something is wrong.",
    5,
    {
      "mode=h": "halt between interrupts",
      "mode=i": "the same without a timer",
      "mode=p": "as h; guest time may stand still",
    },
  ),
  steady_cpl3: elf(
    "steady_cpl3",
    "The same in user mode, verifying x87, XMM and YMM registers and the FS base as well.",
    5,
    { "mode=p": "guest time may stand still" },
  ),
  access: elf(
    "access",
    "Does one kind of device access over and over, as `mode=LETTER` says, so that one that is " +
      "lost or repeated is found: p OUT and s REP OUTSB of 0 to 250 to the debug console at 0xe9, " +
      "r OUT and IN and i REP OUTSB and REP INSB through the UART in loopback, m loads and stores " +
      "and c REP MOVSD and REP STOSD of memory that nobody claims; a capital does it in user mode.",
    4,
    { "mode=LETTER": "what to do" },
  ),
  bring_up: elf(
    "bring_up",
    "Starts the other CPUs step by step, says where they are and waits for the key `k`; then, " +
      "until the same key, INIT and SIPI over and over, counting; prints `done`, or `FAIL`.",
    4,
    { "mode=N": "how many CPUs there are, 2 to 8" },
  ),
  pending: elf(
    "pending",
    "Brings ten interrupts, one after the other, to the point where they are pending, says so, " +
      "and after the key `k` takes them, once each; prints `done`, or `FAIL`.",
    4,
  ),
  dirty: elf(
    "dirty",
    "Counts and verifies itself in user mode without interrupts, and writes to another page of " +
      "64 MiB in every iteration.",
    80,
  ),
  smp: elf(
    "smp",
    "Wakes all CPUs by INIT and SIPI, prints `cpus N`, and counts on every one of them.",
    5,
  ),
  exits: elf(
    "exits",
    "Leaves the guest over and over in the way that `mode=LETTER` says: p OUT, r IN, s REP OUTSB " +
      "of 16, m MMIO write, l MMIO read, t none at all; the capital does it in user mode; h HLT " +
      "with a 100 Hz timer, d HLT for ever. Without a letter it waits for one at `layout.mode`.",
    4,
    { "mode=LETTER": "what to do" },
  ),
  uart: elf(
    "uart",
    "Checks the 16550A's registers, mostly in loopback; prints `uart: ok` and exits with value 0, " +
      "or `uart: fail N got X want Y` and 1.",
    4,
    { nodelta: "leaves out delta bits and modem interrupts in loopback (QEMU has none)" },
  ),
  memory: elf(
    "memory",
    "Checks that both ends of RAM are there and are not the same memory; prints " +
      "`memory: ok LOW_MIB HIGH_MIB` and exits with value 0, or `memory: fail 0xADDRESS` and 1.",
    4,
  ),
  rtc: elf(
    "rtc",
    "Prints the RTC's time as `rtc: YYYY-MM-DD HH:MM:SS`, counts 128 interrupts at 1024 Hz, " +
      "prints `rtc: irqs ok` and exits with value 0, or `rtc: irqs fail N` and 1.",
    4,
  ),
  triple: elf("triple", "Causes a triple fault at once.", 2),
  reset_vector: elf(
    "reset_vector",
    "Restarts by a jump to real mode's reset vector, FFFF:0000, until it has booted 3 times; then " +
      "exits with value 0.",
    3,
  ),
  badop: elf(
    "badop",
    "Prints `badop` and executes INT3 in kernel mode: KVM_EXIT_INTERNAL_ERROR where KVM cannot " +
      "emulate it, elsewhere exits with value 0x83.",
    4,
  ),
  reset: elf(
    "reset",
    "Prints `boot N` and resets through port 0x64, or by a triple fault, until N is 3; then " +
      "exits with value 0.",
    4,
  ),
  acpi: elf(
    "acpi",
    "Prints `acpi N`, 1 where PVH has told of an RSDP; on the console `s` sleeps in S3 and prints " +
      "`awake` afterwards, `o` powers off, `r` resets, and the power button prints `button N` with " +
      "the generic event device's selector.",
    4,
  ),
  probe: elf(
    "probe",
    "Prints `probe EAX EBX` and does what lines on the console say, numbers hexadecimal: `i PORT` " +
      "reads a byte and prints it, `o`, `w` and `l PORT VALUE` write 1, 2 and 4 bytes, " +
      "`g ADDRESS` reads a byte of memory and prints it, `p ADDRESS VALUE` writes 4 bytes, `e` " +
      "exits with value 0.",
    2,
  ),
  probe_multiboot: {
    ...elf("probe_multiboot", "The same as a 32-bit multiboot kernel.", 2),
    entry: "multiboot",
  },
  virtio_net: elf(
    "virtio_net",
    "Prints `net MAC at irq N` and sends every frame back, counting; frames carry numbers that follow " +
      "one another. Prints `FAIL ...` when one is lost, comes twice or is damaged.",
    8,
    {
      isa: "interrupts as a machine without ACPI has them",
      merge: "frames that take several small buffers",
      mq: "two pairs of queues, and numbers of their own in frames of each UDP port",
    },
  ),
  virtio_vsock: elf(
    "virtio_vsock",
    "Prints `vsock CID`, takes connections, one at a time, and sends back what comes by them, counting " +
      "packets; prints `connections have ended` when it is told so by the device.",
    8,
    { isa: "the machine has no ACPI" },
  ),
  virtio_blk: elf(
    "virtio_blk",
    "Prints `blk at irq N, M sectors`, then writes, reads and zeroes numbered records on the first 64 " +
      "sectors of a disk, several requests at a time, over and over, counting; prints `FAIL ...` " +
      "when a sector has not what was last written to it, or a request is done twice.",
    8,
    {
      isa: "the machine has no ACPI",
      "one-ioapic": "the machine has ACPI, and no second I/O APIC",
    },
  ),
  virtio_balloon: elf(
    "virtio_balloon",
    "Prints `balloon at irq N` and gives as many of its 4,096 pages from 16 MiB on back to the balloon " +
      "as that asks for, counting, tells statistics, and prints `FAIL ...` when a page has lost what " +
      "was in it, or comes back with something.",
    36,
    {
      churn: "gives back some number of pages or other, over and over",
      report: "reports free pages, two at a time, over and over",
      code:
        "executes what it has given back, prints how often it was still there, and exits with value 0",
      isa: "the machine has no ACPI",
      "one-ioapic": "the machine has ACPI, and no second I/O APIC",
    },
  ),
  virtio_rng: elf(
    "virtio_rng",
    "Prints `rng at irq N` and lets the entropy device fill buffers, several at a time, over and " +
      "over, counting; prints `FAIL ...` when something is wrong.",
    8,
    {
      isa: "the machine has no ACPI",
      "one-ioapic": "the machine has ACPI, and no second I/O APIC",
      broken: "malforms the ring in every way, prints `broken ok N`, and exits with value 0",
    },
  ),
  virtio_serial: elf(
    "virtio_serial",
    "Says what a virtio-serial device tells of its ports, one line each, and gives back on ports " +
      "0 to 2 what comes in there, counting buffers.",
    8,
    {
      single: "port 0 alone, without control messages",
      isa: "the machine has no ACPI",
      "one-ioapic": "the machine has ACPI, and no second I/O APIC",
    },
  ),
  virtio_bench: elf(
    "virtio_bench",
    "Keeps a disk or a network card as busy as it can, and prints a letter for each batch: 500 " +
      "requests of 4 KiB, 20 of 1 MiB, 2,000 frames.",
    64,
    {
      read: "reads from the disk, 4 KiB anywhere on it, 32 requests at a time",
      write: "writes to it",
      single: "one request at a time",
      large: "1 MiB, one behind the other, 4 at a time; or frames of 1,514 bytes, 32,000 in a loop",
      send: "sends frames of 60 bytes",
      loop: "sends frames that the network brings back, 4 under way",
      both: "does so with a disk and sends frames, at the same time",
      isa: "the machine has no ACPI",
      "one-ioapic": "the machine has ACPI, and no second I/O APIC",
    },
  ),
  modes: rom(
    "modes",
    "Walks from the reset vector to long mode printing `real`, `protected`, `long`, each on a " +
      "line, and exits with value 0.",
    2,
  ),
};
