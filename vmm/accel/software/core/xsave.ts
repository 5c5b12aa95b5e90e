// FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XRSTOR, LDMXCSR, STMXCSR (SDM 1, 10.5 and chapter 13): x87 and SSE
// are the components there are, and XSAVE takes both to be in use always (it may, SDM 1, 13.6).
import { MODE } from "./derived";
import { raise, raiseGP, VECTOR_NM, VECTOR_UD } from "./fault";
import { CR0, CR4, GPR, XCR0 } from "./layout";
import {
  probeRead,
  probeWrite,
  read16,
  read32,
  read64,
  read8,
  write16,
  write32,
  write64,
} from "./memory";
import { MODE_64 } from "./mode";
import { checkSse } from "./simd";
import { fninit } from "./x87";
import {
  MXCSR,
  st,
  updateSummary,
  X87_FCW,
  X87_FDP,
  X87_FIP,
  X87_FOP,
  X87_FSW,
  X87_REGISTERS,
  X87_TAGS,
  XMM,
} from "./x87_state";

const CR0_EM: u64 = 1 << 2;
const CR0_TS: u64 = 1 << 3;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXSAVE: u64 = 1 << 18;

/** The bits that MXCSR has. */
const MXCSR_MASK: u32 = 0xffff;

const COMPONENT_X87: u64 = 1;
const COMPONENT_SSE: u64 = 2;

/** The legacy region, and the header that XSAVE has after it. */
const LEGACY_SIZE: u32 = 512;
const HEADER: u64 = 512;
const XSAVE_SIZE: u32 = 576;

function storeX87(at: u64, wide: bool): void {
  write16(at, load<u16>(X87_FCW));
  write16(at + 2, load<u16>(X87_FSW));
  write16(at + 4, load<u8>(X87_TAGS));
  write16(at + 6, load<u16>(X87_FOP));
  // Without REX.W there are selectors above 32 bits, which are not kept (CPUID.(7,0).EBX[13]).
  write64(at + 8, wide ? load<u64>(X87_FIP) : load<u64>(X87_FIP) & 0xffffffff);
  write64(at + 16, wide ? load<u64>(X87_FDP) : load<u64>(X87_FDP) & 0xffffffff);
  for (let i: u32 = 0; i < 8; i++) {
    const register = at + 32 + i * 16;
    write64(register, load<u64>(st(i)));
    write64(register + 8, load<u16>(st(i), 8) as u64);
  }
}

function loadX87(at: u64, wide: bool): void {
  store<u16>(X87_FCW, (read16(at) & 0x1f3f) | 0x40);
  store<u16>(X87_FSW, read16(at + 2));
  store<u8>(X87_TAGS, read8(at + 4) as u8);
  store<u16>(X87_FOP, read16(at + 6) & 0x7ff);
  store<u64>(X87_FIP, wide ? read64(at + 8) : (read32(at + 8) as u64));
  store<u64>(X87_FDP, wide ? read64(at + 16) : (read32(at + 16) as u64));
  for (let i: u32 = 0; i < 8; i++) {
    const register = at + 32 + i * 16;
    store<u64>(st(i), read64(register));
    store<u16>(st(i), read16(register + 8), 8);
  }
  updateSummary();
}

function initializeX87(): void {
  fninit();
  memory.fill(X87_REGISTERS, 0, 128);
}

function storeMxcsr(at: u64): void {
  write32(at + 24, load<u32>(MXCSR));
  write32(at + 28, MXCSR_MASK);
}

/** MXCSR of an area; #GP if a bit is set that there is not. */
function readMxcsr(at: u64): u32 {
  const value = read32(at);
  if ((value & ~MXCSR_MASK) != 0) raiseGP(0);
  return value;
}

/** How many XMM registers there are in the present mode. */
function xmmCount(): u32 {
  return (load<u32>(MODE) & MODE_64) != 0 ? 16 : 8;
}

function storeXmm(at: u64): void {
  for (let i: u32 = 0; i < xmmCount() * 16; i += 8) {
    write64(at + 160 + i, load<u64>(XMM + i));
  }
}

function loadXmm(at: u64): void {
  for (let i: u32 = 0; i < xmmCount() * 16; i += 8) {
    store<u64>(XMM + i, read64(at + 160 + i));
  }
}

function checkFxsave(at: u64): void {
  if ((load<u64>(CR0) & (CR0_EM | CR0_TS)) != 0) raise(VECTOR_NM, 0);
  if ((at & 15) != 0) raiseGP(0);
}

/** FXSAVE, with REX.W (wide) FXSAVE64. */
export function fxsave(at: u64, wide: bool): void {
  checkFxsave(at);
  probeWrite(at, LEGACY_SIZE);
  storeX87(at, wide);
  if ((load<u64>(CR4) & CR4_OSFXSR) == 0) return;
  storeMxcsr(at);
  storeXmm(at);
}

export function fxrstor(at: u64, wide: bool): void {
  checkFxsave(at);
  probeRead(at, LEGACY_SIZE);
  const sse = (load<u64>(CR4) & CR4_OSFXSR) != 0;
  if (sse) store<u32>(MXCSR, readMxcsr(at + 24));
  loadX87(at, wide);
  if (sse) loadXmm(at);
}

export function ldmxcsr(at: u64): void {
  checkSse();
  store<u32>(MXCSR, readMxcsr(at));
}

export function stmxcsr(at: u64): void {
  checkSse();
  write32(at, load<u32>(MXCSR));
}

function checkXsave(at: u64): void {
  if ((load<u64>(CR4) & CR4_OSXSAVE) == 0) raise(VECTOR_UD, 0);
  if ((load<u64>(CR0) & CR0_TS) != 0) raise(VECTOR_NM, 0);
  if ((at & 63) != 0) raiseGP(0);
}

/** The components that EDX:EAX asks for and XCR0 allows. */
function requested(): u64 {
  const low = load<u32>(GPR) as u64;
  const high = load<u32>(GPR + 16) as u64;
  return (low | (high << 32)) & load<u64>(XCR0);
}

/** XSAVE, XSAVEOPT, with REX.W (wide) XSAVE64, XSAVEOPT64. */
export function xsave(at: u64, wide: bool): void {
  checkXsave(at);
  probeWrite(at, XSAVE_SIZE);
  const components = requested();
  const before = read64(at + HEADER);
  if ((components & COMPONENT_X87) != 0) storeX87(at, wide);
  if ((components & COMPONENT_SSE) != 0) {
    storeMxcsr(at);
    storeXmm(at);
  }
  write64(at + HEADER, before | components);
}

/** XRSTOR of the standard format; the compacted one comes with XSAVEC, which there is not. */
export function xrstor(at: u64, wide: bool): void {
  checkXsave(at);
  probeRead(at, XSAVE_SIZE);
  const present = read64(at + HEADER);
  if ((present & ~load<u64>(XCR0)) != 0) raiseGP(0);
  if ((read64(at + HEADER + 8) | read64(at + HEADER + 16)) != 0) raiseGP(0);
  const components = requested();
  if ((components & COMPONENT_SSE) != 0) {
    // MXCSR is not the component's: it is loaded whatever the header says (SDM 1, 13.8.1).
    store<u32>(MXCSR, readMxcsr(at + 24));
    if ((present & COMPONENT_SSE) != 0) loadXmm(at);
    else memory.fill(XMM, 0, xmmCount() * 16);
  }
  if ((components & COMPONENT_X87) == 0) return;
  if ((present & COMPONENT_X87) != 0) loadX87(at, wide);
  else initializeX87();
}
