/**
 * A vCPU's registers as text, in QEMU's shape (`info registers`).
 *
 * @module
 */
import { kvmDebugregs, kvmMpState, kvmRegs, kvmSregs } from "../../ffi/kvm/structs.ts";
import type { Fields, Struct, View } from "../../ffi/struct.ts";
import type { AcceleratorVcpu, VcpuPart, VcpuStateLayout } from "../accel/accelerator.ts";

type Regs = View<typeof kvmRegs.fields>;
type Sregs = View<typeof kvmSregs.fields>;
type Segment = Sregs["cs"];

const hex = (value: bigint | number, digits: number) => value.toString(16).padStart(digits, "0");
const hex64 = (value: bigint) => hex(value, 16);

/** Intel SDM volume 3, 3.5, table 3-2: types of system descriptors, by type and 64-bit mode. */
const systemTypes32 = [
  "Reserved",
  "TSS16-avl",
  "LDT",
  "TSS16-busy",
  "CallGate16",
  "TaskGate",
  "IntGate16",
  "TrapGate16",
  "Reserved",
  "TSS32-avl",
  "Reserved",
  "TSS32-busy",
  "CallGate32",
  "Reserved",
  "IntGate32",
  "TrapGate32",
];
const systemTypes64: Record<number, string> = {
  2: "LDT",
  9: "TSS64-avl",
  11: "TSS64-busy",
  12: "CallGate64",
  14: "IntGate64",
  15: "TrapGate64",
};

/** All registers of a parked vCPU, as text with a line end after each line. */
export function dumpRegisters(
  vcpu: AcceleratorVcpu,
  layout: Pick<VcpuStateLayout, "xsaveSize">,
): string {
  const regs = read(vcpu, "regs", kvmRegs);
  const sregs = read(vcpu, "sregs", kvmSregs);
  const debug = read(vcpu, "debugregs", kvmDebugregs);
  const halted = read(vcpu, "mp_state", kvmMpState).mp_state === 3 ? 1 : 0;
  const xsave = new Uint8Array(layout.xsaveSize);
  vcpu.read("xsave", xsave);
  return [
    ...generalRegisters(regs),
    `RIP=${hex64(regs.rip)} RFL=${hex(regs.rflags, 8)} [${
      flags(regs.rflags)
    }] CPL=${sregs.ss.dpl}` +
    ` II=0 A20=1 SMM=0 HLT=${halted}`,
    ...segments(sregs),
    `GDT=     ${hex64(sregs.gdt.base)} ${hex(sregs.gdt.limit, 8)}`,
    `IDT=     ${hex64(sregs.idt.base)} ${hex(sregs.idt.limit, 8)}`,
    `CR0=${hex(sregs.cr0, 8)} CR2=${hex64(sregs.cr2)} CR3=${hex64(sregs.cr3)}` +
    ` CR4=${hex(sregs.cr4, 8)}`,
    `${[...debug.db].map((value, i) => `DR${i}=${hex64(value)} `).join("")}`,
    `DR6=${hex64(debug.dr6)} DR7=${hex64(debug.dr7)}`,
    `EFER=${hex64(sregs.efer)}`,
    ...floatingPoint(new DataView(xsave.buffer)),
  ].map((line) => line + "\n").join("");
}

/** One register by its lower-case name; undefined if there is none of that name. */
export function readRegister(vcpu: AcceleratorVcpu, name: string): bigint | undefined {
  const regs = read(vcpu, "regs", kvmRegs);
  const alias = name === "pc" || name === "eip" ? "rip" : name === "eflags" ? "rflags" : name;
  const wide = /^e[a-ds][xpi]$/.test(alias) ? `r${alias.slice(1)}` : alias;
  if (wide in kvmRegs.fields) {
    const value = regs[wide as keyof Regs];
    return wide === alias ? value : value & 0xffff_ffffn;
  }
  const sregs = read(vcpu, "sregs", kvmSregs);
  if (/^[c-gs]s$/.test(name)) return BigInt(sregs[name as "cs"].selector);
  if (/^cr[0234]$/.test(name)) return sregs[name as "cr0"];
  return name === "efer" ? sregs.efer : undefined;
}

