/**
 * The configuration space of a PCI function: the header of type 0, or of type 1 for a bridge, base
 * addresses and capabilities (PCI Local Bus Specification 3.0, chapter 6; PCI-to-PCI Bridge Architecture
 * Specification 1.2, chapter 3).
 *
 * What a driver cannot write is made of the function's description, on every thread and in every version;
 * what it can is all that is state. So no saved state can make a function another one.
 *
 * @module
 */
import { bytes, type Struct, struct, type View } from "../../ffi/struct.ts";

/** Bytes of it; functions of PCI Express have more, of which these have nothing. */
export const CONFIG_SIZE = 256;
/** How much of it each function has on the bus (PCI Express 5.0, 7.2.2). */
export const ECAM_SIZE = 4096;

/** Offsets (6.1). */
export const Register = {
  VENDOR_ID: 0x00,
  DEVICE_ID: 0x02,
  COMMAND: 0x04,
  STATUS: 0x06,
  REVISION: 0x08,
  CLASS: 0x09,
  CACHE_LINE_SIZE: 0x0c,
  HEADER_TYPE: 0x0e,
  BAR0: 0x10,
  SUBSYSTEM_VENDOR_ID: 0x2c,
  SUBSYSTEM_ID: 0x2e,
  CAPABILITIES: 0x34,
  INTERRUPT_LINE: 0x3c,
  INTERRUPT_PIN: 0x3d,
  /** Behind the header. */
  FIRST_CAPABILITY: 0x40,
} as const;

/** Offsets that only a bridge has (PCI-to-PCI Bridge 1.2, 3.2). */
export const BridgeRegister = {
  PRIMARY_BUS: 0x18,
  SECONDARY_BUS: 0x19,
  SUBORDINATE_BUS: 0x1a,
  MEMORY_BASE: 0x20,
  MEMORY_LIMIT: 0x22,
  PREFETCHABLE_BASE: 0x24,
  PREFETCHABLE_LIMIT: 0x26,
  PREFETCHABLE_BASE_HIGH: 0x28,
  PREFETCHABLE_LIMIT_HIGH: 0x2c,
  CONTROL: 0x3e,
} as const;

/** Bits of the command register (6.2.2). */
export const Command = {
  MEMORY: 1 << 1,
  MASTER: 1 << 2,
  PARITY: 1 << 6,
  SERR: 1 << 8,
  INTX_DISABLE: 1 << 10,
} as const;

/** Bits of the status register (6.2.3). */
const Status = { INTERRUPT: 1 << 3, CAPABILITIES: 1 << 4 } as const;

/** Bits of a base address register that are not of the address (6.2.5.1). */
const Bar = { WIDE: 4, PREFETCHABLE: 8 } as const;

/** The bit of a bridge's prefetchable window that says that its addresses have 64 bits (3.2.5.9). */
const WIDE_WINDOW = 1;
/** Bits of a bridge's control register (3.2.5.18). */
const Control = { PARITY: 1 << 0, SERR: 1 << 1 } as const;

/** Memory that a driver gives an address to. */
export interface BarDescription {
  /** The register's number, 0 to 5; one of 64 bits has the next one, too. */
  readonly bar: number;
  /** Bytes: a power of 2, at least 16. */
  readonly size: number;
  /** Whether the address has 64 bits, and the memory is prefetchable. */
  readonly wide: boolean;
}

/** A capability (6.7). */
export interface CapabilityDescription {
  readonly id: number;
  /** What follows its id and the pointer to the next one. */
  readonly body: Uint8Array;
  /** The bits of the body that a driver can write; none unless given. */
  readonly writable?: Uint8Array;
}

/** What a function is. */
export interface FunctionDescription {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly revision: number;
  /** Base class, subclass and programming interface, in 24 bits. */
  readonly classCode: number;
  readonly subsystemVendorId: number;
  readonly subsystemId: number;
  /** Whether it is a bridge: then its capabilities have the subsystem, and it passes memory accesses on. */
  readonly isBridge?: true;
  /** Whether it has an interrupt line, which is pin A then. */
  readonly hasInterrupt: boolean;
  readonly bars: readonly BarDescription[];
  readonly capabilities: readonly CapabilityDescription[];
}

const fields = {
  /** The bits that drivers have written. */
  written: bytes(CONFIG_SIZE),
};

/** The state of a function's configuration space. */
export const configState: Struct<typeof fields> = struct("pci-config-space", fields);

/** A description as bytes, made once. */
export class ConfigLayout {
  /** What reads where nothing was written. */
  readonly fixed: Uint8Array<ArrayBuffer> = new Uint8Array(CONFIG_SIZE);
  /** The bits that a driver can write. */
  readonly writable: Uint8Array<ArrayBuffer> = new Uint8Array(CONFIG_SIZE);
  /** Where the capabilities are, in their order. */
  readonly capabilities: readonly number[];
  readonly bars: readonly BarDescription[];

