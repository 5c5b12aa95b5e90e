/**
 * Struct layouts as values: one DSL for kernel ABI structs, virtio rings and saved device state.
 *
 * Layouts follow the System V AMD64 ABI (natural alignment, little-endian); offsets are computed once,
 * when the layout is declared. A view reads and writes the bytes in place, so a struct can live in
 * mapped kernel memory, in a SharedArrayBuffer that several threads see, or in a plain buffer.
 *
 * @module
 */

type Get<T> = (data: DataView, offset: number) => T;
type Set<T> = (data: DataView, offset: number, value: T) => void;

// Where a view's bytes are. Symbols, because a struct may have fields of any name.
const DATA = Symbol("data");
const OFFSET = Symbol("offset");

/** One field type: its size and alignment in bytes, and how to read and write it. */
export interface Field<T> {
  readonly size: number;
  readonly align: number;
  /** Reads the value at `offset` of `data`. */
  get(data: DataView, offset: number): T;
  /** Writes the value at `offset` of `data`. */
  set(data: DataView, offset: number, value: T): void;
}

/** Field types by field name, in declaration order. */
export type Fields = Record<string, Field<unknown>>;

/** The object type that a struct with these fields reads as. */
export type View<F extends Fields> = {
  -readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never;
};

const scalar = <T>(size: number, get: Get<T>, set: Set<T>): Field<T> => ({
  size,
  align: size,
  get,
  set,
});

/** Unsigned 8-bit integer. */
export const u8: Field<number> = scalar(
  1,
  (d, o) => d.getUint8(o),
  (d, o, v) => d.setUint8(o, v),
);
/** Unsigned 16-bit integer. */
export const u16: Field<number> = scalar(
  2,
  (d, o) => d.getUint16(o, true),
  (d, o, v) => d.setUint16(o, v, true),
);
/** Unsigned 32-bit integer. */
export const u32: Field<number> = scalar(
  4,
  (d, o) => d.getUint32(o, true),
  (d, o, v) => d.setUint32(o, v, true),
);
/** Signed 32-bit integer. */
export const i32: Field<number> = scalar(
  4,
  (d, o) => d.getInt32(o, true),
  (d, o, v) => d.setInt32(o, v, true),
);
/** Unsigned 64-bit integer. */
export const u64: Field<bigint> = scalar(
  8,
  (d, o) => d.getBigUint64(o, true),
  (d, o, v) => d.setBigUint64(o, v, true),
);
/** Signed 64-bit integer. */
export const i64: Field<bigint> = scalar(
  8,
  (d, o) => d.getBigInt64(o, true),
  (d, o, v) => d.setBigInt64(o, v, true),
);

/** IEEE 754 double. */
export const f64: Field<number> = scalar(
  8,
  (d, o) => d.getFloat64(o, true),
  (d, o, v) => d.setFloat64(o, v, true),
);

/** A field that no padding comes before. */
export function packed<T>(field: Field<T>): Field<T> {
  return { ...field, align: 1 };
}

/**
 * A fixed number of bytes, read as a Uint8Array that aliases the struct's memory.
 *
 * @param length number of bytes
 */
export function bytes(length: number): Field<Uint8Array> {
  return {
    size: length,
    align: 1,
    get: (d, o) => new Uint8Array(d.buffer, d.byteOffset + o, length),
    set: (d, o, value) => {
      if (value.length !== length) {
        throw new RangeError(`Cannot store ${value.length} bytes in a field of ${length} bytes`);
      }
      new Uint8Array(d.buffer, d.byteOffset + o, length).set(value);
    },
  };
}

/** A fixed-length array of fields; an element is reached by index through `at` and `put`. */
export interface ArrayView<T> extends Iterable<T> {
  readonly length: number;
  /** Reads element `index`; throws RangeError past the end. */
  at(index: number): T;
  /** Writes element `index`; throws RangeError past the end. */
  put(index: number, value: T): void;
}

/**
 * A fixed-length array of one field type, C layout.
 *
 * @param element the element's type
 * @param length number of elements
 */
