/**
 * `i8042`: the keyboard controller of the IBM PC AT, with a keyboard on which only monitors type
 * (`ps2_keyboard.ts`), and no mouse.
 *
 * Guests use it to reset the machine and to move A20, and refuse to go on when its self-test or its
 * keyboard does not answer. Commands are those of IBM's PS/2 Hardware Interface Technical Reference,
 * "Keyboard and Auxiliary Device Controller".
 *
 * @module
 */
import { struct, u8, type View } from "../../ffi/struct.ts";
import { byteFifo } from "./byte_fifo.ts";
import { defineDevice, type Device, type DeviceContext, type DeviceType } from "../device.ts";
import { ByteDevice, isaIrq } from "./isa.ts";
import { keysAreUsed, keysState, Ps2Keyboard } from "./ps2_keyboard.ts";
import { translation } from "./ps2_keys.ts";

/** Address ranges, by number. */
const DATA = 0;

/** Status register (port 0x64). */
const STATUS = {
  OUTPUT_FULL: 0x01,
  SYSTEM: 0x04,
  COMMAND: 0x08,
  UNLOCKED: 0x10,
  AUX_OUTPUT_FULL: 0x20,
  TIMEOUT: 0x40,
} as const;
/** Where a byte in the output buffer comes from, as status bits. */
const FROM_KEYBOARD = STATUS.OUTPUT_FULL;
const FROM_AUX = STATUS.OUTPUT_FULL | STATUS.AUX_OUTPUT_FULL;
/** The controller's own answer for a device that did not take a byte. */
const AUX_TIMEOUT = FROM_AUX | STATUS.TIMEOUT;
const SOURCE_BITS = AUX_TIMEOUT;

/** Controller command byte. */
const CONFIG = {
  KEYBOARD_INTERRUPT: 0x01,
  AUX_INTERRUPT: 0x02,
  SYSTEM: 0x04,
  KEYBOARD_DISABLED: 0x10,
  AUX_DISABLED: 0x20,
  TRANSLATE: 0x40,
} as const;
const POWER_ON_CONFIG = CONFIG.KEYBOARD_INTERRUPT | CONFIG.AUX_INTERRUPT;

/** Output port. */
const OUTPUT = { NOT_RESET: 0x01, A20: 0x02 } as const;
/** Bits 4 and 5 of the output port read as the two interrupt requests. */
const OUTPUT_IRQS = 0x30;
/** Reset line at rest, A20 on (KVM has no gate), the keyboard's clock and data lines high. */
const POWER_ON_OUTPUT_PORT = 0xcf;
/** Input port: keyboard not locked by the key. */
const INPUT_PORT = 0x80;

/** Controller commands (port 0x64). */
const CONTROLLER = {
  READ_CONFIG: 0x20,
  WRITE_CONFIG: 0x60,
  DISABLE_AUX: 0xa7,
  ENABLE_AUX: 0xa8,
  TEST_AUX: 0xa9,
  SELF_TEST: 0xaa,
  TEST_KEYBOARD: 0xab,
  DISABLE_KEYBOARD: 0xad,
  ENABLE_KEYBOARD: 0xae,
  READ_INPUT_PORT: 0xc0,
  READ_OUTPUT_PORT: 0xd0,
  WRITE_OUTPUT_PORT: 0xd1,
  WRITE_KEYBOARD_OUTPUT: 0xd2,
  WRITE_AUX_OUTPUT: 0xd3,
  WRITE_AUX: 0xd4,
  DISABLE_A20: 0xdd,
  ENABLE_A20: 0xdf,
  PULSE: 0xf0,
} as const;
const SELF_TEST_PASSED = 0x55;
const INTERFACE_TEST_PASSED = 0x00;

/** What the keyboard says before the code of a key that is released. */
const RELEASED = 0xf0;
/** The same in translated codes. */
const RELEASED_BIT = 0x80;
const RESEND = 0xfe;

const state = struct("i8042", {
  config: u8,
  outputPort: u8,
  /** Controller command whose data byte is awaited, 0 for none. */
  command: u8,
  /** STATUS.COMMAND when the last write went to port 0x64. */
  commandStatus: u8,
  output: u8,
  /** Status bits of `output`, 0 when the buffer is empty. */
  outputSource: u8,
  /** The controller's answer that waits for the output buffer, and its status bits. */
  reply: u8,
  replySource: u8,
  keyboardIrq: u8,
  auxIrq: u8,
  /** Keyboard command whose argument is awaited, 0 for none. */
  keyboardCommand: u8,
  scancodeSet: u8,
  lastSent: u8,
  /** What the keyboard has to say. */
  keyboard: byteFifo(16),
  keys: keysState,
});

