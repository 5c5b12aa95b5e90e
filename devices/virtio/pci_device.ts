/**
 * Virtio devices as functions of a PCI Express bus, without the interface of before virtio 1.
 *
 * @module
 */
import { array, type Fields, struct } from "../../ffi/struct.ts";
import {
  defineDevice,
  type DeviceType,
  type Properties,
  type RangeDeclaration,
  withDefaults,
} from "../device.ts";
import { busOf } from "../pci/bridge.ts";
import { ConfigLayout, ConfigSpace, configState, ECAM_SIZE } from "../pci/config_space.ts";
import { MAX_VECTORS, Msix, msixCapability, msixPlaces, msixState } from "../pci/msix.ts";
import {
  doorbellOffset,
  PciTransport,
  REGISTERS_SIZE,
  transportCapabilities,
  transportState,
} from "./pci.ts";
import { BarNumber, gatedLine, messagesOf, PciFunction } from "./pci_function.ts";
import { virtqueue } from "./ring.ts";
import { commonProperties, LINE, LOCKS, makeVirtio, type VirtioDeviceType } from "./virtio_kind.ts";
import { virtioState } from "./virtio_state.ts";

/** Virtio's vendor, and what is added to a kind's number (virtio 1.2, 4.1.2). */
const VENDOR_ID = 0x1af4;
const FIRST_DEVICE_ID = 0x1040;
/** At least 1: not a transitional device. */
const REVISION = 1;
/** QEMU's number of a card that is none in particular. */
const SUBSYSTEM_ID = 0x1100;
/** Base class 0, subclass 255: none of those that there are numbers for. */
const OTHER_CLASS = 0x00_ff00;

const pciProperties = {
  addr: {
    type: "string",
    help: "slot on the bus, in hexadecimal; the first one that is free without",
    unseen: true,
  },
  bus: { type: "string", help: "bus that it is on: pcie.0, or a port's by its id", unseen: true },
  vectors: { type: "uint32", help: "interrupt messages; one a queue and one more without" },
  "disable-legacy": {
    type: "string",
    default: "auto",
    help: "on or auto: virtio 1 only",
    unseen: true,
  },
  "disable-modern": { type: "bool", default: false, help: "off: virtio 1", unseen: true },
  romfile: { type: "string", default: "", help: "there are no option ROMs", unseen: true },
  // Where the machine has put it, which no user says; a port in front of it says where that is.
  "config-base": { type: "uint32", internal: true, help: "address of its configuration space" },
  irq: { type: "uint32", internal: true, help: "interrupt of its wire" },
} as const;

/** @throws {Error} that says what there is not */
function checkPci(kind: VirtioDeviceType<Fields>, properties: Properties): void {
  const legacy = properties["disable-legacy"];
  if (legacy !== "on" && legacy !== "auto") {
    throw new Error(`Property 'disable-legacy' does not accept value '${legacy}': on or auto`);
  }
  if (properties["disable-modern"]) {
    throw new Error(
      "Property 'disable-modern' does not accept value 'on': virtio 1 is all there is",
    );
  }
  if (properties.romfile !== "") {
    throw new Error(`failed to find romfile "${properties.romfile}": there are no option ROMs`);
  }
  const vectors = vectorsOf(kind, properties);
  if (vectors > MAX_VECTORS) {
    throw new Error(`vectors property must be at most ${MAX_VECTORS}, not ${vectors}`);
  }
}

function vectorsOf(kind: VirtioDeviceType<Fields>, properties: Properties): number {
  const usual = kind.pciVectors ?? kind.queueSizes(properties).length + 1;
  return Number(properties.vectors ?? usual);
}

function configRange({ "config-base": base }: Properties): RangeDeclaration {
  const range = { space: "mmio", size: ECAM_SIZE, name: "pcie-ecam" } as const;
  return base === undefined ? range : { ...range, base: Number(base) };
}

