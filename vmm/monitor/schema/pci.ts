/**
 * Schemas of the command about PCI (QAPI pci.json).
 *
 * @module
 */
import { z } from "zod";

const region = z.strictObject({
  bar: z.int(),
  type: z.string(),
  /** -1 while it is not decoded. */
  address: z.int(),
  size: z.int(),
  prefetch: z.boolean().optional(),
  mem_type_64: z.boolean().optional(),
});

const range = z.strictObject({ base: z.int(), limit: z.int() });

const bridge = z.strictObject({
  bus: z.strictObject({
    number: z.int(),
    secondary: z.int(),
    subordinate: z.int(),
    io_range: range,
    memory_range: range,
    prefetchable_range: range,
  }),
  get devices() {
    return z.array(pciDevice).optional();
  },
});

const pciDevice = z.strictObject({
  bus: z.int(),
  slot: z.int(),
  function: z.int(),
  class_info: z.strictObject({ desc: z.string().optional(), class: z.int() }),
  id: z.strictObject({
    device: z.int(),
    vendor: z.int(),
    subsystem: z.int().optional(),
    "subsystem-vendor": z.int().optional(),
  }),
  irq: z.int().optional(),
  irq_pin: z.int(),
  qdev_id: z.string(),
  pci_bridge: bridge.optional(),
  regions: z.array(region),
});

/** `query-pci` */
export const queryPci = {
  returns: z.array(z.strictObject({ bus: z.int(), devices: z.array(pciDevice) })),
};
