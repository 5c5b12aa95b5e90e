/**
 * `fw_cfg`: QEMU's device by which firmware and test programs learn what machine they are on (QEMU's
 * docs/specs/fw_cfg.rst).
 *
 * The guest selects an item by its key at port 0x510 and reads it byte by byte at port 0x511, or
 * gives the address of a command to ports 0x514 to 0x51b, which copies the item into RAM. Items are
 * made before the guest starts (`fw_cfg_items.ts`) and never change; what is saved is where the
 * guest is in reading them.
 *
 * @module
 */
import { struct, u16, u32, type View } from "../../ffi/struct.ts";
import { defineDevice, type Device, type DeviceContext, type DeviceType } from "../device.ts";
import { decodeItems } from "./fw_cfg_items.ts";

/** Address ranges, by number. */
const DATA = 0;
const DMA = 1;

/** Bits of a key that choose no other item: to write, and of the architecture's own items. */
const WRITE_CHANNEL = 0x4000;

/** What the ports of DMA read as. */
const SIGNATURE = new TextEncoder().encode("QEMU CFG");

/** struct FWCfgDmaAccess: control, length (32 bits each) and address (64 bits), all big-endian. */
const COMMAND_SIZE = 16;
/** Bits of control. */
const CONTROL = { ERROR: 1, READ: 2, SKIP: 4, SELECT: 8, WRITE: 16 } as const;

const state = struct("fw_cfg", {
  /** Key of the selected item. */
  key: u16,
  /** Bytes of it that are read. */
  offset: u32,
  /** High half of the address of a command, until the low half comes. */
  addressHigh: u32,
});

class FwCfg implements Device {
  readonly #state: View<typeof state.fields>;
  readonly #context: DeviceContext;
  readonly #items: ReadonlyMap<number, Uint8Array>;

  constructor(view: View<typeof state.fields>, context: DeviceContext) {
    this.#state = view;
    this.#context = context;
    this.#items = decodeItems(context.content);
  }

  read(range: number, offset: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) {
      const byte = range === DMA ? SIGNATURE[offset + i] ?? 0 : this.#nextByte();
      value += byte * 2 ** (8 * i);
    }
    return value;
  }

  write(range: number, offset: number, size: number, value: number): void {
    if (range === DATA) {
      // The data port is read-only, and the selector is written as a word.
      if (size === 2 && offset === 0) this.#select(value & 0xffff);
      return;
    }
    if (size !== 4) return;
    if (offset === 0) this.#state.addressHigh = swap32(value);
    else if (offset === 4) {
      const high = this.#state.addressHigh;
      this.#state.addressHigh = 0;
      this.#run(high * 2 ** 32 + swap32(value));
    }
  }

  reset(): void {
    this.#state.addressHigh = 0;
    this.#select(0);
  }

  #select(key: number): void {
    this.#state.key = key & ~WRITE_CHANNEL;
    this.#state.offset = 0;
  }

  get #item(): Uint8Array | undefined {
    return this.#items.get(this.#state.key);
  }

  /** Zeros follow an item's end, and there is nothing else in an item that does not exist. */
  #nextByte(): number {
    const byte = this.#item?.[this.#state.offset];
    if (byte === undefined) return 0;
    this.#state.offset++;
    return byte;
  }

  /** Carries a command out. One that is not in RAM has nowhere to say that it failed. */
  #run(address: number): void {
    const { memory } = this.#context;
    const bytes = memory.read(address, COMMAND_SIZE);
    if (!bytes) return;
    const command = new DataView(bytes.buffer, bytes.byteOffset, COMMAND_SIZE);
    const control = command.getUint32(0);
    if (control & CONTROL.SELECT) this.#select(control >>> 16);
    const target = command.getBigUint64(8);
    // No RAM lies where a number is no longer exact.
    const done = target <= BigInt(Number.MAX_SAFE_INTEGER) &&
      this.#transfer(control, Number(target), command.getUint32(4));
    command.setUint32(0, done ? 0 : CONTROL.ERROR);
    memory.write(address, bytes.subarray(0, 4));
  }

  /** Reads or skips bytes; reading has precedence. False if it cannot be done. */
  #transfer(control: number, target: number, length: number): boolean {
    if (length === 0) return true;
    const rest = this.#item?.subarray(this.#state.offset) ?? new Uint8Array();
    const part = rest.subarray(0, length);
    if (control & CONTROL.READ) {
      const { memory } = this.#context;
      // Items lie in memory that threads share, which system calls do not take.
      if (!memory.write(target, Uint8Array.from(part))) return false;
      if (!memory.zero(target + part.length, length - part.length)) return false;
    } else if (control & CONTROL.WRITE) {
      return false;
    } else if (!(control & CONTROL.SKIP)) {
      return true;
    }
    this.#state.offset += part.length;
    return true;
  }
}

/** A word of the big-endian DMA ports. */
function swap32(value: number): number {
  const bytes = new DataView(new ArrayBuffer(4));
  bytes.setUint32(0, value, true);
  return bytes.getUint32(0);
}

/** The `fw_cfg` device type. */
export const fwCfg: DeviceType = defineDevice({
  name: "fw_cfg",
  help: "items that tell firmware about the machine",
  user: false,
  properties: {},
  version: 1,
  state,
  needed: ({ key, offset, addressHigh }) => key !== 0 || offset !== 0 || addressHigh !== 0,
  ranges: () => [
    { space: "pio", base: 0x510, size: 2, name: "fwcfg" },
    { space: "pio", base: 0x514, size: 8, name: "fwcfg.dma" },
  ],
  irqs: () => [],
  create: (view, context) => new FwCfg(view, context),
});
