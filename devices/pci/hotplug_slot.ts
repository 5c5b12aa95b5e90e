/**
 * The slot below a PCI Express port, with an attention button, a power controller and indicators, as
 * QEMU's: a function comes and goes while the guest runs (PCI Express 5.0, 6.7 and 7.5.3).
 *
 * @module
 */
import type { CapabilityDescription, ConfigSpace } from "./config_space.ts";

const CAPABILITY = 0x10;
/** Offsets in the capability (7.5.3). */
const Register = {
  FLAGS: 0x02,
  DEVICE_CAPABILITIES: 0x04,
  DEVICE_CONTROL: 0x08,
  LINK_CAPABILITIES: 0x0c,
  LINK_STATUS: 0x12,
  SLOT_CAPABILITIES: 0x14,
  SLOT_CONTROL: 0x18,
  SLOT_STATUS: 0x1a,
  ROOT_CONTROL: 0x1c,
  LINK_CAPABILITIES2: 0x2c,
  LINK_CONTROL2: 0x30,
  END: 0x3c,
} as const;

/** Version 2, a root port, with a slot (7.5.3.2). */
const FLAGS = 2 | 4 << 4 | 1 << 8;
/** Role-based error reporting, which every device has (7.5.3.3); and whether errors are reported. */
const ROLE_BASED_ERRORS = 1 << 15;
const ERROR_REPORTING = 0xf;
const ROOT_ERRORS = 7;
/** 16 GT/s, 32 lanes, L0s, and it says whether the link is up, and when its bandwidth changes (7.5.3.6). */
const LINK = 4 | 32 << 4 | 1 << 10 | 1 << 20 | 1 << 21;
/** All speeds from 2.5 to 16 GT/s, and the one that is aimed at (7.5.3.18). */
const SPEEDS = 0x1e;
const TARGET_SPEED = 4;
/** 2.5 GT/s and one lane, which is what there is of a link; whether data gets over it (7.5.3.8). */
const LINK_RUNS = 1 | 1 << 4;
const LINK_ACTIVE = 1 << 13;
/** Attention button, power controller, both indicators, surprise removal, hot-plug, interlock (7.5.3.9). */
const SLOT = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 17;
const SLOT_HOTPLUG = 1 << 5 | 1 << 6;
const SLOT_NUMBER = 2 ** 19;

/** Bits of the slot control register (7.5.3.10). */
const Control = {
  /** Which of the first events interrupt, by their bits in the status register. */
  EVENTS: 0x1f,
  INTERRUPT: 1 << 5,
  ATTENTION: 3 << 6,
  ATTENTION_OFF: 3 << 6,
  POWER_INDICATOR: 3 << 8,
  POWER_INDICATOR_ON: 1 << 8,
  POWER_INDICATOR_BLINKS: 2 << 8,
  POWER_INDICATOR_OFF: 3 << 8,
  POWER_OFF: 1 << 10,
  LINK_EVENT: 1 << 12,
} as const;
const WRITABLE_CONTROL = Control.EVENTS | Control.INTERRUPT | Control.ATTENTION |
  Control.POWER_INDICATOR | Control.POWER_OFF | Control.LINK_EVENT;

/** Bits of the slot status register (7.5.3.11). */
export const SlotStatus = {
  BUTTON: 1 << 0,
  PRESENCE_CHANGED: 1 << 3,
  COMMAND_COMPLETED: 1 << 4,
  PRESENT: 1 << 6,
  LINK_CHANGED: 1 << 8,
} as const;
/** Those that a driver clears by writing ones. */
const EVENTS = 0x1f | SlotStatus.LINK_CHANGED;

/** The capability. */
export function slotCapability(
  { port, slot, hotplug }: {
    readonly port: number;
    readonly slot: number;
    readonly hotplug: boolean;
  },
): CapabilityDescription {
  // The first two bytes are the id and the pointer.
  const at = (register: number) => register - 2;
  const body = new DataView(new ArrayBuffer(at(Register.END)));
  body.setUint16(at(Register.FLAGS), FLAGS, true);
  body.setUint32(at(Register.DEVICE_CAPABILITIES), ROLE_BASED_ERRORS, true);
  body.setUint32(at(Register.LINK_CAPABILITIES), LINK + port * 2 ** 24, true);
  const slotCapabilities = SLOT | (hotplug ? SLOT_HOTPLUG : 0);
  body.setUint32(at(Register.SLOT_CAPABILITIES), slotCapabilities + slot * SLOT_NUMBER, true);
  body.setUint32(at(Register.LINK_CAPABILITIES2), SPEEDS, true);
  body.setUint16(at(Register.LINK_CONTROL2), TARGET_SPEED, true);
  const writable = new DataView(new ArrayBuffer(at(Register.END)));
  writable.setUint16(at(Register.DEVICE_CONTROL), ERROR_REPORTING, true);
  writable.setUint16(at(Register.SLOT_CONTROL), WRITABLE_CONTROL, true);
  writable.setUint16(at(Register.ROOT_CONTROL), ROOT_ERRORS, true);
  const bytes = ({ buffer }: DataView<ArrayBuffer>) => new Uint8Array(buffer);
  return { id: CAPABILITY, body: bytes(body), writable: bytes(writable) };
}

