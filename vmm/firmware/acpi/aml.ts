/**
 * An assembler for AML, ACPI Machine Language: each function makes the bytes of one term, from those
 * of its parts (ACPI 6.5, chapter 20).
 *
 * @module
 */

/** Encoded terms. */
export type Aml = Uint8Array<ArrayBuffer>;

/** Opcodes (ACPI 6.5, 20.3). */
const Op = {
  ZERO: 0x00,
  ONE: 0x01,
  NAME: 0x08,
  BYTE: 0x0a,
  WORD: 0x0b,
  DWORD: 0x0c,
  STRING: 0x0d,
  QWORD: 0x0e,
  SCOPE: 0x10,
  BUFFER: 0x11,
  PACKAGE: 0x12,
  METHOD: 0x14,
  DUAL_NAME: 0x2e,
  MULTI_NAME: 0x2f,
  EXTENDED: 0x5b,
  LOCAL0: 0x60,
  ARG0: 0x68,
  STORE: 0x70,
  ADD: 0x72,
  SHIFT_LEFT: 0x79,
  AND: 0x7b,
  OR: 0x7d,
  NOTIFY: 0x86,
  CREATE_DWORD_FIELD: 0x8a,
  NOT: 0x92,
  LEQUAL: 0x93,
  IF: 0xa0,
  ELSE: 0xa1,
  RETURN: 0xa4,
} as const;

/** Second bytes after {@linkcode Op.EXTENDED}. */
const Extended = { OPERATION_REGION: 0x80, FIELD: 0x81, DEVICE: 0x82 } as const;

/** Joins terms. */
export function join(...terms: readonly Aml[]): Aml {
  const bytes = new Uint8Array(terms.reduce((sum, { length }) => sum + length, 0));
  terms.reduce((at, term) => (bytes.set(term, at), at + term.length), 0);
  return bytes;
}

const encoder = new TextEncoder();

/** One segment of a name: four characters, underscores at the end of shorter ones. */
function nameSegment(segment: string): Aml {
  if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(segment)) {
    throw new RangeError(`'${segment}' is no segment of an ACPI name`);
  }
  return encoder.encode(segment.padEnd(4, "_"));
}

/**
 * A name: `_HID`, `\_SB.PWRB`, `^GED`.
 *
 * @throws {RangeError} if a segment has not one to four capitals, digits and underscores
 */
export function path(text: string): Aml {
  const [, prefix, rest] = /^(\\|\^*)(.*)$/s.exec(text)!;
  const segments = rest === "" ? [] : rest.split(".").map(nameSegment);
  const head = segments.length === 0
    ? [Op.ZERO]
    : segments.length === 1
    ? []
    : segments.length === 2
    ? [Op.DUAL_NAME]
    : [Op.MULTI_NAME, segments.length];
  return join(encoder.encode(prefix), Uint8Array.from(head), ...segments);
}

/** PkgLength: how long a term is from here, itself counted, in as few bytes as it takes. */
function packageLength(body: number): Aml {
  if (body + 1 < 1 << 6) return Uint8Array.of(body + 1);
  for (let more = 1; more <= 3; more++) {
    const length = body + 1 + more;
    if (length >= 1 << (4 + 8 * more)) continue;
    const rest = Array.from({ length: more }, (_, i) => (length >> (4 + 8 * i)) & 0xff);
    return Uint8Array.of(more << 6 | length & 0xf, ...rest);
  }
  throw new RangeError(`An AML term of ${body} bytes is too long: the most is ${(1 << 28) - 5}`);
}

/** A term whose opcode is followed by its length. */
function sized(opcode: readonly number[], ...parts: readonly Aml[]): Aml {
  const body = join(...parts);
  return join(Uint8Array.from(opcode), packageLength(body.length), body);
}

function littleEndian(value: bigint, size: number): Aml {
  return new Uint8Array(new BigUint64Array([value]).buffer, 0, size);
}

/** An integer, not negative, of at most 64 bits, in as few bytes as it takes. */
export function integer(value: number | bigint): Aml {
  const wide = BigInt(value);
  if (wide === 0n || wide === 1n) return Uint8Array.of(wide === 0n ? Op.ZERO : Op.ONE);
  if (wide < 0n || wide >= 1n << 64n) throw new RangeError(`${wide} is no integer of AML`);
  const [opcode, size] = wide < 1n << 8n
    ? [Op.BYTE, 1]
    : wide < 1n << 16n
    ? [Op.WORD, 2]
    : wide < 1n << 32n
    ? [Op.DWORD, 4]
    : [Op.QWORD, 8];
  return join(Uint8Array.of(opcode), littleEndian(wide, size));
}

/** A string of ASCII characters. */
export function string(text: string): Aml {
  // deno-lint-ignore no-control-regex
  if (!/^[\x01-\x7f]*$/.test(text)) throw new RangeError(`'${text}' is no string of AML`);
  return join(Uint8Array.of(Op.STRING), encoder.encode(`${text}\0`));
}

/** `Unicode (text)`: a buffer of UTF-16 with a NUL at its end. */
export function unicode(text: string): Aml {
  const units = Uint16Array.from(`${text}\0`, (character) => character.charCodeAt(0));
  return buffer(new Uint8Array(units.buffer));
}

/** A buffer. */
export function buffer(data: Aml): Aml {
  return sized([Op.BUFFER], integer(data.length), data);
}

