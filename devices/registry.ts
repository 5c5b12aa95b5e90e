/**
 * All device types, one line each.
 *
 * @module
 */
import { isaDebugExit } from "./debug_exit.ts";
import { isaDebugcon } from "./debugcon.ts";
import type { DeviceType } from "./device.ts";
import { i8042 } from "./i8042.ts";
import { pciConfig } from "./pci_config.ts";
import { port92 } from "./port92.ts";
import { mc146818rtc } from "./rtc.ts";
import { isaSerial } from "./serial.ts";

/** Every kind of device that exists, in the order of `-device help`. */
export const deviceTypes: readonly DeviceType[] = [
  i8042,
  isaDebugExit,
  isaDebugcon,
  isaSerial,
  mc146818rtc,
  pciConfig,
  port92,
];
