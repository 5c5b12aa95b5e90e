/**
 * `gpex-pcihost`: a PCI Express root bus, and the function that is the bridge to it, as QEMU's.
 *
 * Configuration space is in memory, 4 KiB a function (ECAM, PCI Express 5.0, 7.2.2): each function of the
 * bus claims its own, and where there is none nobody answers, which reads as ones, as it should.
 *
 * @module
 */
import { defineDevice, type DeviceType } from "../device.ts";
import { ConfigLayout, ConfigSpace, configState, ECAM_SIZE } from "./config_space.ts";

/** Red Hat's, and what it calls the bridge. */
const VENDOR_ID = 0x1b36;
const DEVICE_ID = 0x0008;
/** Base class 6, subclass 0: a host bridge (PCI Code and ID Assignment 1.11, 1.7). */
const HOST_BRIDGE = 0x06_0000;

const layout = new ConfigLayout({
  vendorId: VENDOR_ID,
  deviceId: DEVICE_ID,
  revision: 0,
  classCode: HOST_BRIDGE,
  subsystemVendorId: 0x1af4,
  subsystemId: 0x1100,
  hasInterrupt: false,
  bars: [],
  capabilities: [],
});

/** The `gpex-pcihost` device type. */
export const hostBridge: DeviceType = defineDevice({
  name: "gpex-pcihost",
  help: "PCI Express root bus",
  user: false,
  bus: "main-system-bus",
  properties: {
    "config-base": { type: "uint32", default: 0xe000_0000, help: "address of configuration space" },
  },
  version: 1,
  state: configState,
  ranges: (properties) => [{
    space: "mmio",
    base: Number(properties["config-base"]),
    size: ECAM_SIZE,
    name: "pcie-ecam",
  }],
  irqs: () => [],
  create(state) {
    const config = new ConfigSpace(state, layout);
    return {
      read: (_range, offset, size) => config.read(offset, size),
      write: (_range, offset, size, value) => config.write(offset, size, value),
      reset: () => config.reset(),
    };
  },
});
