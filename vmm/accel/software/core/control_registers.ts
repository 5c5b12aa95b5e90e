// Control registers and the modes that they switch (Intel SDM volume 3, 2.5 and 9.8 to 9.9).
import { RESERVED_ADDRESS } from "./derived";
import { raiseGP, raiseUD } from "./fault";
import { CR0, CR2, CR3, CR4, CR8, EFER, PDPTR, XCR0 } from "./layout";
import { flushPage, flushTlb, modeChanged, read64 } from "./memory";
import { physicalRead } from "./physical";
import { allowedCr4, allowedEfer, allowedXcr0 } from "./cpuid";
import {
  canonical, code64, cpl, CR0_CD, CR0_EM, CR0_ET, CR0_MP, CR0_NW, CR0_PE, CR0_PG, CR0_TS, CR0_WP,
  CR4_LA57, CR4_OSXSAVE, CR4_PAE, CR4_PCIDE, CR4_PGE, CR4_PSE, CR4_SMAP, CR4_SMEP, CR4_UMIP,
  EFER_LMA, EFER_LME, EFER_NXE, gpr, longMode, RAX, RCX, RDX, setGpr,
} from "./registers";
import { linear } from "./segment";

@external("env", "cr8Changed")
declare function cr8Changed(): void;

/** CR0's bits that exist; others of the lower half read as 0. */
const CR0_BITS: u64 = 0xe005_003f;
/** CR0's bits that change what an address means or what may be done at it. */
const CR0_PAGING: u64 = CR0_PG | CR0_WP | CR0_PE;
const CR4_PAGING: u64 = CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57 | CR4_PCIDE | CR4_SMEP | CR4_SMAP;
/** With PCIDE: MOV to CR3 keeps the TLB. */
const CR3_KEEP: u64 = 1 << 63;
/** A page-directory-pointer entry's bits that must be 0 besides those beyond the address. */
const PDPTE_RESERVED: u64 = 0xfff0_0000_0000_01e6;

export function requirePrivilege(): void {
  if (cpl() != 0) raiseGP(0);
}

/** What CR4.UMIP keeps from users: SGDT, SIDT, SLDT, STR, SMSW. */
export function requireUmip(): void {
  if (load<u64>(CR4) & CR4_UMIP && cpl() != 0) raiseGP(0);
}

/** MOV from a control register. */
export function opMovFromCr(register: u32): u64 {
  if (register > 4 && register != 8 || register == 1) raiseUD();
  requirePrivilege();
  switch (register) {
    case 0:
      return load<u64>(CR0);
    case 2:
      return load<u64>(CR2);
    case 3:
      return load<u64>(CR3);
    case 4:
      return load<u64>(CR4);
    default:
      return load<u64>(CR8);
  }
}

/** MOV to a control register; ends a block. */
export function opMovToCr(register: u32, value: u64): void {
  if (register > 4 && register != 8 || register == 1) raiseUD();
  requirePrivilege();
  // Outside of 64-bit mode operands have 32 bits.
  if (!code64()) value &= 0xffff_ffff;
  switch (register) {
    case 0:
      return setCr0(value);
    case 2:
      return store<u64>(CR2, value);
    case 3:
      return setCr3(value);
    case 4:
      return setCr4(value);
    default:
      setCr8(value);
  }
}

function setCr0(value: u64): void {
  if (value >> 32) raiseGP(0);
  value = (value & CR0_BITS) | CR0_ET;
  const old = load<u64>(CR0);
  if ((value & (CR0_PG | CR0_PE)) == CR0_PG) raiseGP(0);
  if ((value & (CR0_NW | CR0_CD)) == CR0_NW) raiseGP(0);
  if (value & CR0_PG && !(old & CR0_PG)) beginPaging();
  if (old & CR0_PG && !(value & CR0_PG)) endPaging();
  store<u64>(CR0, value);
  if ((old ^ value) & CR0_PAGING) flushTlb(true);
  modeChanged();
}

function beginPaging(): void {
  const cr4 = load<u64>(CR4);
  const efer = load<u64>(EFER);
  if (efer & EFER_LME) {
    if (!(cr4 & CR4_PAE) || code64AfterActivation()) raiseGP(0);
    store<u64>(EFER, efer | EFER_LMA);
  } else {
    if (cr4 & CR4_LA57) raiseGP(0);
    if (cr4 & CR4_PAE) loadPdptrs(load<u64>(CR3));
  }
}

/** Long mode begins in compatibility mode: CS.L must not be set yet. */
function code64AfterActivation(): bool {
  store<u64>(EFER, load<u64>(EFER) | EFER_LMA);
  const is64 = code64();
  store<u64>(EFER, load<u64>(EFER) & ~EFER_LMA);
  return is64;
}

function endPaging(): void {
  if (code64() || load<u64>(CR4) & CR4_PCIDE) raiseGP(0);
  store<u64>(EFER, load<u64>(EFER) & ~EFER_LMA);
}

function setCr3(value: u64): void {
  const cr4 = load<u64>(CR4);
  let keep = false;
  if (longMode()) {
    if (cr4 & CR4_PCIDE) {
      keep = (value & CR3_KEEP) != 0;
      value &= ~CR3_KEEP;
    }
    if (value & (load<u64>(RESERVED_ADDRESS) | 0xfff0_0000_0000_0000)) raiseGP(0);
  } else if (cr4 & CR4_PAE && load<u64>(CR0) & CR0_PG) {
    loadPdptrs(value);
  }
  const other = value != load<u64>(CR3);
  store<u64>(CR3, value);
  // The TLB has no PCIDs: what belongs to another address space goes.
  if (other || !keep) flushTlb(false);
  modeChanged();
}

