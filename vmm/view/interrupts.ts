/**
 * The interrupt controllers as text, in QEMU's shape (`info pic`, `info lapic`).
 *
 * @module
 */
import { kvmIoapicState, kvmIrqchip, kvmPicState } from "../../ffi/kvm/structs.ts";
import type { AcceleratorVcpu, AcceleratorVm } from "../accel/accelerator.ts";

const hex = (value: bigint | number, digits: number) => value.toString(16).padStart(digits, "0");

const DELIVERY_MODES = ["fixed", "lowpri", "SMI", "...", "NMI", "INIT", "...", "extINT"];

/** IOAPIC and both PICs, without their line ends' carriage returns. */
export function dumpInterruptControllers(vm: AcceleratorVm): string {
  return [...ioapic(vm), pic(vm, 1), pic(vm, 0)].map((line) => line + "\n").join("");
}

function chip(vm: AcceleratorVm, id: number): Uint8Array<ArrayBuffer> {
  const { bytes, view } = kvmIrqchip.alloc();
  view.chip_id = id;
  vm.read("irqchip", bytes);
  return bytes;
}

function pic(vm: AcceleratorVm, id: number): string {
  const s = kvmPicState.view(chip(vm, id).buffer, kvmIrqchip.offsets.chip);
  // The highest priority that waits, counted from the rotating base (8259A data sheet).
  const pending = ((s.irr & ~s.imr) << s.priority_add) & 0xff;
  const priority = pending === 0 ? 0 : Math.clz32(pending) - 24;
  return `pic${id}: irr=${hex(s.irr, 2)} imr=${hex(s.imr, 2)} isr=${hex(s.isr, 2)}` +
    ` hprio=${priority} irq_base=${hex(s.irq_base, 2)} rr_sel=${s.read_reg_select}` +
    ` elcr=${hex(s.elcr, 2)} fnm=${s.special_fully_nested_mode}`;
}

/** 82093AA data sheet, 3.2.4: a redirection table entry is 64 bits. */
function ioapic(vm: AcceleratorVm): string[] {
  const s = kvmIoapicState.view(chip(vm, 2).buffer, kvmIrqchip.offsets.chip);
  const entries = [...s.redirtbl];
  const list = (pins: number[]) => pins.length === 0 ? "(none)" : pins.join(" ");
  const pins = entries.map((_, pin) => pin);
  return [
    `ioapic0: ver=0x11 id=0x${hex(s.id, 2)} sel=0x${hex(s.ioregsel, 2)}`,
    ...entries.map((entry, pin) => `  pin ${String(pin).padEnd(2)} ${redirection(entry)}`),
    `  IRR      ${list(pins.filter((pin) => (s.irr >>> pin) & 1))}`,
    `  Remote IRR ${list(pins.filter((pin) => (entries[pin] >> 14n) & 1n))}`,
  ];
}

function redirection(entry: bigint): string {
  const bit = (n: number) => ((entry >> BigInt(n)) & 1n) === 1n;
  return `0x${hex(entry, 16)} dest=${hex(entry >> 56n, 1)} vec=${String(entry & 0xffn).padEnd(3)} ${
    bit(13) ? "active-lo" : "active-hi"
  } ${bit(15) ? "level" : "edge "} ${bit(16) ? "masked" : "      "} ${
    DELIVERY_MODES[Number((entry >> 8n) & 7n)].padEnd(6)
  } ${bit(11) ? "logical" : "physical"}`;
}

// Register offsets of the local APIC (Intel SDM volume 3, table 11-1).
const APIC = {
  ID: 0x20,
  TPR: 0x80,
  APR: 0x90,
  PPR: 0xa0,
  LDR: 0xd0,
  DFR: 0xe0,
  SPIV: 0xf0,
  ISR: 0x100,
  IRR: 0x200,
  ESR: 0x280,
  ICR: 0x300,
  ICR2: 0x310,
  LVTT: 0x320,
  LVTTHMR: 0x330,
  LVTPC: 0x340,
  LVT0: 0x350,
  LVT1: 0x360,
  LVTERR: 0x370,
  INITIAL_COUNT: 0x380,
  CURRENT_COUNT: 0x390,
  DIVIDE: 0x3e0,
} as const;

