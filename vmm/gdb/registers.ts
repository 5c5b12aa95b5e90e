/**
 * A vCPU's registers as gdb numbers them, and the description from which it learns that
 * (GDB manual, appendix G.5, "i386 Features").
 *
 * @module
 */
import { kvmRegs, kvmSregs, xsaveHead } from "../../ffi/kvm/structs.ts";
import type { View } from "../../ffi/struct.ts";
import type { AcceleratorVcpu } from "../accel/accelerator.ts";

/** A vCPU's state with registers in it. */
interface State {
  readonly regs: View<typeof kvmRegs.fields>;
  readonly sregs: View<typeof kvmSregs.fields>;
  readonly xsave: View<typeof xsaveHead.fields>;
}

/** One register. */
interface Register {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** gdb's type. */
  readonly type: string;
  /** Which part of the state it is in. */
  readonly part: keyof State;
  get(state: State): bigint;
  set(state: State, value: bigint): void;
}

const GENERAL = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"] as const;
const EXTENDED = ["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"] as const;
const SEGMENTS = ["cs", "ss", "ds", "es", "fs", "gs"] as const;
const SYSTEM = ["cr0", "cr2", "cr3", "cr4", "cr8", "efer"] as const;
const TOP_SHIFT = 11;
/** Bits of XSTATE_BV: x87 and SSE state differ from their initial values. */
const X87_SSE = 3n;

/** A field of kvm_regs. */
function general(name: keyof State["regs"], type: string): Register {
  return {
    name: name === "rflags" ? "eflags" : name,
    size: name === "rflags" ? 4 : 8,
    type,
    part: "regs",
    get: ({ regs }) => regs[name],
    set: ({ regs }, value) => {
      regs[name] = value;
    },
  };
}

/** A field of kvm_sregs of 64 bits. */
function system(name: typeof SYSTEM[number]): Register {
  return {
    name,
    size: 8,
    type: "int64",
    part: "sregs",
    get: ({ sregs }) => sregs[name],
    set: ({ sregs }, value) => {
      sregs[name] = value;
    },
  };
}

function selector(name: typeof SEGMENTS[number]): Register {
  return {
    name,
    size: 4,
    type: "int32",
    part: "sregs",
    get: ({ sregs }) => BigInt(sregs[name].selector),
    set: ({ sregs }, value) => {
      sregs[name].selector = Number(value & 0xffffn);
    },
  };
}

function segmentBase(name: "fs" | "gs"): Register {
  return {
    name: `${name}_base`,
    size: 8,
    type: "int64",
    part: "sregs",
    get: ({ sregs }) => sregs[name].base,
    set: ({ sregs }, value) => {
      sregs[name].base = value;
    },
  };
}

/** Bytes of a field of the XSAVE area, as one little-endian number. */
function extended(
  name: string,
  size: number,
  type: string,
  bytes: (xsave: State["xsave"]) => Uint8Array,
): Register {
  return {
    name,
    size,
    type,
    part: "xsave",
    get: ({ xsave }) => fromBytes(bytes(xsave).subarray(0, size)),
    set: ({ xsave }, value) => {
      bytes(xsave).set(toBytes(value, size));
      xsave.xstate_bv |= X87_SSE;
    },
  };
}

/** A control register of the x87 as gdb shows it, 32 bits. */
function x87(
  name: string,
  get: (xsave: State["xsave"]) => number,
  set: (xsave: State["xsave"], value: number) => void,
): Register {
  return {
    name,
    size: 4,
    type: "int",
    part: "xsave",
    get: ({ xsave }) => BigInt(get(xsave)),
    set: ({ xsave }, value) => {
      set(xsave, Number(value));
      xsave.xstate_bv |= X87_SSE;
    },
  };
}

/** The address of the last x87 instruction or operand: offset in the low, selector in the high half. */
function pointer(names: readonly [string, string], field: "fip" | "fdp"): Register[] {
  return [
    x87(names[0], (x) => Number(x[field] >> 32n & 0xffffn), (x, value) => {
      x[field] = x[field] & 0xffff_ffffn | BigInt(value & 0xffff) << 32n;
    }),
    x87(names[1], (x) => Number(x[field] & 0xffff_ffffn), (x, value) => {
      x[field] = x[field] & ~0xffff_ffffn | BigInt(value >>> 0);
    }),
  ];
}

/** Features in the order in which gdb numbers their registers. */
const features: readonly { readonly name: string; readonly registers: readonly Register[] }[] = [
  {
    name: "org.gnu.gdb.i386.core",
    registers: [
      ...GENERAL.map((name) => general(name, /p$/.test(name) ? "data_ptr" : "int64")),
      ...EXTENDED.map((name) => general(name, "int64")),
      general("rip", "code_ptr"),
      general("rflags", "int32"),
      ...SEGMENTS.map(selector),
      ...Array.from(
        { length: 8 },
        (_, i) => extended(`st${i}`, 10, "i387_ext", ({ st }) => st.at(i)),
      ),
      x87("fctrl", (x) => x.fcw, (x, value) => x.fcw = value),
      x87("fstat", (x) => x.fsw, (x, value) => x.fsw = value),
      x87("ftag", fullTags, (x, value) => x.ftw = shortTags(x, value)),
      ...pointer(["fiseg", "fioff"], "fip"),
      ...pointer(["foseg", "fooff"], "fdp"),
      x87("fop", (x) => x.fop, (x, value) => x.fop = value),
    ],
  },
  {
    name: "org.gnu.gdb.i386.sse",
    registers: [
      ...Array.from(
        { length: 16 },
        (_, i) => extended(`xmm${i}`, 16, "vec128", ({ xmm }) => xmm.at(i)),
      ),
      x87("mxcsr", (x) => x.mxcsr, (x, value) => x.mxcsr = value >>> 0),
    ],
  },
  { name: "org.gnu.gdb.i386.segments", registers: [segmentBase("fs"), segmentBase("gs")] },
  { name: "org.denovo.x86.system", registers: SYSTEM.map(system) },
];

