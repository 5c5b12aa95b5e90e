/**
 * The Virtual Machine Generation ID as the machine has it.
 *
 * @module
 */
import { parseGuid } from "../../devices/acpi/vmgenid.ts";
import type { DeviceRequest } from "../bus/device_set.ts";

/** @throws {Error} if there are two generation IDs, or no ACPI to tell of one */
export function checkGenerationId(requests: readonly DeviceRequest[], acpi: boolean): void {
  const count = requests.filter(({ type }) => type === "vmgenid").length;
  if (count > 1) throw new Error("at most one vmgenid device is permitted");
  if (count > 0 && !acpi) {
    throw new Error("vmgenid requires ACPI, which -machine acpi=off turns off");
  }
}

/** The generation ID that a VM begins with. */
export function generationOf({ properties }: DeviceRequest): Uint8Array<SharedArrayBuffer> {
  const guid = new Uint8Array(new SharedArrayBuffer(16));
  guid.set(parseGuid(properties.guid ?? "auto") ?? crypto.getRandomValues(new Uint8Array(16)));
  return guid;
}
