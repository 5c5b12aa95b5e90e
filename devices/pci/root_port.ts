/**
 * `pcie-root-port`: a port of the PCI Express root bus with a bus of its own behind it, on which there is
 * room for one device, as QEMU's.
 *
 * @module
 */
import { type Struct, struct, u32, type View } from "../../ffi/struct.ts";
import {
  defineDevice,
  type Device,
  type DeviceContext,
  type DeviceType,
  type Properties,
  type Slot,
} from "../device.ts";
import { SecondaryBus } from "./bridge.ts";
import {
  BridgeRegister,
  type CapabilityDescription,
  ConfigLayout,
  ConfigSpace,
  configState,
  ECAM_SIZE,
} from "./config_space.ts";
import { HotplugSlot, slotCapability } from "./hotplug_slot.ts";
import { Msix, msixCapability, msixPlaces, msixState } from "./msix.ts";

/** Red Hat's, and what it calls the port; the same bridge for firmware that asks for the subsystem. */
const VENDOR_ID = 0x1b36;
const DEVICE_ID = 0x000c;
/** Base class 6, subclass 4: a bridge from PCI to PCI (PCI Code and ID Assignment 1.11, 1.7). */
const PCI_BRIDGE = 0x06_0400;
/** One message is for all that happens. */
const VECTORS = 1;
const MSIX_BAR = 0;
/** The numbers of its ranges. */
const Range = { CONFIG: 0, MSIX: 1 } as const;
/** A window that begins behind its end: nothing gets through. */
const CLOSED = 0xfff0;

const fields = {
  config: configState,
  msix: msixState(VECTORS),
  /** The slot status register. */
  slot_status: u32,
  /** Whether the driver was told by an interrupt, for which a message is sent once. */
  interrupt: u32,
};
const state: Struct<typeof fields> = struct("pcie-root-port", fields);

/** The subsystem's ids, which a bridge's header has no place for (PCI-to-PCI Bridge 1.2, 3.2.5.13). */
const subsystem: CapabilityDescription = {
  id: 0x0d,
  body: Uint8Array.of(0, 0, VENDOR_ID & 0xff, VENDOR_ID >> 8, 0, 0),
};

function configLayout({ port, slot, hotplug }: Properties): ConfigLayout {
  return new ConfigLayout({
    vendorId: VENDOR_ID,
    deviceId: DEVICE_ID,
    revision: 0,
    classCode: PCI_BRIDGE,
    subsystemVendorId: 0,
    subsystemId: 0,
    isBridge: true,
    hasInterrupt: true,
    bars: [{ bar: MSIX_BAR, size: msixPlaces(VECTORS).size, wide: false }],
    capabilities: [
      subsystem,
      msixCapability(VECTORS, MSIX_BAR),
      slotCapability({ port: Number(port), slot: Number(slot), hotplug: hotplug === true }),
    ],
  });
}

class RootPort implements Device {
  readonly provides: SecondaryBus;
  readonly slot: Slot;
  readonly #slot: HotplugSlot;
  readonly #state: View<typeof fields>;
  readonly #context: DeviceContext;
  readonly #layout: ConfigLayout;
  readonly #config: ConfigSpace;
  readonly #msix: Msix;

  constructor(state: View<typeof fields>, context: DeviceContext, properties: Properties) {
    this.#state = state;
    this.#context = context;
    this.#layout = configLayout(properties);
    this.#config = new ConfigSpace(state.config, this.#layout);
    const [, msix, slot] = this.#layout.capabilities;
    this.#msix = new Msix(state.msix, this.#config, msix, (address, data) => {
      if (this.#config.isMaster) context.sendMsi(address, data);
    });
    this.#slot = new HotplugSlot(state, this.#config, slot);
    this.slot = this.#tellingSlot();
    const ecam = Number(properties["ecam-base"]);
    this.provides = new SecondaryBus(this.#config, ecam, () => this.#slot.isPowered);
  }

  read(range: number, offset: number, size: number): number {
    if (range === Range.MSIX) return this.#msix.read(offset, size);
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 256 + this.#readByte(offset + i);
    return value;
  }

