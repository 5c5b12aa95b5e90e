/**
 * Text and numbers as CPUID registers hold them.
 *
 * @module
 */

/** Decodes ASCII from registers, lowest byte first, up to the first NUL. */
export function decodeText(...registers: number[]): string {
  const bytes = new Uint8Array(Uint32Array.from(registers).buffer);
  return String.fromCharCode(...bytes).replace(/\0[^]*$/, "");
}

/** Encodes ASCII into `count` registers, filled up with NULs; what is too long is cut off. */
export function encodeText(text: string, count: number): number[] {
  const bytes = Uint8Array.from({ length: count * 4 }, (_, i) => text.charCodeAt(i) || 0);
  return [...new Uint32Array(bytes.buffer)];
}

/** A processor's signature, unpacked. */
export interface Signature {
  /** Family, with the extended family added. */
  readonly family: number;
  /** Model, with the extended model as its high digit. */
  readonly model: number;
  /** Stepping. */
  readonly stepping: number;
}

/** Unpacks EAX of leaf 1 (Intel SDM volume 2, CPUID, "Version Information"). */
export function decodeSignature(eax: number): Signature {
  const family = eax >>> 8 & 0xf;
  return {
    family: family === 0xf ? family + (eax >>> 20 & 0xff) : family,
    model: eax >>> 4 & 0xf | eax >>> 12 & 0xf0,
    stepping: eax & 0xf,
  };
}

/** Packs EAX of leaf 1. */
export function encodeSignature({ family, model, stepping }: Signature): number {
  const extended = Math.max(0, family - 0xf);
  return (extended << 20 | (family - extended) << 8 | (model & 0xf0) << 12 | (model & 0xf) << 4 |
    stepping) >>> 0;
}
