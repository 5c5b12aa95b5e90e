/**
 * The keys of a PS/2 keyboard and the bytes that it sends for them, in scancode sets 1, 2 and 3 (IBM's
 * PS/2 Hardware Interface Technical Reference, "Keyboards"). Names are QEMU's (QAPI QKeyCode).
 *
 * @module
 */

/** Before a code of a key that the first keyboards did not have. */
const EXTENDED = 0xe0;
/** Before the code of a key that is released, in sets 2 and 3. */
const RELEASED = 0xf0;

/** Codes of set 2 by name; the high byte says that it is extended. */
const SET_2: Readonly<Record<string, number>> = {
  ...{ shift: 0x12, shift_r: 0x59, alt: 0x11, alt_r: 0xe011, ctrl: 0x14, ctrl_r: 0xe014 },
  ...{ menu: 0xe02f, esc: 0x76, 1: 0x16, 2: 0x1e, 3: 0x26, 4: 0x25, 5: 0x2e, 6: 0x36, 7: 0x3d },
  ...{ 8: 0x3e, 9: 0x46, 0: 0x45, minus: 0x4e, equal: 0x55, backspace: 0x66, tab: 0x0d, q: 0x15 },
  ...{ w: 0x1d, e: 0x24, r: 0x2d, t: 0x2c, y: 0x35, u: 0x3c, i: 0x43, o: 0x44, p: 0x4d },
  ...{ bracket_left: 0x54, bracket_right: 0x5b, ret: 0x5a, a: 0x1c, s: 0x1b, d: 0x23, f: 0x2b },
  ...{ g: 0x34, h: 0x33, j: 0x3b, k: 0x42, l: 0x4b, semicolon: 0x4c, apostrophe: 0x52 },
  ...{ grave_accent: 0x0e, backslash: 0x5d, z: 0x1a, x: 0x22, c: 0x21, v: 0x2a, b: 0x32, n: 0x31 },
  ...{ m: 0x3a, comma: 0x41, dot: 0x49, slash: 0x4a, asterisk: 0x7c, spc: 0x29, caps_lock: 0x58 },
  ...{ f1: 0x05, f2: 0x06, f3: 0x04, f4: 0x0c, f5: 0x03, f6: 0x0b, f7: 0x83, f8: 0x0a, f9: 0x01 },
  ...{ f10: 0x09, num_lock: 0x77, scroll_lock: 0x7e, kp_divide: 0xe04a, kp_multiply: 0x7c },
  ...{ kp_subtract: 0x7b, kp_add: 0x79, kp_enter: 0xe05a, kp_decimal: 0x71, sysrq: 0x7f },
  ...{ kp_0: 0x70, kp_1: 0x69, kp_2: 0x72, kp_3: 0x7a, kp_4: 0x6b, kp_5: 0x73, kp_6: 0x74 },
  ...{ kp_7: 0x6c, kp_8: 0x75, kp_9: 0x7d, less: 0x61, f11: 0x78, f12: 0x07, home: 0xe06c },
  ...{ pgup: 0xe07d, pgdn: 0xe07a, end: 0xe069, left: 0xe06b, up: 0xe075, down: 0xe072 },
  ...{ right: 0xe074, insert: 0xe070, delete: 0xe071, meta_l: 0xe01f, meta_r: 0xe027 },
  ...{ compose: 0xe02f, ro: 0x51, katakanahiragana: 0x13, henkan: 0x64, yen: 0x6a, muhenkan: 0x67 },
  ...{ kp_comma: 0x6d, kp_equals: 0x0f, power: 0xe037, sleep: 0xe03f, wake: 0xe05e },
  ...{ audionext: 0xe04d, audioprev: 0xe015, audiostop: 0xe03b, audioplay: 0xe034 },
  ...{ audiomute: 0xe023, volumeup: 0xe032, volumedown: 0xe021, mediaselect: 0xe050 },
  ...{ mail: 0xe048, calculator: 0xe02b, computer: 0xe040, ac_home: 0xe03a, ac_back: 0xe038 },
  ...{ ac_forward: 0xe030, ac_refresh: 0xe020, ac_bookmarks: 0xe018, f13: 0x08, f14: 0x10 },
  ...{ f15: 0x18, f16: 0x20, f17: 0x28, f18: 0x30, f19: 0x38, f20: 0x40, f21: 0x48, f22: 0x50 },
  ...{ f23: 0x57, f24: 0x5f },
};