function configLayout(kind: VirtioDeviceType<Fields>, vectors: number): ConfigLayout {
  const hasMessages = vectors > 0;
  return new ConfigLayout({
    vendorId: VENDOR_ID,
    deviceId: FIRST_DEVICE_ID + kind.deviceId,
    revision: REVISION,
    classCode: kind.pciClass ?? OTHER_CLASS,
    subsystemVendorId: VENDOR_ID,
    subsystemId: SUBSYSTEM_ID,
    hasInterrupt: true,
    bars: [
      { bar: BarNumber.REGISTERS, size: REGISTERS_SIZE, wide: true },
      ...hasMessages ? [{ bar: BarNumber.MSIX, size: msixPlaces(vectors).size, wide: false }] : [],
    ],
    capabilities: [
      ...hasMessages ? [msixCapability(vectors, BarNumber.MSIX)] : [],
      ...transportCapabilities(BarNumber.REGISTERS),
    ],
  });
}

/** Makes a device type that is a PCI function. */
export function behindPci<F extends Fields>(given: VirtioDeviceType<F>): DeviceType {
  const name = given.name.replace(/-device$/, "-pci");
  const kind: VirtioDeviceType<F> = { ...given, name };
  const layout = (properties: Properties) => {
    const queues = kind.queueSizes(properties).length;
    const vectors = vectorsOf(kind, properties);
    return {
      version: kind.version,
      state: struct(name, {
        config: configState,
        transport: transportState(queues),
        msix: msixState(vectors),
        virtio: virtioState,
        queues: array(virtqueue, queues),
        device: kind.state,
      }),
    };
  };
  const properties = { ...commonProperties, ...pciProperties, ...kind.properties };
  return defineDevice({
    ...layout(withDefaults({ properties }, {})),
    layout,
    name,
    help: kind.help,
    user: true,
    properties,
    timers: kind.timers,
    locks: LOCKS,
    bus: "PCI",
    check(properties) {
      kind.check?.(properties);
      checkPci(kind, properties);
    },
    ranges: (properties) => [
      configRange(properties),
      { space: "mmio", size: REGISTERS_SIZE, name },
      ...vectorsOf(kind, properties) === 0 ? [] : [{
        space: "mmio",
        size: msixPlaces(vectorsOf(kind, properties)).size,
        name: "msix",
      }] as const,
    ],
    irqs: (properties) => [Number(properties.irq)],
    vhostUser: kind.vhostUser,
    doorbells: (properties) =>
      kind.queueSizes(properties).map((_, value) => ({
        range: 1,
        offset: doorbellOffset(value),
        value,
      })),
    create(state, context, properties) {
      const vectors = vectorsOf(kind, properties);
      const layout = configLayout(kind, vectors);
      const config = new ConfigSpace(state.config, layout);
      const send = (address: number, data: number) => {
        if (config.isMaster) context.sendMsi(address, data);
      };
      const msix = vectors === 0
        ? undefined
        : new Msix(state.msix, config, layout.capabilities[0], send);
      const made = makeVirtio({
        kind,
        state,
        context,
        properties,
        interrupt: gatedLine(context.interrupts[0], config, msix),
        messages: msix && messagesOf(msix, () => transport),
        mayUseMemory: () => config.isMaster,
      });
      const { virtio } = made;
      const line = context.locks[LINE];
      const resetDevice = () => {
        made.reset();
        transport.reset();
        line.lock();
        msix?.forget();
        line.unlock();
      };
      const transport: PciTransport = new PciTransport({
        ...{ state: state.transport, virtio, vectors, config: made.config, resetDevice },
      });
      const bus = busOf(context.parent?.provides);
      const device = new PciFunction({ layout, config, context, virtio, transport, msix, bus });
      return {
        ...made.calls,
        read: (range, offset, size) => device.read(range, offset, size),
        write: (range, offset, size, value) => device.write(range, offset, size, value),
        reset() {
          resetDevice();
          device.reset();
        },
        unplugged: () => device.unplugged(),
        restored() {
          device.place();
          virtio.driveInterrupt();
          made.backend.restored?.();
        },
      };
    },
  });
}
