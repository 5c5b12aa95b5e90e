/**
 * What the tests of the command line share.
 *
 * @module
 */
import assert from "node:assert/strict";
import { defineDevice, type DeviceType, type PropertyDeclaration } from "../../devices/device.ts";
import { struct } from "../../ffi/struct.ts";
import { OptionError } from "../../vmm/options/error.ts";

function type(
  name: string,
  user: boolean,
  properties: Record<string, PropertyDeclaration>,
): DeviceType {
  return defineDevice({
    name,
    help: `${name} for tests`,
    user,
    properties,
    version: 1,
    state: struct(name, {}),
    ranges: () => [],
    irqs: () => [],
    create: () => ({ read: () => 0, write: () => {}, reset: () => {} }),
  });
}

/** A serial port, a device with properties of every type, and one that users cannot make. */
export const testDevices: readonly DeviceType[] = [
  type("isa-serial", true, {
    chardev: { type: "chardev", help: "backend" },
    index: { type: "uint32", help: "port" },
  }),
  type("gadget", true, {
    small: { type: "uint8", default: 3, help: "a byte" },
    middle: { type: "uint16", help: "two bytes" },
    big: { type: "uint32", help: "four bytes" },
    flag: { type: "bool", help: "a switch" },
    text: { type: "string", help: "a text" },
  }),
  type("board-chip", false, {}),
];

/** A command line as typed in a shell, without quoting. */
export const words = (line: string): string[] => line.split(" ").filter((word) => word !== "");

/** Asserts that `action` fails with exactly this line; `what` names the case. */
export function assertOptionError(action: () => unknown, message: string, what = message): void {
  assert.throws(action, (error) => {
    assert.ok(error instanceof OptionError, `${what}: ${error}`);
    assert.equal(error.message, message, what);
    return true;
  }, what);
}