/** Codes of set 3, where a key has one, that differ from those of set 2. */
const SET_3: Readonly<Record<string, number>> = {
  ...{ alt: 0x19, alt_r: 0x39, ctrl: 0x11, ctrl_r: 0x58, menu: 0x8d, compose: 0x8d, esc: 0x08 },
  ...{ backslash: 0x5c, caps_lock: 0x14, asterisk: 0x7e, f1: 0x07, f2: 0x0f, f3: 0x17, f4: 0x1f },
  ...{ f5: 0x27, f6: 0x2f, f7: 0x37, f8: 0x3f, f9: 0x47, f10: 0x4f, f11: 0x56, f12: 0x5e },
  ...{ num_lock: 0x76, scroll_lock: 0x5f, kp_divide: 0x77, kp_multiply: 0x7e, kp_subtract: 0x84 },
  ...{ kp_add: 0x7c, kp_enter: 0x79, sysrq: 0x57, print: 0x57, pause: 0x62, less: 0x13 },
  ...{ home: 0x6e, pgup: 0x6f, pgdn: 0x6d, end: 0x65, left: 0x61, up: 0x63, down: 0x60 },
  ...{ right: 0x6a, insert: 0x67, delete: 0x64, meta_l: 0x8b, meta_r: 0x8c },
};

/** Keys of QEMU's that no PS/2 keyboard has: nothing is sent for them. */
const WITHOUT_CODE = [
  ...[
    "unmapped",
    "stop",
    "again",
    "props",
    "undo",
    "front",
    "copy",
    "open",
    "paste",
    "find",
    "cut",
  ],
  ...["lf", "help", "hiragana", "lang1", "lang2"],
];

/** Keys whose bytes follow no rule. */
const SPECIAL = ["print", "pause"];

/** All names, in an order that never changes: saved state counts in it, from 1. */
export const keyNames: readonly string[] = [...Object.keys(SET_2), ...SPECIAL, ...WITHOUT_CODE];

/** How the controller translates set 2 into set 1; from 0x80 up only two codes change. */
export const translation: Uint8Array = Uint8Array.from({ length: 256 }, (_, code) => code);
translation.set(Uint8Array.fromHex([
  "ff43413f3d3b3c58644442403e0f2959",
  "65382a701d10025a66712c1f1e11035b",
  "672e2d201205045c68392f211413065d",
  "693130232215075e6a7232241608095f",
  "6b332517180b0a606c34352627190c61",
  "6d7328741a0d626e3a361c1b752b6376",
  "55567778797a0e7b7c4f7d4b477e7f6f",
  "5253504c4d480145574e514a37494654",
].join("")));
translation[0x83] = 0x41;
translation[0x84] = 0x54;

/** Codes of set 1 by those of set 2, extended ones too. */
const toSet1 = (code: number) => (code & 0xff00) | translation[code & 0xff];

/** Bytes of one key in set 1, where releasing sets the high bit, or in sets 2 and 3. */
function plainBytes(code: number, down: boolean, set: number): number[] {
  const prefix = code > 0xff ? [EXTENDED] : [];
  const low = code & 0xff;
  if (set === 1) return [...prefix, down ? low : low | 0x80];
  return [...prefix, ...(down ? [] : [RELEASED]), low];
}

/**
 * What the keyboard sends when a key is pressed or released.
 *
 * @param name the key, one of {@linkcode keyNames}
 * @param down whether it is pressed
 * @param set the scancode set: 1, 2 or 3
 */
export function keyBytes(name: string, down: boolean, set: number): number[] {
  if (set === 3) {
    const code = SET_3[name] ?? SET_2[name];
    return code === undefined || code > 0xff ? [] : plainBytes(code, down, set);
  }
  const convert = (code: number) => set === 1 ? toSet1(code) : code;
  const bytes = (code: number, down: boolean) => plainBytes(convert(code), down, set);
  if (name === "print") {
    // A shift is pressed with it, extended as nothing else is.
    const [shift, print] = [0xe012, 0xe07c];
    const [first, second] = down ? [shift, print] : [print, shift];
    return [...bytes(first, down), ...bytes(second, down)];
  }
  if (name === "pause") {
    // It is released at once, and nothing is sent when it really is.
    if (!down) return [];
    const keys = [0x14, 0x77];
    const press = keys.flatMap((code) => bytes(code, true));
    return [0xe1, ...press, 0xe1, ...keys.flatMap((code) => bytes(code, false))];
  }
  const code = SET_2[name];
  return code === undefined ? [] : bytes(code, down);
}

const byNumber: ReadonlyMap<number, string> = new Map(
  Object.entries(SET_2).map(([name, code]) => {
    const set1 = toSet1(code);
    return [set1 > 0xff ? (set1 & 0xff) | 0x80 : set1, name];
  }),
);

/** The key of a code of set 1, whose high bit says that it is extended; `unmapped` if there is none. */
export function keyByNumber(code: number): string {
  return byNumber.get(code) ?? "unmapped";
}