  /** Lays a function out. @throws {RangeError} if the capabilities are too long */
  constructor(description: FunctionDescription) {
    this.bars = description.bars;
    const fixed = new DataView(this.fixed.buffer);
    const writable = new DataView(this.writable.buffer);
    fixed.setUint16(Register.VENDOR_ID, description.vendorId, true);
    fixed.setUint16(Register.DEVICE_ID, description.deviceId, true);
    // The class takes the three bytes behind the revision.
    fixed.setUint32(Register.REVISION, description.revision + description.classCode * 256, true);
    if (description.isBridge) layBridgeOut(fixed, writable);
    else {
      fixed.setUint16(Register.SUBSYSTEM_VENDOR_ID, description.subsystemVendorId, true);
      fixed.setUint16(Register.SUBSYSTEM_ID, description.subsystemId, true);
    }
    let command = Command.MASTER | Command.PARITY | Command.SERR;
    if (this.bars.length > 0) command |= Command.MEMORY;
    if (description.hasInterrupt) {
      command |= Command.INTX_DISABLE;
      fixed.setUint8(Register.INTERRUPT_PIN, 1);
      writable.setUint8(Register.INTERRUPT_LINE, 0xff);
    }
    writable.setUint16(Register.COMMAND, command, true);
    writable.setUint8(Register.CACHE_LINE_SIZE, 0xff);
    for (const bar of this.bars) layBarOut(bar, fixed, writable);
    this.capabilities = this.#layCapabilitiesOut(description.capabilities);
  }

  #layCapabilitiesOut(capabilities: readonly CapabilityDescription[]): number[] {
    let end: number = Register.FIRST_CAPABILITY;
    let pointer: number = Register.CAPABILITIES;
    return capabilities.map(({ id, body, writable }) => {
      const at = end;
      end = Math.ceil((at + 2 + body.length) / 4) * 4;
      if (end > CONFIG_SIZE) throw new RangeError(`Capability ${id} ends at ${end}, after 256`);
      this.fixed[Register.STATUS] |= Status.CAPABILITIES;
      this.fixed[pointer] = at;
      this.fixed[at] = id;
      this.fixed.set(body, at + 2);
      if (writable) this.writable.set(writable, at + 2);
      pointer = at + 1;
      return at;
    });
  }
}

/** The header of type 1. There are no I/O ports behind a bridge, so it has no window for them. */
function layBridgeOut(fixed: DataView, writable: DataView): void {
  fixed.setUint8(Register.HEADER_TYPE, 1);
  for (const name of ["PRIMARY_BUS", "SECONDARY_BUS", "SUBORDINATE_BUS"] as const) {
    writable.setUint8(BridgeRegister[name], 0xff);
  }
  for (const name of ["MEMORY_BASE", "MEMORY_LIMIT"] as const) {
    writable.setUint16(BridgeRegister[name], 0xfff0, true);
  }
  for (const name of ["PREFETCHABLE_BASE", "PREFETCHABLE_LIMIT"] as const) {
    fixed.setUint16(BridgeRegister[name], WIDE_WINDOW, true);
    writable.setUint16(BridgeRegister[name], 0xfff0, true);
  }
  writable.setUint32(BridgeRegister.PREFETCHABLE_BASE_HIGH, 0xffff_ffff, true);
  writable.setUint32(BridgeRegister.PREFETCHABLE_LIMIT_HIGH, 0xffff_ffff, true);
  writable.setUint16(BridgeRegister.CONTROL, Control.PARITY | Control.SERR, true);
}

/** The bits below the size are zeros, by which a driver finds it. */
function layBarOut({ bar, size, wide }: BarDescription, fixed: DataView, writable: DataView): void {
  const at = Register.BAR0 + 4 * bar;
  if (wide) fixed.setUint32(at, Bar.WIDE | Bar.PREFETCHABLE, true);
  const address = -BigInt(size);
  writable.setUint32(at, Number(BigInt.asUintN(32, address)), true);
  if (wide) writable.setUint32(at + 4, 0xffff_ffff, true);
}

/** The configuration space on one thread. */
export class ConfigSpace {
  readonly #layout: ConfigLayout;
  readonly #written: Uint8Array;

  /**
   * @param state what was written
   * @param layout all else
   */
  constructor(state: View<typeof fields>, layout: ConfigLayout) {
    this.#layout = layout;
    this.#written = state.written;
  }

  /**
   * Reads 1, 2 or 4 bytes; ones behind the end.
   *
   * @param interrupts whether the function wants to interrupt by its line, which the status register says
   */
  read(offset: number, size: number, interrupts = false): number {
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 256 + this.#byte(offset + i, interrupts);
    return value;
  }

  /** Writes 1, 2 or 4 bytes, as far as they can be written. */
  write(offset: number, size: number, value: number): void {
    for (let i = 0; i < size && offset + i < CONFIG_SIZE; i++) {
      this.#written[offset + i] = value >>> (8 * i) & this.#layout.writable[offset + i];
    }
  }

  /** The command register. */
  get command(): number {
    return this.read(Register.COMMAND, 2);
  }

  /** Whether the function may write and read memory, and send messages. */
  get isMaster(): boolean {
    return (this.#written[Register.COMMAND] & Command.MASTER) !== 0;
  }

  /** Whether the function's line may be used. */
  get hasLine(): boolean {
    return (this.command & Command.INTX_DISABLE) === 0;
  }

  /** Where a base address register puts its memory; undefined if it is not decoded. */
  base({ bar, size, wide }: BarDescription): number | undefined {
    if ((this.command & Command.MEMORY) === 0) return undefined;
    const at = Register.BAR0 + 4 * bar;
    const low = this.read(at, 4);
    const base = (low - low % size) + (wide ? this.read(at + 4, 4) * 2 ** 32 : 0);
    // A register that nobody has written says 0.
    return base === 0 ? undefined : base;
  }

  /** Puts everything back to how a driver finds it. */
  reset(): void {
    this.#written.fill(0);
  }

  #byte(offset: number, interrupts: boolean): number {
    if (offset >= CONFIG_SIZE) return 0xff;
    const { fixed, writable } = this.#layout;
    const value = fixed[offset] | this.#written[offset] & writable[offset];
    return offset === Register.STATUS && interrupts ? value | Status.INTERRUPT : value;
  }
}