/** All registers by gdb's numbers. */
const registers: readonly Register[] = features.flatMap((feature) => feature.registers);

/** How many there are. */
export const REGISTER_COUNT: number = registers.length;

/**
 * The x87 tag word with two bits a register, of which the XSAVE area has one, whether it is empty
 * (Intel SDM volume 1, 8.1.7 and 10.5.1.1).
 */
function fullTags({ ftw, fsw, st }: State["xsave"]): number {
  let tags = 0;
  for (let physical = 0; physical < 8; physical++) {
    const content = st.at((physical - (fsw >> TOP_SHIFT) + 8) & 7);
    tags |= ((ftw >> physical) & 1 ? tagOf(content) : 3) << (2 * physical);
  }
  return tags;
}

/** Valid is 0, zero 1, special 2. */
function tagOf(content: Uint8Array): number {
  const bits = fromBytes(content.subarray(0, 10));
  const exponent = bits >> 64n & 0x7fffn;
  const significand = bits & 0xffff_ffff_ffff_ffffn;
  if (exponent === 0n) return significand === 0n ? 1 : 2;
  return exponent === 0x7fffn || significand >> 63n === 0n ? 2 : 0;
}

function shortTags(_xsave: State["xsave"], tags: number): number {
  let short = 0;
  for (let i = 0; i < 8; i++) if (((tags >> (2 * i)) & 3) !== 3) short |= 1 << i;
  return short;
}

function fromBytes(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => value << 8n | BigInt(byte), 0n);
}

function toBytes(value: bigint, size: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: size }, (_, i) => Number(value >> BigInt(8 * i) & 0xffn));
}

/** What is used of a vCPU. */
type StateOfVcpu = Pick<AcceleratorVcpu, "read" | "write">;

/** The registers of a parked vCPU: read at once, written back at once. */
export class Registers {
  readonly #vcpu: StateOfVcpu;
  readonly #bytes: Readonly<Record<keyof State, Uint8Array<ArrayBuffer>>>;
  readonly #state: State;
  readonly #changed = new Set<keyof State>();

  /**
   * Reads them.
   *
   * @param xsaveSize bytes of the vCPU's XSAVE state
   */
  constructor(vcpu: StateOfVcpu, xsaveSize: number) {
    this.#vcpu = vcpu;
    const bytes = this.#bytes = {
      regs: new Uint8Array(kvmRegs.size),
      sregs: new Uint8Array(kvmSregs.size),
      xsave: new Uint8Array(xsaveSize),
    };
    for (const part of ["regs", "sregs", "xsave"] as const) vcpu.read(part, bytes[part]);
    this.#state = {
      regs: kvmRegs.view(bytes.regs.buffer),
      sregs: kvmSregs.view(bytes.sregs.buffer),
      xsave: xsaveHead.view(bytes.xsave.buffer),
    };
  }

  /** A register's bytes; undefined if there is none of that number. */
  get(number: number): Uint8Array<ArrayBuffer> | undefined {
    const register = registers[number];
    return register && toBytes(register.get(this.#state), register.size);
  }

  /** Sets a register from the head of `bytes`; returns how many it took, 0 if there are too few. */
  set(number: number, bytes: Uint8Array): number {
    const register = registers[number];
    if (!register || bytes.length < register.size) return 0;
    const value = fromBytes(bytes.subarray(0, register.size));
    if (value !== register.get(this.#state)) {
      register.set(this.#state, value);
      this.#changed.add(register.part);
    }
    return register.size;
  }

  /** Writes what was set. @throws {OsError} if the accelerator refuses it */
  write(): void {
    for (const part of this.#changed) this.#vcpu.write(part, this.#bytes[part]);
    this.#changed.clear();
  }
}

/** What gdb shows an XMM register as. */
const vectorTypes: readonly string[] = [
  '<vector id="v4f" type="ieee_single" count="4"/>',
  '<vector id="v2d" type="ieee_double" count="2"/>',
  '<vector id="v16i8" type="int8" count="16"/>',
  '<vector id="v8i16" type="int16" count="8"/>',
  '<vector id="v4i32" type="int32" count="4"/>',
  '<vector id="v2i64" type="int64" count="2"/>',
  '<union id="vec128">',
  '<field name="v4_float" type="v4f"/>',
  '<field name="v2_double" type="v2d"/>',
  '<field name="v16_int8" type="v16i8"/>',
  '<field name="v8_int16" type="v8i16"/>',
  '<field name="v4_int32" type="v4i32"/>',
  '<field name="v2_int64" type="v2i64"/>',
  '<field name="uint128" type="uint128"/>',
  "</union>",
];

/** gdb's description of the processor, `target.xml`. */
export function targetDescription(): string {
  const lines = features.flatMap(({ name, registers }) => [
    `<feature name="${name}">`,
    ...(name.endsWith("sse") ? vectorTypes : []),
    ...registers.map((register) =>
      `<reg name="${register.name}" bitsize="${8 * register.size}" type="${register.type}"/>`
    ),
    "</feature>",
  ]);
  return [
    '<?xml version="1.0"?>',
    '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
    "<target>",
    "<architecture>i386:x86-64</architecture>",
    ...lines,
    "</target>",
  ].join("\n");
}