export function array<T>(element: Field<T>, length: number): Field<ArrayView<T>> {
  const check = (index: number) => {
    if (!Number.isInteger(index) || index < 0 || index >= length) {
      throw new RangeError(`Index ${index} is outside an array of ${length} elements`);
    }
  };
  const view = (d: DataView, o: number): ArrayView<T> => ({
    length,
    at: (index) => (check(index), element.get(d, o + index * element.size)),
    put: (index, value) => (check(index), element.set(d, o + index * element.size, value)),
    *[Symbol.iterator]() {
      for (let i = 0; i < length; i++) yield element.get(d, o + i * element.size);
    },
  });
  return {
    size: element.size * length,
    align: element.align,
    get: view,
    set: (d, o, value) => {
      for (let i = 0; i < length; i++) element.set(d, o + i * element.size, value.at(i));
    },
  };
}

/** A struct layout; usable as a field of another struct. */
export interface Struct<F extends Fields> extends Field<View<F>> {
  readonly name: string;
  readonly fields: F;
  /** Byte offset of each field. */
  readonly offsets: { readonly [K in keyof F]: number };
  /** A view of the struct at `byteOffset` of `buffer`; reads and writes go to that memory. */
  view(buffer: ArrayBufferLike, byteOffset?: number): View<F>;
  /** A zeroed struct of its own, with the bytes it lives in. */
  alloc(init?: Partial<View<F>>): { bytes: Uint8Array<ArrayBuffer>; view: View<F> };
}

/**
 * Declares a struct in C layout.
 *
 * @param name the struct's name in its header, for messages
 * @param fields field types in declaration order
 * @returns the layout
 */
export function struct<F extends Fields>(name: string, fields: F): Struct<F> {
  const offsets = {} as { [K in keyof F]: number };
  let size = 0;
  let align = 1;
  for (const key of Object.keys(fields) as (keyof F & string)[]) {
    const field = fields[key];
    size = Math.ceil(size / field.align) * field.align;
    offsets[key] = size;
    size += field.size;
    align = Math.max(align, field.align);
  }
  size = Math.ceil(size / align) * align;

  /** One accessor pair per field on a shared prototype, so that V8 sees a single shape. */
  class StructView {
    readonly [DATA]: DataView;
    readonly [OFFSET]: number;
    constructor(data: DataView, offset: number) {
      this[DATA] = data;
      this[OFFSET] = offset;
    }
  }
  for (const key of Object.keys(fields) as (keyof F & string)[]) {
    const { get, set } = fields[key];
    const offset = offsets[key];
    Object.defineProperty(StructView.prototype, key, {
      enumerable: true,
      get(this: StructView) {
        return get(this[DATA], this[OFFSET] + offset);
      },
      set(this: StructView, value: unknown) {
        set(this[DATA], this[OFFSET] + offset, value);
      },
    });
  }
  const make = (data: DataView, base: number) => new StructView(data, base) as unknown as View<F>;
  return {
    name,
    fields,
    offsets,
    size,
    align,
    get: make,
    set: (d, o, value) => {
      for (const key of Object.keys(fields)) fields[key].set(d, o + offsets[key], value[key]);
    },
    view: (buffer, byteOffset = 0) => make(new DataView(buffer, byteOffset, size), 0),
    alloc: (init = {}) => {
      const bytes = new Uint8Array(size);
      const view = make(new DataView(bytes.buffer), 0);
      Object.assign(view, init);
      return { bytes, view };
    },
  };
}

/** Whether a value is a struct's view, and so has fields for {@linkcode fieldsOf}. */
export function isView(value: unknown): value is object {
  return typeof value === "object" && value !== null && DATA in value && OFFSET in value;
}

/**
 * Lists a struct's fields with their values, in declaration order. A field that is a struct itself
 * gives a view, which can be listed again.
 *
 * @param view what a struct reads as
 */
export function* fieldsOf(view: object): Generator<[name: string, value: unknown]> {
  // The accessors are the prototype's; a view's own properties have symbols for names.
  for (const name in view) yield [name, view[name as keyof typeof view]];
}

/**
 * Copies the fields that two structs have by the same name, for one layout that replaces another.
 *
 * @throws {RangeError} if bytes of one length go to a field of another
 */
export function copyFields(from: object, to: object): void {
  for (const [name, value] of fieldsOf(from)) {
    if (name in to) Reflect.set(to, name, value);
  }
}
