/**
 * All device types, one line each.
 *
 * @module
 */
import { acpiGed } from "./acpi/ged.ts";
import { vmgenid } from "./acpi/vmgenid.ts";
import { ioapic } from "./ioapic.ts";
import { isaDebugExit } from "./isa/debug_exit.ts";
import { isaDebugcon } from "./isa/debugcon.ts";
import type { DeviceType } from "./device.ts";
import { i8042 } from "./isa/i8042.ts";
import { pciConfig } from "./isa/pci_config.ts";
import { hostBridge } from "./pci/host_bridge.ts";
import { rootPort } from "./pci/root_port.ts";
import { port92 } from "./isa/port92.ts";
import { mc146818rtc } from "./isa/rtc.ts";
import { isaSerial } from "./isa/serial.ts";
import { fwCfg } from "./isa/fw_cfg.ts";
import { vhostUserBlk } from "./virtio/vhost_user_blk.ts";
import { vhostUserFs } from "./virtio/vhost_user_fs.ts";
import { virtioBalloon } from "./virtio/balloon.ts";
import { virtioBlk } from "./virtio/blk.ts";
import { virtioNet } from "./virtio/net.ts";
import { virtioRng } from "./virtio/rng.ts";
import { virtioSerial } from "./virtio/serial.ts";
import { vhostVsock } from "./virtio/vsock.ts";
import { virtconsole, virtserialport } from "./virtio/serial_port.ts";

/** Every kind of device that exists, in the order of `-device help`. */
export const deviceTypes: readonly DeviceType[] = [
  acpiGed,
  fwCfg,
  hostBridge,
  i8042,
  ioapic,
  isaDebugExit,
  isaDebugcon,
  isaSerial,
  mc146818rtc,
  pciConfig,
  rootPort,
  port92,
  vhostUserBlk,
  vhostUserBlk.pci,
  vhostUserFs,
  vhostUserFs.pci,
  vhostVsock,
  vhostVsock.pci,
  virtioBalloon,
  virtioBalloon.pci,
  virtioBlk,
  virtioBlk.pci,
  virtioNet,
  virtioNet.pci,
  virtioRng,
  virtioRng.pci,
  virtioSerial,
  virtioSerial.pci,
  virtconsole,
  virtserialport,
  vmgenid,
];
