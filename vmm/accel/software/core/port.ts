// Ports: IN, OUT and the string forms.
import { portBreakpoint } from "./debug";
import { ioCheck } from "./privileged";

@external("env", "portIn")
declare function portIn(port: u32, size: u32): u32;
@external("env", "portOut")
declare function portOut(port: u32, size: u32, value: u32): void;

/** Reads a port of 1, 2 or 4 bytes, if the guest may; operands of eight bytes are of four. */
export function inPort(port: u32, size: u32): u32 {
  ioCheck(port, size);
  const value = portIn(port, size);
  portBreakpoint(port, size);
  return value;
}

/** Writes a port, if the guest may. */
export function outPort(port: u32, size: u32, value: u32): void {
  ioCheck(port, size);
  portOut(port, size, value);
  portBreakpoint(port, size);
}
