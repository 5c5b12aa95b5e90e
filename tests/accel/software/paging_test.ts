import assert from "node:assert/strict";
import type { CoreHost } from "../../../vmm/accel/software/core.ts";
import { TestCore } from "./core_testing.ts";

const P = 1n, W = 2n, U = 4n, A = 0x20n, D = 0x40n, LARGE = 0x80n, NX = 1n << 63n;
const CODE = 0x1000;
const TABLES = 0x10_0000;
/** The page that is accessed, and where it is in RAM. */
const PAGE = 0x20_0000;
const MOV_LOAD = [0x8b, 0x03], MOV_STORE = [0x89, 0x03], JUMP = [0xff, 0xe3], HLT = 0xf4;
const PAGE_FAULT = 14;

const CR0 = 0x8000_0013n, WP = 1n << 16n;
const PAE = 0x20n, PSE = 0x10n, LA57 = 1n << 12n, SMEP = 1n << 20n, SMAP = 1n << 21n;
const LONG = 0x500n, NXE = 0x800n;

/** How a mode translates: levels, bytes an entry, bits of an index. */
interface Mode {
  readonly levels: number;
  readonly wide: boolean;
  readonly cr4: bigint;
  readonly efer: bigint;
}

const modes: Record<string, Mode> = {
  "two levels": { levels: 2, wide: false, cr4: PSE, efer: 0n },
  "PAE": { levels: 3, wide: true, cr4: PAE, efer: 0n },
  "four levels": { levels: 4, wide: true, cr4: PAE, efer: LONG },
  "five levels": { levels: 5, wide: true, cr4: PAE | LA57, efer: LONG },
};

/** What an access is to be. */
interface Access {
  readonly user?: boolean;
  readonly wp?: boolean;
  readonly cr4?: bigint;
  readonly nxe?: boolean;
  readonly ac?: boolean;
  /** Bits of the page's own entry. */
  readonly entry?: bigint;
  /** Bits of the entries above it. */
  readonly above?: bigint;
  readonly linear?: bigint;
}

class Paged {
  readonly cpu: TestCore;
  readonly #view: DataView;
  #next = TABLES;

  constructor(readonly mode: Mode, host: Partial<CoreHost> = {}) {
    this.cpu = new TestCore(8 << 20, host);
    this.#view = new DataView(this.cpu.ram.buffer, this.cpu.ram.byteOffset, 8 << 20);
  }

  #entry(table: number, index: number): bigint {
    return this.mode.wide
      ? this.#view.getBigUint64(table + index * 8, true)
      : BigInt(this.#view.getUint32(table + index * 4, true));
  }

