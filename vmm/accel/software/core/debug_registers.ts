// MOV from and to debug registers (Intel SDM volume 3, 18.2).
import { DR6_BD, DR7_GD, debugRegistersChanged, raiseDebug } from "./debug";
import { raiseGP, raiseUD } from "./fault";
import { CR4, DR, DR6, DR7 } from "./layout";
import { requirePrivilege } from "./control_registers";
import { code64, CR4_DE } from "./registers";

// What can be written, and what is always 1.
const DR6_WRITABLE: u64 = 0xe00f;
const DR6_FIXED: u64 = 0xffff_0ff0;
const DR7_WRITABLE: u64 = 0xffff_2bff;
const DR7_FIXED: u64 = 0x400;

/** The register that a number means, after the checks of every access. */
function checked(register: u32): u32 {
  requirePrivilege();
  if (register > 7) raiseUD();
  if (register == 4 || register == 5) {
    if (load<u64>(CR4) & CR4_DE) raiseUD();
    register += 2;
  }
  if (load<u64>(DR7) & DR7_GD) raiseDebug(DR6_BD);
  return register;
}

export function opMovFromDr(register: u32): u64 {
  register = checked(register);
  if (register < 4) return load<u64>(DR + (<usize>register << 3));
  return load<u64>(register == 6 ? DR6 : DR7);
}

/** MOV to a debug register; ends a block. */
export function opMovToDr(register: u32, value: u64): void {
  register = checked(register);
  if (!code64()) value &= 0xffff_ffff;
  if (register < 4) {
    store<u64>(DR + (<usize>register << 3), value);
  } else {
    if (value >> 32) raiseGP(0);
    if (register == 6) store<u64>(DR6, (value & DR6_WRITABLE) | DR6_FIXED);
    else store<u64>(DR7, (value & DR7_WRITABLE) | DR7_FIXED);
  }
  debugRegistersChanged();
}
