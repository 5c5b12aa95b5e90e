/**
 * A virtio device as a PCI function on one thread: configuration space, registers and messages together.
 *
 * @module
 */
import type { DeviceContext, Interrupt } from "../device.ts";
import type { SecondaryBus } from "../pci/bridge.ts";
import type { ConfigLayout, ConfigSpace } from "../pci/config_space.ts";
import type { Msix } from "../pci/msix.ts";
import { CapabilityField, type PciTransport } from "./pci.ts";
import type { InterruptMessages, Virtio } from "./virtio.ts";

/** The function's ranges, by their numbers. */
export const Range = { CONFIG: 0, REGISTERS: 1, MSIX: 2 } as const;
/** The base address registers of memories, as QEMU has them. */
export const BarNumber = { MSIX: 1, REGISTERS: 4 } as const;

/** What a function is made of. */
export interface PciFunctionParts {
  readonly layout: ConfigLayout;
  readonly config: ConfigSpace;
  readonly context: DeviceContext;
  readonly virtio: Virtio;
  readonly transport: PciTransport;
  readonly msix: Msix | undefined;
  /** The bus that it is on; undefined for the root bus. */
  readonly bus: SecondaryBus | undefined;
}

/** The interrupt line as far as configuration space lets the device have it. */
export function gatedLine(line: Interrupt, config: ConfigSpace, msix: Msix | undefined): Interrupt {
  return { set: (level) => line.set(level && config.hasLine && !msix?.isEnabled) };
}

/** Messages in place of the line. */
export function messagesOf(msix: Msix, transport: () => PciTransport): InterruptMessages {
  return {
    get isEnabled() {
      return msix.isEnabled;
    },
    send: (queue) => msix.notify(transport().vectorOf(queue)),
  };
}

/** The function. */
export class PciFunction {
  readonly #parts: PciFunctionParts;
  /** Where the window onto the registers is in configuration space. */
  readonly #window: number;

  /** @param parts what it is made of */
  constructor(parts: PciFunctionParts) {
    this.#parts = parts;
    this.#window = parts.layout.capabilities.at(-1)!;
    parts.bus?.attach(this.#placeAnew);
  }

  readonly #placeAnew = () => this.place();

  /** The function leaves its bus. */
  unplugged(): void {
    this.#parts.bus?.detach(this.#placeAnew);
  }

  /** Reads one of its ranges. */
  read(range: number, offset: number, size: number): number {
    if (range === Range.CONFIG) return this.#readConfig(offset, size);
    if (range === Range.REGISTERS) return this.#parts.transport.read(offset, size);
    return this.#parts.msix?.read(offset, size) ?? 0;
  }

  /** Writes one of its ranges. */
  write(range: number, offset: number, size: number, value: number): void {
    if (range === Range.CONFIG) this.#writeConfig(offset, size, value);
    else if (range === Range.REGISTERS) this.#parts.transport.write(offset, size, value);
    else this.#locked(() => this.#parts.msix?.write(offset, size, value));
  }

  /** Puts all that is PCI's back to how it is at power-on. */
  reset(): void {
    const { config, msix } = this.#parts;
    this.#locked(() => {
      config.reset();
      msix?.reset();
    });
    this.place();
  }

  /**
   * Puts the memories where the base address registers say, as far as accesses get there. The port in
   * front of it may do so on another thread: what the last one finds under the lock stays.
   */
  place(): void {
    const { layout, config, context, bus } = this.#parts;
    this.#locked(() => {
      if (bus) context.moveRange(Range.CONFIG, bus.configBase);
      for (const bar of layout.bars) {
        const range = bar.bar === BarNumber.REGISTERS ? Range.REGISTERS : Range.MSIX;
        const base = config.base(bar);
        const isReached = base !== undefined && (bus?.passes(base, bar.size) ?? true);
        context.moveRange(range, isReached ? base : undefined);
      }
    });
  }

  #readConfig(offset: number, size: number): number {
    const { config, virtio } = this.#parts;
    return this.#isWindow(offset, size)
      ? this.#throughWindow(size, (range, at) => this.read(range, at, size), 0)
      : config.read(offset, size, virtio.parts.state.isr !== 0);
  }

  #writeConfig(offset: number, size: number, value: number): void {
    if (this.#isWindow(offset, size)) {
      return this.#throughWindow(
        size,
        (range, at) => this.write(range, at, size, value),
        undefined,
      );
    }
    const { config, msix, virtio } = this.#parts;
    const couldUseMemory = config.isMaster;
    this.#locked(() => {
      config.write(offset, size, value);
      msix?.flush();
    });
    this.place();
    virtio.driveInterrupt();
    if (couldUseMemory && !config.isMaster) virtio.halt();
    // What the driver has made available before is found now.
    if (!couldUseMemory && config.isMaster) {
      for (const doorbell of virtio.parts.doorbells) doorbell.ring();
    }
  }

  #isWindow(offset: number, size: number): boolean {
    const data = this.#window + CapabilityField.DATA;
    return offset >= data && offset + size <= data + 4;
  }

  /** Does what the window's registers say: an access of their length, and not across the memory's end. */
  #throughWindow<T>(size: number, access: (range: number, offset: number) => T, otherwise: T): T {
    const { config, layout } = this.#parts;
    const bar = config.read(this.#window + CapabilityField.BAR, 1);
    const offset = config.read(this.#window + CapabilityField.OFFSET, 4);
    const length = config.read(this.#window + CapabilityField.LENGTH, 4);
    const memory = layout.bars.find((one) => one.bar === bar);
    const isGood = memory && length === size && offset % size === 0 &&
      offset + size <= memory.size;
    if (!isGood) return otherwise;
    return access(bar === BarNumber.REGISTERS ? Range.REGISTERS : Range.MSIX, offset);
  }

  #locked(action: () => void): void {
    const { line } = this.#parts.virtio.parts;
    line.lock();
    action();
    line.unlock();
  }
}
