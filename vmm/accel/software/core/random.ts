// RDRAND and RDSEED, from the host's random numbers.
import { hasFeature } from "./cpuid";
import { raiseUD } from "./fault";
import { CF, setArithmetic } from "./flags";
import { sizeOf, truncate, writeRegister } from "./operand";
import { OP_DST, OP_IMMEDIATE } from "./record";

@external("env", "random")
declare function random(): u32;

export function hostRandom(op: usize): void {
  const seed = (load<u8>(op, OP_IMMEDIATE) & 7) == 7;
  if (!(seed ? hasFeature(7, 1, 18) : hasFeature(1, 2, 30))) raiseUD();
  const low = random() as u64;
  const value = low | ((random() as u64) << 32);
  const size = sizeOf(op);
  writeRegister(load<u16>(op, OP_DST), size, truncate(value, size));
  setArithmetic(CF);
}