/** The linear address of the next instruction. */
export function instructionAddress(vcpu: AcceleratorVcpu): bigint {
  return read(vcpu, "sregs", kvmSregs).cs.base + read(vcpu, "regs", kvmRegs).rip;
}

function read<F extends Fields>(
  vcpu: AcceleratorVcpu,
  part: VcpuPart,
  layout: Struct<F>,
): View<F> {
  const { bytes, view } = layout.alloc();
  vcpu.read(part, bytes);
  return view;
}

function generalRegisters(regs: Regs): string[] {
  const rows = [
    ["rax", "rbx", "rcx", "rdx"],
    ["rsi", "rdi", "rbp", "rsp"],
    ["r8", "r9", "r10", "r11"],
    ["r12", "r13", "r14", "r15"],
  ] as const;
  return rows.map((row) =>
    row.map((name) => `${name.toUpperCase().padEnd(3)}=${hex64(regs[name])}`).join(" ")
  );
}

/** DF, OF, SF, ZF, AF, PF, CF, in that order; a dash for each that is clear. */
function flags(rflags: bigint): string {
  const bits: [string, number][] = [
    ["D", 10],
    ["O", 11],
    ["S", 7],
    ["Z", 6],
    ["A", 4],
    ["P", 2],
    ["C", 0],
  ];
  return bits.map(([name, bit]) => (rflags >> BigInt(bit)) & 1n ? name : "-").join("");
}

function segments(sregs: Sregs): string[] {
  const names = ["es", "cs", "ss", "ds", "fs", "gs"] as const;
  const long = (sregs.efer & 0x400n) !== 0n;
  return [
    ...names.map((name) => segment(name.toUpperCase(), sregs[name], long)),
    segment("LDT", sregs.ldt, long),
    segment("TR", sregs.tr, long),
  ];
}

function segment(name: string, s: Segment, long: boolean): string {
  const attributes = (s.type << 8) | (s.s << 12) | (s.dpl << 13) | (s.present << 15) |
    (s.avl << 20) | (s.l << 21) | (s.db << 22) | (s.g << 23);
  const head = `${name.padEnd(3)}=${hex(s.selector, 4)} ${hex64(s.base)} ${hex(s.limit, 8)} ${
    hex(attributes >>> 0, 8)
  }`;
  if (!s.present || s.unusable) return head;
  return `${head} DPL=${s.dpl} ${s.s ? userSegment(s) : systemSegment(s.type, long)}`;
}

function userSegment(s: Segment): string {
  const bit = (mask: number, name: string) => s.type & mask ? name : "-";
  if (s.type & 8) {
    const width = s.l ? "CS64" : s.db ? "CS32" : "CS16";
    return `${width} [${bit(4, "C")}${bit(2, "R")}${bit(1, "A")}]`;
  }
  return `${s.db ? "DS  " : "DS16"} [${bit(4, "E")}${bit(2, "W")}${bit(1, "A")}]`;
}

function systemSegment(type: number, long: boolean): string {
  return (long ? systemTypes64[type] : systemTypes32[type]) ?? "Reserved";
}

/** FXSAVE area (Intel SDM volume 1, 10.5.1). */
function floatingPoint(x: DataView): string[] {
  const fsw = x.getUint16(2, true);
  const lines = [
    `FCW=${hex(x.getUint16(0, true), 4)} FSW=${hex(fsw, 4)} [ST=${(fsw >> 11) & 7}]` +
    ` FTW=${hex(x.getUint8(4), 2)} MXCSR=${hex(x.getUint32(24, true), 8)}`,
  ];
  const pair = (items: string[]) => {
    for (let i = 0; i < items.length; i += 2) lines.push(`${items[i]} ${items[i + 1]}`);
  };
  const quad = (at: number) => hex64(x.getBigUint64(at, true));
  pair(Array.from({ length: 8 }, (_, i) => {
    const at = 32 + i * 16;
    return `FPR${i}=${quad(at)} ${hex(x.getUint16(at + 8, true), 4)}`;
  }));
  pair(Array.from({ length: 16 }, (_, i) => {
    const at = 160 + i * 16;
    return `XMM${String(i).padStart(2, "0")}=${quad(at + 8)} ${quad(at)}`;
  }));
  return lines;
}