/** Loads the four entries that PAE paging keeps, if none is malformed (SDM volume 3, 4.4.1). */
export function loadPdptrs(cr3: u64): void {
  const table = cr3 & 0xffff_ffe0;
  for (let i: u64 = 0; i < 4; i++) {
    if (isMalformed(physicalRead(table + i * 8, 8))) raiseGP(0);
  }
  for (let i: u64 = 0; i < 4; i++) {
    store<u64>(PDPTR + (<usize>i << 3), physicalRead(table + i * 8, 8));
  }
}

function isMalformed(entry: u64): bool {
  return (entry & 1) != 0 && (entry & (PDPTE_RESERVED | load<u64>(RESERVED_ADDRESS))) != 0;
}

/** After the state was set from outside: as `loadPdptrs`, leaving out what is malformed. */
export function reloadPdptrs(): void {
  const paging = (load<u64>(CR0) & CR0_PG) != 0 && (load<u64>(CR4) & CR4_PAE) != 0;
  if (!paging || longMode()) return;
  const table = load<u64>(CR3) & 0xffff_ffe0;
  for (let i: u64 = 0; i < 4; i++) {
    const entry = physicalRead(table + i * 8, 8);
    store<u64>(PDPTR + (<usize>i << 3), isMalformed(entry) ? 0 : entry);
  }
}

function setCr4(value: u64): void {
  const old = load<u64>(CR4);
  if (value & ~allowedCr4()) raiseGP(0);
  const paging = (load<u64>(CR0) & CR0_PG) != 0;
  if (longMode()) {
    if (!(value & CR4_PAE) || (old ^ value) & CR4_LA57) raiseGP(0);
  } else if (value & CR4_LA57 && paging) {
    raiseGP(0);
  }
  if (value & CR4_PCIDE && !(old & CR4_PCIDE)) {
    if (!longMode() || load<u64>(CR3) & 0xfff) raiseGP(0);
  }
  if (paging && !longMode() && value & CR4_PAE && (old ^ value) & CR4_PAGING) {
    loadPdptrs(load<u64>(CR3));
  }
  store<u64>(CR4, value);
  if ((old ^ value) & CR4_PAGING) flushTlb(true);
  modeChanged();
}

function setCr8(value: u64): void {
  if (value & ~0xf) raiseGP(0);
  store<u64>(CR8, value);
  cr8Changed();
}

/** WRMSR to EFER; what its bits need is in CPUID. */
export function setEfer(value: u64): void {
  const old = load<u64>(EFER);
  if (value & ~(allowedEfer() | EFER_LMA)) raiseGP(0);
  const paging = (load<u64>(CR0) & CR0_PG) != 0;
  if (paging && (old ^ value) & EFER_LME) raiseGP(0);
  store<u64>(EFER, (value & ~EFER_LMA) | (old & EFER_LMA));
  if ((old ^ value) & EFER_NXE) flushTlb(true);
  modeChanged();
}

/** LMSW: the lower four bits, of which it can set PE but not clear it. */
export function opLmsw(value: u64): void {
  requirePrivilege();
  const old = load<u64>(CR0);
  const bits = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
  setCr0((old & ~(bits & ~CR0_PE)) | (value & bits));
}

export function opSmsw(): u64 {
  requireUmip();
  return load<u64>(CR0);
}

export function opClts(): void {
  requirePrivilege();
  store<u64>(CR0, load<u64>(CR0) & ~CR0_TS);
  modeChanged();
}

/** INVLPG; an address that is not canonical is no error. */
export function opInvlpg(address: u64): void {
  requirePrivilege();
  flushPage(address);
}

/** INVPCID with its descriptor in memory. */
export function opInvpcid(kind: u64, seg: u32, ea: u64): void {
  requirePrivilege();
  const at = linear(seg, ea, 16, false);
  const pcid = read64(at);
  const address = read64(at + 8);
  if (kind > 3) raiseGP(0);
  if (kind < 2) {
    if (pcid & ~0xfff) raiseGP(0);
    if (pcid && !(load<u64>(CR4) & CR4_PCIDE)) raiseGP(0);
  }
  if (kind == 0 && !canonical(address)) raiseGP(0);
  if (kind == 0) flushPage(address);
  else flushTlb(kind == 2);
}

/** INVD and WBINVD: there is no cache. */
export function opWbinvd(): void {
  requirePrivilege();
}

function setPair(value: u64): void {
  setGpr(RAX, value & 0xffff_ffff);
  setGpr(RDX, value >> 32);
}

export function opXgetbv(): void {
  if (!(load<u64>(CR4) & CR4_OSXSAVE)) raiseUD();
  if (<u32>gpr(RCX) != 0) raiseGP(0);
  setPair(load<u64>(XCR0));
}

export function opXsetbv(): void {
  if (!(load<u64>(CR4) & CR4_OSXSAVE)) raiseUD();
  requirePrivilege();
  const value = (gpr(RAX) & 0xffff_ffff) | (gpr(RDX) << 32);
  if (<u32>gpr(RCX) != 0 || !(value & 1) || value & ~allowedXcr0()) raiseGP(0);
  store<u64>(XCR0, value);
}