  write(range: number, offset: number, size: number, value: number): void {
    if (range === Range.MSIX) return this.#msix.write(offset, size, value);
    const isGivenUp = this.#slot.written(offset, size, value, () => {
      this.#config.write(offset, size, value);
    });
    this.#msix.flush();
    this.#place();
    this.#slotChanged();
    // The main thread takes it out, and tells the user.
    if (isGivenUp) this.#context.request({ kind: "slot-change" });
  }

  reset(): void {
    this.#config.reset();
    this.#config.write(BridgeRegister.MEMORY_BASE, 2, CLOSED);
    this.#config.write(BridgeRegister.PREFETCHABLE_BASE, 2, CLOSED);
    this.#slot.reset(this.provides.functions > 0);
    this.#msix.reset();
    this.#place();
    this.#slotChanged();
  }

  restored(): void {
    this.#place();
    this.#driveLine();
  }

  /** Tells the driver of what has happened to the slot, if it wants to know: a message is sent once for it. */
  #slotChanged(): void {
    const before = this.#state.interrupt !== 0;
    const now = this.#slot.wantsInterrupt;
    this.#state.interrupt = now ? 1 : 0;
    if (now && !before && this.#msix.isEnabled) this.#msix.notify(0);
    this.#driveLine();
  }

  /** The slot as the machine has it: the driver is told of what happens to it. */
  #tellingSlot(): Slot {
    const slot = this.#slot;
    const told = (action: () => void) => {
      action();
      this.#place();
      this.#slotChanged();
    };
    return {
      get isOccupied() {
        return slot.isOccupied;
      },
      get isBusy() {
        return slot.isBusy;
      },
      get isOff() {
        return slot.isOff;
      },
      fill: () => told(() => slot.fill()),
      pressButton: () => told(() => slot.pressButton()),
      empty: () => told(() => slot.empty()),
    };
  }

  #driveLine(): void {
    const isHigh = this.#state.interrupt !== 0 && this.#config.hasLine && !this.#msix.isEnabled;
    this.#context.interrupts[0].set(isHigh);
  }

  /** Its own memory, and what is behind it. */
  #place(): void {
    this.#context.moveRange(Range.MSIX, this.#config.base(this.#layout.bars[0]));
    this.provides.changed();
  }

  #readByte(offset: number): number {
    const isHigh = this.#state.interrupt !== 0;
    return this.#slot.read(offset) ?? this.#config.read(offset, 1, isHigh);
  }
}

/** The `pcie-root-port` device type. */
export const rootPort: DeviceType = defineDevice({
  name: "pcie-root-port",
  help: "PCI Express Root Port",
  user: true,
  bus: "PCI",
  properties: {
    addr: {
      type: "string",
      help: "slot on the bus, in hexadecimal; the first one that is free without",
      unseen: true,
    },
    bus: { type: "string", help: "bus that it is on, pcie.0", unseen: true },
    chassis: { type: "uint8", default: 0, help: "number of the chassis that its slot is in" },
    hotplug: { type: "bool", default: true, help: "its device may come and go" },
    port: { type: "uint8", default: 0, help: "number of the port, of its link" },
    slot: {
      type: "uint16",
      default: 0,
      help: "number of the slot, other than its chassis's others",
    },
    // Where the machine has put it, which no user says.
    "config-base": { type: "uint32", internal: true, help: "address of its configuration space" },
    "ecam-base": { type: "uint32", internal: true, help: "address of that of bus 0" },
    irq: { type: "uint32", internal: true, help: "interrupt of its wire" },
  },
  version: 1,
  state,
  check({ slot }) {
    if (Number(slot) > MOST_SLOT) {
      throw new Error(`Property 'slot' does not accept value '${slot}': at most ${MOST_SLOT}`);
    }
  },
  ranges: (properties) => [
    {
      space: "mmio",
      base: Number(properties["config-base"]),
      size: ECAM_SIZE,
      name: "pcie-ecam",
    },
    { space: "mmio", size: msixPlaces(VECTORS).size, name: "msix" },
  ],
  irqs: (properties) => [Number(properties.irq)],
  create: (state, context, properties) => new RootPort(state, context, properties),
});

/** The number has 13 bits (PCI Express 5.0, 7.5.3.9). */
const MOST_SLOT = 0x1fff;