/** A package of at most 255 elements. */
export function packageOf(...elements: readonly Aml[]): Aml {
  return sized([Op.PACKAGE], Uint8Array.of(elements.length), ...elements);
}

/**
 * The compressed form of an EISA id such as `PNP0501`: three letters of five bits, four hexadecimal
 * digits, the highest byte first (ACPI 6.5, 19.3.4).
 */
export function eisaId(id: string): Aml {
  const [, letters, digits] = /^([A-Z]{3})([0-9A-F]{4})$/.exec(id) ?? [];
  if (letters === undefined) throw new RangeError(`'${id}' is no EISA id`);
  const vendor = [...letters].reduce((sum, letter) => sum << 5 | letter.charCodeAt(0) - 0x40, 0);
  const number = parseInt(digits, 16);
  const bytes = Uint8Array.of(vendor >> 8, vendor & 0xff, number >> 8, number & 0xff);
  return integer(new DataView(bytes.buffer).getUint32(0, true));
}

/** `Name (NAME, value)` */
export function name(text: string, value: Aml): Aml {
  return join(Uint8Array.of(Op.NAME), path(text), value);
}

/** `Scope (NAME) { … }` */
export function scope(text: string, ...terms: readonly Aml[]): Aml {
  return sized([Op.SCOPE], path(text), ...terms);
}

/** `Device (NAME) { … }` */
export function device(text: string, ...terms: readonly Aml[]): Aml {
  return sized([Op.EXTENDED, Extended.DEVICE], path(text), ...terms);
}

/** `Method (NAME, argumentCount, NotSerialized) { … }` */
export function method(text: string, argumentCount: number, ...terms: Aml[]): Aml {
  return sized([Op.METHOD], path(text), Uint8Array.of(argumentCount), ...terms);
}

/** `Method (NAME, argumentCount, Serialized) { … }` */
export function serializedMethod(text: string, argumentCount: number, ...terms: Aml[]): Aml {
  return sized([Op.METHOD], path(text), Uint8Array.of(argumentCount | 8), ...terms);
}

/** `OperationRegion (NAME, SystemMemory, base, size)` */
export function memoryRegion(text: string, base: number, size: number): Aml {
  const head = Uint8Array.of(Op.EXTENDED, Extended.OPERATION_REGION);
  return join(head, path(text), Uint8Array.of(0), integer(base), integer(size));
}

/** Field flags: accesses of 32 bits, no lock, what is not written is zeros. */
const DWORD_WRITE_AS_ZEROS = 3 | 2 << 5;

/** `Field (REGION, DWordAcc, NoLock, WriteAsZeros) { NAME, bits, … }`, each less than 64 bits. */
export function dwordField(region: string, ...units: readonly [name: string, bits: number][]): Aml {
  const elements = units.map(([text, bits]) => join(nameSegment(text), Uint8Array.of(bits)));
  return sized(
    [Op.EXTENDED, Extended.FIELD],
    path(region),
    Uint8Array.of(DWORD_WRITE_AS_ZEROS),
    ...elements,
  );
}

/** `Local0` to `Local7` */
export function local(index: number): Aml {
  return Uint8Array.of(Op.LOCAL0 + index);
}

/** `Arg0` to `Arg6` */
export function argument(index: number): Aml {
  return Uint8Array.of(Op.ARG0 + index);
}

/** `Store (source, target)` */
export function store(source: Aml, target: Aml): Aml {
  return join(Uint8Array.of(Op.STORE), source, target);
}

/** `And (a, b, target)` */
export function and(a: Aml, b: Aml, target: Aml = Uint8Array.of(Op.ZERO)): Aml {
  return join(Uint8Array.of(Op.AND), a, b, target);
}

/** `Or (a, b, target)` */
export function or(a: Aml, b: Aml, target: Aml): Aml {
  return join(Uint8Array.of(Op.OR), a, b, target);
}

/** `LNot (value)` */
export function not(value: Aml): Aml {
  return join(Uint8Array.of(Op.NOT), value);
}

/** `LEqual (a, b)` */
export function equal(a: Aml, b: Aml): Aml {
  return join(Uint8Array.of(Op.LEQUAL), a, b);
}

/** `If (condition) { … }` */
export function when(condition: Aml, ...terms: readonly Aml[]): Aml {
  return sized([Op.IF], condition, ...terms);
}

/** `Else { … }`, right behind an `If` */
export function otherwise(...terms: readonly Aml[]): Aml {
  return sized([Op.ELSE], ...terms);
}

/** `Return (value)` */
export function returned(value: Aml): Aml {
  return join(Uint8Array.of(Op.RETURN), value);
}

/** `CreateDWordField (buffer, offset, NAME)` */
export function bufferDword(source: Aml, offset: number, text: string): Aml {
  return join(Uint8Array.of(Op.CREATE_DWORD_FIELD), source, integer(offset), path(text));
}

/**
 * `ToUUID ("aabbccdd-eeff-gghh-iijj-kkllmmnnoopp")`: a buffer, the first three groups little-endian
 * (ACPI 6.5, 19.6.142).
 */
export function uuid(text: string): Aml {
  const groups = text.split("-").map((group) => Uint8Array.fromHex(group));
  return buffer(join(...groups.map((bytes, i) => i < 3 ? bytes.reverse() : bytes)));
}

/** `Notify (object, value)` */
export function notify(object: Aml, value: number): Aml {
  return join(Uint8Array.of(Op.NOTIFY), object, integer(value));
}