const LVT_MODES = ["Fixed", "...", "SMI", "...", "NMI", "INIT", "...", "ExtINT"];
const TIMER_MODES = ["one-shot", "periodic", "tsc-deadline", "..."];
const SHORTHANDS = ["no-shorthand", "self", "all-self", "all"];

/** A vCPU's local APIC. */
export function dumpLocalApic(vcpu: AcceleratorVcpu, index: number): string {
  const page = new Uint8Array(1024);
  vcpu.read("lapic", page);
  const data = new DataView(page.buffer);
  const reg = (offset: number) => data.getUint32(offset, true);
  const divide = reg(APIC.DIVIDE);
  const divisor = 1 << ((((divide >> 1) & 4) | (divide & 3)) + 1 & 7);
  const spiv = reg(APIC.SPIV);
  const icr = reg(APIC.ICR);
  const icr2 = reg(APIC.ICR2);
  return [
    `dumping local APIC state for CPU ${index} `,
    "",
    lvt("LVT0", reg(APIC.LVT0)),
    lvt("LVT1", reg(APIC.LVT1)),
    lvt("LVTPC", reg(APIC.LVTPC)),
    lvt("LVTERR", reg(APIC.LVTERR)),
    lvt("LVTTHMR", reg(APIC.LVTTHMR)),
    lvt("LVTT", reg(APIC.LVTT), true),
    `Timer\t DCR=0x${hex(divide, 1)} (divide by ${divisor}) initial_count = ${
      reg(APIC.INITIAL_COUNT)
    } current_count = ${reg(APIC.CURRENT_COUNT)}`,
    `SPIV\t 0x${hex(spiv, 8)} APIC ${spiv & 0x100 ? "enabled" : "disabled"}, focus=${
      spiv & 0x200 ? "on" : "off"
    }, spurious vec ${spiv & 0xff}`,
    `ICR\t 0x${hex(icr, 8)} ${icr & 0x800 ? "logical" : "physical"} ${
      icr & 0x8000 ? "level" : "edge"
    } ${icr & 0x4000 ? "assert" : "de-assert"} ${SHORTHANDS[(icr >> 18) & 3]}`,
    `ICR2\t 0x${hex(icr2, 8)} cpu ${icr2 >>> 24} (X2APIC ID)`,
    `ESR\t 0x${hex(reg(APIC.ESR), 8)}`,
    `ISR\t ${vectors(reg, APIC.ISR)}`,
    `IRR\t ${vectors(reg, APIC.IRR)}`,
    "",
    `APR 0x${hex(reg(APIC.APR), 2)} TPR 0x${hex(reg(APIC.TPR), 2)} DFR 0x${
      hex(reg(APIC.DFR) >>> 28, 2)
    } LDR 0x${hex(reg(APIC.LDR) >>> 24, 2)} PPR 0x${hex(reg(APIC.PPR), 2)}`,
  ].map((line) => line + "\n").join("");
}

function lvt(name: string, value: number, timer = false): string {
  const mode = LVT_MODES[(value >> 8) & 7];
  return `${name}\t 0x${hex(value, 8)} ${value & 0x2000 ? "active-lo" : "active-hi"} ${
    value & 0x8000 ? "level" : "edge "
  } ${value & 0x10000 ? "masked" : "      "} ${value & 0x1000 ? "pending" : "       "} ${
    (timer ? TIMER_MODES[(value >> 17) & 3] : "").padEnd(12)
  } ${mode.padEnd(6)} (vec ${value & 0xff})`;
}

function vectors(reg: (offset: number) => number, base: number): string {
  const set: number[] = [];
  for (let vector = 0; vector < 256; vector++) {
    if ((reg(base + (vector >> 5) * 16) >>> (vector & 31)) & 1) set.push(vector);
  }
  return set.length === 0 ? "(none)" : set.join(" ");
}
