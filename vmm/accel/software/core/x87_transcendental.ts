// F2XM1, FYL2X, FPTAN, FPATAN, FYL2XP1, FSINCOS, FSIN, FCOS.
import { raiseUD } from "./fault";

/** Executes one of them, by its ModRM byte. */
export function transcendental(modrm: u32): void {
  raiseUD();
}
