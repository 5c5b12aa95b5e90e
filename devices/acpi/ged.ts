/**
 * The generic event device and the registers of a machine without ACPI's fixed hardware: power button,
 * sleep, reset (ACPI 6.5, 4.8.3.7 and 5.6.9), where QEMU's microvm has them.
 *
 * The guest's GED driver is interrupted, and AML reads from the selector what has happened.
 *
 * @module
 */
import { struct, u32, u8, type View } from "../../ffi/struct.ts";
import { defineDevice, type Device, type DeviceContext, type DeviceType } from "../device.ts";

/** Where its selector and its registers are, and its interrupt. */
export const GED = { events: 0xfea0_0000, registers: 0xfea0_0200, irq: 9 } as const;

/** The selector's size, a word of 32 bits. */
export const GED_EVENTS_SIZE = 4;

/** Bits of the selector; QEMU has others for the lower ones. */
export const GedEvent = { POWER_BUTTON: 2, GENERATION: 1 << 8 } as const;

/** Offsets of the registers, each a byte. */
export const GedRegister = { SLEEP_CONTROL: 0, SLEEP_STATUS: 1, RESET: 2 } as const;

/** What the sleep control register takes: the type of sleep, and to enter it. */
export const SleepControl = { TYPE_SHIFT: 2, TYPE_MASK: 7, ENABLE: 1 << 5 } as const;

/**
 * Types of sleep, as the DSDT says them. In S3 the vCPUs keep their state: without ACPI's fixed hardware
 * there is no place for a waking vector, and the guest goes on where it waits for {@linkcode WAKE_STATUS}.
 */
export const SleepType = { S3: 3, S5: 5 } as const;

/** Bit of the sleep status register: the machine has woken up; software clears it by writing it. */
const WAKE_STATUS = 1 << 7;

/** What the reset register takes. */
export const RESET_VALUE = 0x42;

/** Address ranges, by number. */
const EVENTS = 0;

const state = struct("acpi-ged", {
  /** What has happened and was not read yet. */
  events: u32,
  /** The machine sleeps, in S3. */
  asleep: u8,
  /** The sleep status register. */
  sleep_status: u8,
});

class Ged implements Device {
  readonly #state: View<typeof state.fields>;
  readonly #context: DeviceContext;

  constructor(view: View<typeof state.fields>, context: DeviceContext) {
    this.#state = view;
    this.#context = context;
  }

  /** The selector reads once, and only as a whole. The registers to write read as zeros. */
  read(range: number, offset: number, size: number): number {
    if (range !== EVENTS) return offset === GedRegister.SLEEP_STATUS ? this.#state.sleep_status : 0;
    if (offset !== 0 || size !== GED_EVENTS_SIZE) return 0;
    const { events } = this.#state;
    this.#state.events = 0;
    return events;
  }

  write(range: number, offset: number, _size: number, value: number): void {
    if (range === EVENTS) return;
    const byte = value & 0xff;
    if (offset === GedRegister.SLEEP_CONTROL) this.#sleep(byte);
    if (offset === GedRegister.SLEEP_STATUS) this.#state.sleep_status &= ~byte & WAKE_STATUS;
    if (offset === GedRegister.RESET && byte === RESET_VALUE) {
      this.#context.request({ kind: "reset", reason: "guest-reset" });
    }
  }

  reset(): void {
    Object.assign(this.#state, { events: 0, asleep: 0, sleep_status: 0 });
  }

  isAsleep(): boolean {
    return this.#state.asleep !== 0;
  }

  wake(): void {
    this.#state.asleep = 0;
    this.#state.sleep_status = WAKE_STATUS;
  }

  pressPowerButton(): void {
    this.#signal(GedEvent.POWER_BUTTON);
  }

  tellGeneration(): void {
    this.#signal(GedEvent.GENERATION);
  }

  #signal(event: number): void {
    this.#state.events |= event;
    // The DSDT calls the interrupt edge-triggered.
    const [interrupt] = this.#context.interrupts;
    interrupt.set(true);
    interrupt.set(false);
  }

  #sleep(control: number): void {
    if ((control & SleepControl.ENABLE) === 0) return;
    const type = control >> SleepControl.TYPE_SHIFT & SleepControl.TYPE_MASK;
    if (type === SleepType.S5) {
      this.#context.request({ kind: "shutdown", reason: "guest-shutdown" });
    } else if (type === SleepType.S3) {
      this.#state.asleep = 1;
      this.#context.request({ kind: "suspend" });
    }
  }
}

/** The `acpi-ged` device type. */
export const acpiGed: DeviceType = defineDevice({
  name: "acpi-ged",
  help: "generic event device: power button, sleep and reset for ACPI",
  user: false,
  bus: "main-system-bus",
  properties: {},
  version: 1,
  state,
  // Between events there is nothing to say, and VMMs without it go on with the guest.
  needed: ({ events, asleep, sleep_status }) => events + asleep + sleep_status !== 0,
  ranges: () => [
    { space: "mmio", base: GED.events, size: GED_EVENTS_SIZE, name: "acpi-ged" },
    { space: "mmio", base: GED.registers, size: 3, name: "acpi-ged-regs" },
  ],
  irqs: () => [GED.irq],
  create: (view, context) => new Ged(view, context),
});