/** What of the slot is not what a driver has written. */
export interface SlotState {
  /** The slot status register. */
  slot_status: number;
}

/** The slot on one thread. */
export class HotplugSlot {
  readonly #state: SlotState;
  readonly #config: ConfigSpace;
  readonly #at: number;

  /**
   * @param state what of it is saved beside configuration space
   * @param config the port's configuration space
   * @param capability where the capability is in it
   */
  constructor(state: SlotState, config: ConfigSpace, capability: number) {
    this.#state = state;
    this.#config = config;
    this.#at = capability;
  }

  /** Whether there is a function in it that has not been given up. */
  get isOccupied(): boolean {
    return (this.#state.slot_status & SlotStatus.PRESENT) !== 0;
  }

  /** Whether the function in it has power. */
  get isPowered(): boolean {
    return this.isOccupied && (this.#control & Control.POWER_OFF) === 0;
  }

  /** Whether the driver has no power on the slot, and shows that. */
  get isOff(): boolean {
    return isOff(this.#control);
  }

  /** Whether a driver shows that it is about to switch the slot on or off. */
  get isBusy(): boolean {
    return (this.#control & Control.POWER_INDICATOR) === Control.POWER_INDICATOR_BLINKS;
  }

  /** Whether there is an event that a driver wants an interrupt for. */
  get wantsInterrupt(): boolean {
    const control = this.#control;
    const { slot_status: status } = this.#state;
    if ((control & Control.INTERRUPT) === 0) return false;
    return (status & control & Control.EVENTS) !== 0 ||
      ((status & SlotStatus.LINK_CHANGED) !== 0 && (control & Control.LINK_EVENT) !== 0);
  }

  /** How the slot is at power-on. */
  reset(isOccupied: boolean): void {
    this.#state.slot_status = isOccupied ? SlotStatus.PRESENT : 0;
    const power = isOccupied
      ? Control.POWER_INDICATOR_ON
      : Control.POWER_INDICATOR_OFF | Control.POWER_OFF;
    this.#config.write(this.#at + Register.SLOT_CONTROL, 2, Control.ATTENTION_OFF | power);
  }

  /** Reads a byte of the registers that say how the slot is; undefined for all others. */
  read(offset: number): number | undefined {
    const register = offset - this.#at;
    if (register === Register.SLOT_STATUS) return this.#state.slot_status & 0xff;
    if (register === Register.SLOT_STATUS + 1) return this.#state.slot_status >>> 8 & 0xff;
    const link = this.isPowered ? LINK_RUNS | LINK_ACTIVE : LINK_RUNS;
    if (register === Register.LINK_STATUS) return link & 0xff;
    if (register === Register.LINK_STATUS + 1) return link >>> 8;
    return undefined;
  }

  /**
   * Writes to configuration space, as far as that is about the slot too.
   *
   * @param write does the write
   * @returns whether the driver has given up what was in the slot
   */
  written(offset: number, size: number, value: number, write: () => void): boolean {
    const before = this.#control;
    write();
    const first = offset - this.#at;
    for (let i = 0; i < size; i++) {
      const place = 8 * (first + i - Register.SLOT_STATUS);
      if (place !== 0 && place !== 8) continue;
      this.#state.slot_status &= ~((value >>> (8 * i) & 0xff) << place & EVENTS);
    }
    if (first + size <= Register.SLOT_CONTROL || first >= Register.SLOT_STATUS) return false;
    this.#state.slot_status |= SlotStatus.COMMAND_COMPLETED;
    if (!this.isOccupied || isOff(before) || !this.isOff) return false;
    this.empty();
    return true;
  }

  /** The button is pressed. */
  pressButton(): void {
    this.#state.slot_status |= SlotStatus.BUTTON;
  }

  /** A function was put into the slot: the driver is asked to switch it on. */
  fill(): void {
    this.#state.slot_status |= SlotStatus.PRESENT | SlotStatus.PRESENCE_CHANGED | SlotStatus.BUTTON;
  }

  /** Nothing is in the slot any more. */
  empty(): void {
    this.#state.slot_status &= ~SlotStatus.PRESENT;
    this.#state.slot_status |= SlotStatus.PRESENCE_CHANGED;
  }

  get #control(): number {
    return this.#config.read(this.#at + Register.SLOT_CONTROL, 2);
  }
}

function isOff(control: number): boolean {
  return (control & Control.POWER_OFF) !== 0 &&
    (control & Control.POWER_INDICATOR) === Control.POWER_INDICATOR_OFF;
}
