/**
 * `pci-config`: the PCI configuration ports of a machine that has no PCI.
 *
 * A guest probes mechanism #1 by writing 0x80000000 to 0xcf8 and reading it back, mechanism #2 by
 * writing zeros (PCI Local Bus Specification 2.1, 3.7.4). Ports that always read as ones fail both
 * probes, and firmware that reads 0xcfc without probing finds vendor 0xffff: no device there.
 *
 * @module
 */
import { struct } from "../../ffi/struct.ts";
import { defineDevice, type Device, type DeviceType } from "../device.ts";
import { ByteDevice } from "./isa.ts";

const state = struct("pci-config", {});

class PciConfig extends ByteDevice implements Device {
  protected readByte(): number {
    return 0xff;
  }

  protected writeByte(): void {}

  /** Nothing to do: the ports have no registers behind them. */
  reset(): void {}
}

/** The `pci-config` device type. */
export const pciConfig: DeviceType = defineDevice({
  name: "pci-config",
  help: "PCI configuration ports without PCI",
  user: false,
  properties: {},
  version: 1,
  state,
  ranges: () => [
    { space: "pio", base: 0xcf8, size: 4, name: "pci-conf-idx" },
    { space: "pio", base: 0xcfc, size: 4, name: "pci-conf-data" },
  ],
  irqs: () => [],
  create: () => new PciConfig(),
});