class I8042 extends ByteDevice implements Device {
  readonly #state: View<typeof state.fields>;
  readonly #context: DeviceContext;
  readonly #keyboard: Ps2Keyboard;

  constructor(view: View<typeof state.fields>, context: DeviceContext) {
    super();
    this.#state = view;
    this.#context = context;
    this.#keyboard = new Ps2Keyboard(view, context, context.timers[0]);
  }

  protected readByte(range: number, offset: number): number {
    if (offset !== 0) return 0xff;
    return range === DATA ? this.#readData() : this.#status();
  }

  protected writeByte(range: number, offset: number, value: number): void {
    if (offset !== 0) return;
    const s = this.#state;
    s.commandStatus = range === DATA ? 0 : STATUS.COMMAND;
    if (range !== DATA) {
      this.#runCommand(value);
    } else if (s.command) {
      const command = s.command;
      s.command = 0;
      this.#finishCommand(command, value);
    } else {
      // Sending the keyboard a byte opens its line again.
      s.config &= ~CONFIG.KEYBOARD_DISABLED;
      this.#keyboard.write(value);
    }
    this.#update();
  }

  reset(): void {
    const s = this.#state;
    s.config = POWER_ON_CONFIG;
    s.outputPort = POWER_ON_OUTPUT_PORT;
    s.command =
      s.commandStatus =
      s.output =
      s.outputSource =
      s.reply =
      s.replySource =
        0;
    this.#keyboard.reset();
    this.#update();
  }

  press(keys: readonly string[], holdMs: number): boolean {
    const isTaken = this.#keyboard.press(keys, holdMs);
    this.#update();
    return isTaken;
  }

  timer(_index: number, nowNs: bigint): void {
    this.#keyboard.timer(nowNs);
    this.#update();
  }

  restored(): void {
    const s = this.#state;
    s.commandStatus &= STATUS.COMMAND;
    s.outputSource &= SOURCE_BITS;
    s.replySource &= SOURCE_BITS;
    this.#keyboard.restored();
    s.keyboardIrq = Number(this.#keyboardRequests());
    s.auxIrq = Number(this.#auxRequests());
    this.#context.interrupts[0].set(s.keyboardIrq === 1);
    this.#context.interrupts[1].set(s.auxIrq === 1);
  }

  #status(): number {
    const { config, commandStatus, outputSource } = this.#state;
    const system = config & CONFIG.SYSTEM ? STATUS.SYSTEM : 0;
    return system | commandStatus | STATUS.UNLOCKED | outputSource;
  }

  #readData(): number {
    const s = this.#state;
    const byte = s.output;
    s.outputSource = 0;
    // Low before the next byte raises it again: the interrupt controller needs the edge.
    this.#driveIrqs();
    this.#update();
    return byte;
  }