  #setEntry(table: number, index: number, value: bigint): void {
    if (this.mode.wide) this.#view.setBigUint64(table + index * 8, value, true);
    else this.#view.setUint32(table + index * 4, Number(value), true);
  }

  /** Where the entry of a level (1: page table) for an address is. */
  slot(linear: bigint, level: number): { table: number; index: number } {
    const bits = this.mode.wide ? 9n : 10n;
    let table = TABLES;
    for (let at = this.mode.levels;; at--) {
      const isPdpt = this.mode.levels === 3 && at === 3;
      const index = Number(
        (linear >> (12n + bits * BigInt(at - 1))) & (isPdpt ? 3n : (1n << bits) - 1n),
      );
      if (at === level) return { table, index };
      table = Number(this.#entry(table, index) & 0x000f_ffff_ffff_f000n);
    }
  }

  read(linear: bigint, level: number): bigint {
    const { table, index } = this.slot(linear, level);
    return this.#entry(table, index);
  }

  /** Maps a page: bits of its entry, of the entries above it; `level` 2 and 3 are large pages. */
  map(linear: bigint, physical: bigint, entry: bigint, above: bigint, level = 1): void {
    if (this.#next === TABLES) this.#next += 0x1000;
    for (let at = this.mode.levels; at > level; at--) {
      const { table, index } = this.slot(linear, at);
      const isPdpt = this.mode.levels === 3 && at === 3;
      if (this.#entry(table, index) & P) continue;
      this.#setEntry(table, index, BigInt(this.#next) | (isPdpt ? P : above));
      this.#next += 0x1000;
    }
    const { table, index } = this.slot(linear, level);
    this.#setEntry(table, index, physical | entry | (level > 1 ? LARGE : 0n));
  }

  /** Enters the mode; tables are complete. */
  enter({ user = false, wp = true, cr4 = 0n, nxe = true, ac = false }: Access): void {
    const { cpu, mode } = this;
    const { state } = cpu;
    state.cr0 = CR0 | (wp ? WP : 0n);
    state.cr3 = BigInt(TABLES);
    state.cr4 = mode.cr4 | cr4;
    state.efer = mode.efer | (nxe && mode.wide ? NXE : 0n);
    for (let i = 0; i < 4; i++) state.pdptr.put(i, this.#view.getBigUint64(TABLES + i * 8, true));
    const dpl = user ? 0x60 : 0;
    cpu.setSegment(1, user ? 0x1b : 0x8, 0n, 0xffff_ffff, (mode.efer ? 0xa09b : 0xc09b) | dpl);
    for (const i of [0, 2, 3]) cpu.setSegment(i, user ? 0x23 : 0x10, 0n, 0xffff_ffff, 0xc093 | dpl);
    state.rflags = ac ? 0x4_0002n : 2n;
    cpu.core.exports.refresh();
  }

  /** Executes an instruction that accesses an address; the page fault's error code, or "ok". */
  execute(instruction: readonly number[], linear: bigint): number | "ok" {
    const { cpu } = this;
    cpu.load(CODE, [...instruction, HLT, HLT]);
    if (instruction === JUMP) cpu.load(PAGE, [HLT]);
    cpu.state.rip = BigInt(CODE);
    cpu.state.gpr.put(3, linear);
    cpu.state.gpr.put(0, 0xf4f4_f4f4n);
    cpu.state.mp_state = 0;
    cpu.core.exports.refresh();
    if (cpu.core.runToFault(100)) return "ok";
    const { fault_vector, fault_error_code, fault_address } = cpu.state;
    if (fault_vector !== PAGE_FAULT) {
      // In user mode HLT is #GP: what came before it was done.
      assert.equal(fault_vector, 13);
      assert.equal(fault_error_code, 0);
      return "ok";
    }
    assert.equal(fault_address, linear);
    return fault_error_code;
  }
}

/** The outcome of one access to the page in a mode. */
function access(mode: Mode, instruction: readonly number[], how: Access): number | "ok" {
  const { entry = P | W | U, above = P | W | U, linear = BigInt(PAGE), user = false } = how;
  const paged = new Paged(mode);
  // The code is the user's only if the user executes it: SMEP forbids it to the supervisor.
  const codeBits = P | W | (user ? U : 0n);
  paged.map(linear, BigInt(PAGE), entry, above);
  paged.map(BigInt(CODE), BigInt(CODE), codeBits, P | W | U);
  paged.enter(how);
  return paged.execute(instruction, linear);
}

const expectations: readonly [string, readonly number[], Access, number | "ok", boolean?][] = [
  ["a supervisor reads a page", MOV_LOAD, {}, "ok"],
  ["a supervisor reads a page that is not present", MOV_LOAD, { entry: 0n }, 0],
  ["a supervisor writes a page that is not present", MOV_STORE, { entry: 0n }, 2],
  ["a user reads a page that is not present", MOV_LOAD, { entry: 0n, user: true }, 4],
  ["a user writes a page that is not present", MOV_STORE, { entry: 0n, user: true }, 6],
  ["a user reads the supervisor's page", MOV_LOAD, { entry: P | W, user: true }, 5],
  ["a user writes the supervisor's page", MOV_STORE, { entry: P | W, user: true }, 7],
  ["a user writes a page that is read-only", MOV_STORE, { entry: P | U, user: true }, 7],
  ["a user reads a page that is read-only", MOV_LOAD, { entry: P | U, user: true }, "ok"],
  ["a supervisor writes a read-only page with WP", MOV_STORE, { entry: P }, 3],
  ["a supervisor writes a read-only page without WP", MOV_STORE, { entry: P, wp: false }, "ok"],
  ["SMEP forbids the supervisor the user's code", JUMP, { cr4: SMEP, nxe: false }, 17],
  ["SMEP leaves the supervisor its own code", JUMP, { cr4: SMEP, entry: P | W }, "ok"],
  ["SMAP forbids the supervisor the user's data", MOV_LOAD, { cr4: SMAP }, 1],
  ["SMAP is lifted by AC", MOV_LOAD, { cr4: SMAP, ac: true }, "ok"],
  ["SMAP leaves the supervisor its own data", MOV_STORE, { cr4: SMAP, entry: P | W }, "ok"],
  ["NX forbids the supervisor", JUMP, { entry: P | NX }, 17, true],
  ["NX forbids the user", JUMP, { entry: P | U | NX, user: true }, 21, true],
  ["NX lets read", MOV_LOAD, { entry: P | U | NX, user: true }, "ok", true],
  ["NX without EFER.NXE is reserved", MOV_LOAD, { entry: P | NX, nxe: false }, 9, true],
  [
    "a physical address beyond the CPU's is reserved",
    MOV_LOAD,
    { entry: P | (1n << 45n) },
    9,
    true,
  ],
  ["a fetch has no bit of its own where nothing forbids fetches", JUMP, {
    entry: 0n,
    nxe: false,
  }, 0],
];

for (const [name, mode] of Object.entries(modes)) {
  Deno.test(`paging with ${name}: rights and error codes`, () => {
    for (const [what, instruction, how, expected, wideOnly] of expectations) {
      if (wideOnly && !mode.wide) continue;
      assert.equal(access(mode, instruction, how), expected, what);
    }
  });

  Deno.test(`paging with ${name}: accessed and dirty bits`, () => {
    const paged = new Paged(mode);
    const linear = BigInt(PAGE);
    paged.map(linear, BigInt(PAGE), P | W, P | W | U);
    paged.map(BigInt(CODE), BigInt(CODE), P | W, P | W | U);
    paged.enter({});
    assert.equal(paged.execute(MOV_LOAD, linear), "ok");
    assert.equal(paged.read(linear, 1) & (A | D), A);
    assert.equal(paged.read(linear, 2) & A, A);
    assert.equal(paged.execute(MOV_STORE, linear), "ok");
    assert.equal(paged.read(linear, 1) & (A | D), A | D);
    assert.equal(paged.read(linear, 2) & D, 0n);
  });

  Deno.test(`paging with ${name}: large pages`, () => {
    const sizes = mode.levels > 3 ? [2, 3] : [2];
    for (const level of sizes) {
      const bits = BigInt(12 + (mode.wide ? 9 : 10) * (level - 1));
      const paged = new Paged(mode);
      // Beyond the first page of that size, which has the code.
      const linear = (1n << bits) + 0x40_0000n % (1n << bits) + 8n;
      paged.map(linear, 0n, P | W, P | W | U, level);
      paged.map(BigInt(CODE), BigInt(CODE), P | W, P | W | U);
      paged.enter({});
      assert.equal(paged.execute(MOV_STORE, linear), "ok");
      const physical = Number(linear & ((1n << bits) - 1n));
      assert.equal(paged.cpu.ram[physical], 0xf4, `level ${level}`);
      assert.equal(paged.read(linear, level) & (A | D | LARGE), A | D | LARGE);
      // A bit between LARGE's address and its flags is reserved (bit 21 of two levels' 4 MiB).
      const reserved = mode.wide ? 0x2000n : 0x20_0000n;
      paged.map(linear, 0n, P | W | reserved, P | W | U, level);
      assert.equal(paged.execute(MOV_LOAD, linear), 9, `level ${level}`);
    }
  });
}

Deno.test("PSE-36: four bits of a 4 MiB page's entry are bits 32 to 39 of its address", () => {
  const accesses: string[] = [];
  // No RAM is there: the address shows in what the host is asked for.
  const paged = new Paged(modes["two levels"], {
    mmioRead: (low, high, size) => {
      accesses.push(`${high.toString(16)}:${low.toString(16)}/${size}`);
      return 1;
    },
  });
  const linear = 0x80_0010n;
  paged.map(linear, 0x6000n, P | W, P | W | U, 2);
  paged.map(BigInt(CODE), BigInt(CODE), P | W, P | W | U);
  paged.enter({});
  assert.equal(paged.execute(MOV_LOAD, linear), "ok");
  assert.equal(paged.cpu.state.gpr.at(0), 1n);
  assert.deepEqual(accesses, ["3:10/4"]);
});

Deno.test("a read across two pages faults at the second one's start, and a write changes neither", () => {
  const paged = new Paged(modes["four levels"]);
  const linear = BigInt(PAGE) + 0xffen;
  paged.map(BigInt(PAGE), BigInt(PAGE), P | W, P | W | U);
  paged.map(BigInt(CODE), BigInt(CODE), P | W, P | W | U);
  paged.enter({});
  for (const [instruction, code] of [[MOV_LOAD, 0], [MOV_STORE, 2]] as const) {
    const { cpu } = paged;
    cpu.load(CODE, [...instruction, HLT]);
    cpu.state.rip = BigInt(CODE);
    cpu.state.gpr.put(3, linear);
    cpu.core.exports.refresh();
    assert.equal(cpu.core.runToFault(100), false);
    assert.equal(cpu.state.fault_error_code, code);
    assert.equal(cpu.state.fault_address, BigInt(PAGE) + 0x1000n);
    assert.equal(cpu.ram[PAGE + 0xffe], 0);
  }
});
