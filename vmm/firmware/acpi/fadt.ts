/**
 * The Fixed ACPI Description Table of a machine without ACPI's fixed hardware (ACPI 6.5, 5.2.9).
 *
 * @module
 */
import { GED, GedRegister, RESET_VALUE } from "../../../devices/acpi/ged.ts";
import { HEADER_SIZE, type Oem, table } from "./table.ts";

/** Offsets of the fields that are not zero. */
const Field = {
  DSDT: 40,
  BOOT_FLAGS: 109,
  FLAGS: 112,
  RESET_REGISTER: 116,
  RESET_VALUE: 128,
  MINOR_VERSION: 131,
  X_DSDT: 140,
  SLEEP_CONTROL: 244,
  SLEEP_STATUS: 256,
  HYPERVISOR: 268,
} as const;

/** Where a FADT has the 64-bit address of the DSDT. */
export const FADT_X_DSDT: number = Field.X_DSDT;

/** Bytes of revision 6. */
const SIZE = 276;
const REVISION = 6;
const MINOR_REVISION = 3;

/** What there is of a PC (Table 5.10). */
const BootFlag = { I8042: 1 << 1, NO_VGA: 1 << 2, NO_CMOS_RTC: 1 << 5 } as const;

/** Features (Table 5.9); a button is no fixed hardware where its bit is set. */
const Flag = {
  WBINVD: 1 << 0,
  POWER_BUTTON: 1 << 4,
  SLEEP_BUTTON: 1 << 5,
  RESET_REGISTER: 1 << 10,
  HARDWARE_REDUCED: 1 << 20,
} as const;

/**
 * Makes the table.
 *
 * @param rtc whether there is a CMOS clock
 * @param dsdt guest physical address of the DSDT
 */
export function fadt(oem: Oem, rtc: boolean, dsdt: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SIZE);
  const view = new DataView(bytes.buffer);
  const bootFlags = BootFlag.I8042 | BootFlag.NO_VGA | (rtc ? 0 : BootFlag.NO_CMOS_RTC);
  const flags = Flag.WBINVD | Flag.POWER_BUTTON | Flag.SLEEP_BUTTON | Flag.RESET_REGISTER |
    Flag.HARDWARE_REDUCED;
  view.setUint16(Field.BOOT_FLAGS, bootFlags, true);
  view.setUint32(Field.FLAGS, flags, true);
  setRegister(view, Field.SLEEP_CONTROL, GED.registers + GedRegister.SLEEP_CONTROL);
  setRegister(view, Field.SLEEP_STATUS, GED.registers + GedRegister.SLEEP_STATUS);
  setRegister(view, Field.RESET_REGISTER, GED.registers + GedRegister.RESET);
  bytes[Field.RESET_VALUE] = RESET_VALUE;
  bytes[Field.MINOR_VERSION] = MINOR_REVISION;
  view.setBigUint64(Field.X_DSDT, BigInt(dsdt), true);
  bytes.set(new TextEncoder().encode("Denovo"), Field.HYPERVISOR);
  return table("FACP", REVISION, oem, bytes.subarray(HEADER_SIZE));
}

/** A generic address structure (5.2.3.2): a register of one byte in memory. */
function setRegister(view: DataView, offset: number, address: number): void {
  view.setUint8(offset, 0); // system memory
  view.setUint8(offset + 1, 8); // bits
  view.setUint8(offset + 3, 1); // accesses of one byte
  view.setBigUint64(offset + 4, BigInt(address), true);
}