  #runCommand(command: number): void {
    const s = this.#state;
    s.command = 0;
    if (command >= CONTROLLER.PULSE) {
      // Each zero bit pulses a line of the output port; only bit 0, reset, is connected.
      if (!(command & OUTPUT.NOT_RESET)) this.#requestReset();
      return;
    }
    switch (command) {
      case CONTROLLER.READ_CONFIG:
        return this.#reply(s.config);
      case CONTROLLER.WRITE_CONFIG:
      case CONTROLLER.WRITE_OUTPUT_PORT:
      case CONTROLLER.WRITE_KEYBOARD_OUTPUT:
      case CONTROLLER.WRITE_AUX_OUTPUT:
      case CONTROLLER.WRITE_AUX:
        s.command = command;
        return;
      case CONTROLLER.DISABLE_AUX:
        s.config |= CONFIG.AUX_DISABLED;
        return;
      case CONTROLLER.ENABLE_AUX:
        s.config &= ~CONFIG.AUX_DISABLED;
        return;
      case CONTROLLER.DISABLE_KEYBOARD:
        s.config |= CONFIG.KEYBOARD_DISABLED;
        return;
      case CONTROLLER.ENABLE_KEYBOARD:
        s.config &= ~CONFIG.KEYBOARD_DISABLED;
        return;
      case CONTROLLER.SELF_TEST:
        s.config |= CONFIG.SYSTEM;
        return this.#reply(SELF_TEST_PASSED);
      case CONTROLLER.TEST_AUX:
      case CONTROLLER.TEST_KEYBOARD:
        return this.#reply(INTERFACE_TEST_PASSED);
      case CONTROLLER.READ_INPUT_PORT:
        return this.#reply(INPUT_PORT);
      case CONTROLLER.READ_OUTPUT_PORT:
        return this.#reply(this.#outputPort());
      case CONTROLLER.DISABLE_A20:
        s.outputPort &= ~OUTPUT.A20;
        return;
      case CONTROLLER.ENABLE_A20:
        s.outputPort |= OUTPUT.A20;
        return;
    }
  }

  #finishCommand(command: number, data: number): void {
    switch (command) {
      case CONTROLLER.WRITE_CONFIG:
        this.#state.config = data;
        return;
      case CONTROLLER.WRITE_OUTPUT_PORT:
        this.#state.outputPort = data;
        if (!(data & OUTPUT.NOT_RESET)) this.#requestReset();
        return;
      case CONTROLLER.WRITE_KEYBOARD_OUTPUT:
        return this.#reply(data);
      case CONTROLLER.WRITE_AUX_OUTPUT:
        return this.#reply(data, FROM_AUX);
      case CONTROLLER.WRITE_AUX:
        return this.#reply(RESEND, AUX_TIMEOUT);
    }
  }

  #outputPort(): number {
    const { outputPort, keyboardIrq, auxIrq } = this.#state;
    return (outputPort & ~OUTPUT_IRQS) | (keyboardIrq & 1) << 4 | (auxIrq & 1) << 5;
  }

  #reply(byte: number, source: number = FROM_KEYBOARD): void {
    this.#state.reply = byte;
    this.#state.replySource = source;
  }

  #requestReset(): void {
    this.#context.request({ kind: "reset", reason: "guest-reset" });
  }

  /** Moves the next byte into an empty output buffer, the controller's own first. */
  #update(): void {
    const s = this.#state;
    if (!s.outputSource) {
      if (s.replySource) {
        s.output = s.reply;
        s.outputSource = s.replySource;
        s.replySource = 0;
      } else if (this.#keyboard.speaks && !(s.config & CONFIG.KEYBOARD_DISABLED)) {
        s.output = s.config & CONFIG.TRANSLATE ? this.#translated() : this.#keyboard.next();
        s.outputSource = FROM_KEYBOARD;
      }
    }
    this.#driveIrqs();
  }

  /** The keyboard's next byte in set 1, in which a key that is released has one byte, not two. */
  #translated(): number {
    const byte = this.#keyboard.next();
    if (byte !== RELEASED) return translation[byte];
    return translation[this.#keyboard.next()] | RELEASED_BIT;
  }

  #keyboardRequests(): boolean {
    const { config, outputSource } = this.#state;
    return (outputSource & FROM_AUX) === FROM_KEYBOARD &&
      (config & CONFIG.KEYBOARD_INTERRUPT) !== 0;
  }

  #auxRequests(): boolean {
    const { config, outputSource } = this.#state;
    return (outputSource & FROM_AUX) === FROM_AUX && (config & CONFIG.AUX_INTERRUPT) !== 0;
  }

  #driveIrqs(): void {
    const s = this.#state;
    const keyboard = Number(this.#keyboardRequests());
    const aux = Number(this.#auxRequests());
    if (keyboard !== s.keyboardIrq) {
      s.keyboardIrq = keyboard;
      this.#context.interrupts[0].set(keyboard === 1);
    }
    if (aux !== s.auxIrq) {
      s.auxIrq = aux;
      this.#context.interrupts[1].set(aux === 1);
    }
  }
}

/** The `i8042` device type. */
export const i8042: DeviceType = defineDevice({
  name: "i8042",
  help: "keyboard controller with a keyboard for monitors",
  user: false,
  properties: {
    "kbd-irq": { type: "uint8", default: 1, help: "interrupt of the keyboard" },
    "mouse-irq": { type: "uint8", default: 12, help: "interrupt of the mouse" },
  },
  version: 1,
  state,
  subsections: [{
    field: "keys",
    version: 1,
    state: keysState,
    needed: (i8042) => keysAreUsed((i8042 as View<typeof state.fields>).keys),
  }],
  ranges: () => [
    { space: "pio", base: 0x60, size: 1, name: "i8042-data" },
    { space: "pio", base: 0x64, size: 1, name: "i8042-cmd" },
  ],
  irqs: (properties) => [
    isaIrq("kbd-irq", properties["kbd-irq"]),
    isaIrq("mouse-irq", properties["mouse-irq"]),
  ],
  timers: 1,
  create: (view, context) => new I8042(view, context),
});
