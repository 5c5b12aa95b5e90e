// IRET in all modes (Intel SDM volume 2).
import { setFlags } from "./debug";
import { raiseGP } from "./fault";
import { NMI_MASKED } from "./layout";
import { modeChanged, read16System } from "./memory";
import {
  code64, cpl, CS, DS, ES, FLAG_AC, FLAG_ID, FLAG_IF, FLAG_IOPL, FLAG_NT, FLAG_RF, FLAG_TF,
  FLAG_VIF, FLAG_VIP, FLAG_VM, FLAGS_FIXED, FLAGS_USER, FS, GS, iopl, jump, longMode,
  protectedMode, readFlags, segmentBase, segmentLimit, setGpr, SS, TR, virtual8086, RSP,
} from "./registers";
import { descriptorAttributes, descriptorLimit, loadParagraph, markAccessed } from "./segment";
import { checkTarget, dropFromStack, peek } from "./stack";
import { BY_IRET, switchTask } from "./task";
import { checkReturnCode, checkReturnStack, isLongCode, loadCode, returnOutward } from "./transfer";

/** Which flags IRET takes from the stack at a privilege level. */
function takenFlags(level: u32, size: u32): u64 {
  let taken = FLAGS_USER | FLAG_TF | FLAG_NT;
  if (size != 2) taken |= FLAG_RF | FLAG_AC | FLAG_ID;
  if (level <= iopl()) taken |= FLAG_IF;
  if (level == 0) {
    taken |= FLAG_IOPL;
    if (size != 2) taken |= FLAG_VIF | FLAG_VIP;
  }
  return taken;
}

/** EFLAGS after popping a value with so many bytes' worth of flags. */
export function mergedFlags(popped: u64, taken: u64): u64 {
  return (readFlags() & ~taken) | (popped & taken) | FLAGS_FIXED;
}

/** IRET, IRETD, IRETQ. */
export function opIret(size: u32): void {
  // NMIs come again even if this faults (SDM volume 3, 6.7.1).
  store<u32>(NMI_MASKED, 0);
  modeChanged();
  if (!protectedMode()) return returnParagraph(size, takenFlags(0, size) & ~(FLAG_VIF | FLAG_VIP));
  if (virtual8086()) {
    if (iopl() < 3) raiseGP(0);
    return returnParagraph(size, takenFlags(3, size));
  }
  if (readFlags() & FLAG_NT) {
    if (longMode()) raiseGP(0);
    return switchTask(read16System(segmentBase(TR)), BY_IRET, 0);
  }
  const offset = peek(0, size);
  const selector = <u32>peek(size, size) & 0xffff;
  const flags = peek(2 * size, size);
  if (size == 4 && flags & FLAG_VM && cpl() == 0 && !longMode()) {
    return enterVirtual(offset, selector, flags);
  }
  returnProtected(offset, selector, flags, size);
}

/** Within real mode, and within virtual-8086 mode, whose IOPL stays what it is. */
function returnParagraph(size: u32, taken: u64): void {
  const offset = peek(0, size);
  const selector = <u32>peek(size, size) & 0xffff;
  const flags = peek(2 * size, size);
  if (offset > segmentLimit(CS)) raiseGP(0);
  dropFromStack(3 * size);
  loadParagraph(CS, selector);
  jump(offset);
  setFlags(mergedFlags(flags, taken));
}

/** From level 0 to virtual-8086 mode. */
function enterVirtual(offset: u64, selector: u32, flags: u64): void {
  const pointer = peek(12, 4);
  const stack = <u32>peek(16, 4);
  const es = <u32>peek(20, 4);
  const ds = <u32>peek(24, 4);
  const fs = <u32>peek(28, 4);
  const gs = <u32>peek(32, 4);
  offset &= 0xffff;
  setFlags(mergedFlags(flags, takenFlags(0, 4) | FLAG_VM));
  loadParagraph(CS, selector);
  loadParagraph(SS, stack & 0xffff);
  loadParagraph(ES, es & 0xffff);
  loadParagraph(DS, ds & 0xffff);
  loadParagraph(FS, fs & 0xffff);
  loadParagraph(GS, gs & 0xffff);
  setGpr(RSP, pointer);
  jump(offset);
  modeChanged();
}

function returnProtected(offset: u64, selector: u32, flags: u64, size: u32): void {
  const descriptor = checkReturnCode(selector);
  const attributes = descriptorAttributes(descriptor);
  const level = selector & 3;
  const taken = takenFlags(cpl(), size);
  const long = isLongCode(attributes);
  if (!code64() && level == cpl()) {
    checkTarget(offset, long, descriptorLimit(descriptor), 0);
    const accessed = markAccessed(selector, descriptor);
    dropFromStack(3 * size);
    loadCode(selector, accessed, level);
  } else {
    const pointer = peek(3 * size, size);
    const stackSelector = <u32>peek(4 * size, size) & 0xffff;
    const stack = checkReturnStack(stackSelector, level, long);
    checkTarget(offset, long, descriptorLimit(descriptor), 0);
    const accessed = markAccessed(selector, descriptor);
    returnOutward(selector, accessed, stackSelector, stack, pointer, size);
  }
  jump(offset);
  setFlags(mergedFlags(flags, taken));
}
