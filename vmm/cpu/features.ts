/**
 * Sets of CPU features: by name, and as the bits of a CPUID table.
 *
 * @module
 */
import type { CpuidEntry } from "../../ffi/kvm/cpuid.ts";
import { type CpuidRegister, type FeatureWord, featureWords } from "./feature_words.ts";

/** A feature's place: which of {@linkcode featureWords}, and which bit of it. */
interface FeatureBit {
  readonly word: number;
  readonly bit: number;
}

const bitsByName = new Map<string, FeatureBit[]>();
featureWords.forEach(({ names }, word) => {
  for (const [bit, aliases] of names) {
    for (const name of aliases) {
      const bits = bitsByName.get(name);
      if (bits) bits.push({ word, bit });
      else bitsByName.set(name, [{ word, bit }]);
    }
  }
});

/** The name as the table has it: QEMU also takes `_` for `-` (`sse4_1`, `kvm_pv_eoi`). */
const normalize = (name: string) => name.replaceAll("_", "-");

/** Whether `name` is a feature that `-cpu` can switch. */
export function isFeature(name: string): boolean {
  return bitsByName.has(normalize(name));
}

/** The names of all features, one for each, sorted as `-cpu help` has them. */
export function featureNames(): string[] {
  const names = featureWords.flatMap(({ names }) => [...names.values()].map(([name]) => name));
  return [...new Set(names)].sort();
}

/** Finds a leaf in a CPUID table; leaves without subleaves have index 0. */
export function findCpuid(
  table: readonly CpuidEntry[],
  leaf: number,
  index = 0,
): CpuidEntry | undefined {
  return table.find((entry) => entry.function === leaf && entry.index === index);
}

const hex = (value: number) => value.toString(16).toUpperCase().padStart(2, "0");

/** A register of a leaf in QEMU's words: `CPUID[eax=07h,ecx=00h].EBX`. */
export function describeRegister(
  leaf: number,
  index: number | undefined,
  register: CpuidRegister,
): string {
  const subleaf = index === undefined ? "" : `,ecx=${hex(index)}h`;
  return `CPUID[eax=${hex(leaf)}h${subleaf}].${register.toUpperCase()}`;
}

/** A bit in QEMU's words: `CPUID[eax=07h,ecx=00h].EBX.avx2 [bit 5]`. */
function describeBit({ leaf, index, register, names }: FeatureWord, bit: number): string {
  const name = names.get(bit)?.[0];
  return describeRegister(leaf, index, register) + (name ? `.${name}` : "") + ` [bit ${bit}]`;
}

/** Feature bits that can be switched by name. */
export class FeatureSet {
  readonly #words: Uint32Array;

  private constructor(words: Uint32Array) {
    this.#words = words;
  }

  /** The set of these names, separated by spaces; throws RangeError if one is unknown. */
  static of(names = ""): FeatureSet {
    const set = new FeatureSet(new Uint32Array(featureWords.length));
    for (const name of names.split(/\s+/)) if (name !== "") set.put(name, true);
    return set;
  }

  /** All bits of a CPUID table's feature words, those without a name too. */
  static fromCpuid(table: readonly CpuidEntry[]): FeatureSet {
    const words = featureWords.map(({ leaf, index, register }) =>
      findCpuid(table, leaf, index)?.[register] ?? 0
    );
    return new FeatureSet(Uint32Array.from(words));
  }

  /** A set that can be changed without changing this one. */
  clone(): FeatureSet {
    return new FeatureSet(this.#words.slice());
  }

  /** Whether all bits of a feature are in the set. @throws {RangeError} if it is unknown */
  has(name: string): boolean {
    return bitsOf(name).every(({ word, bit }) => (this.#words[word] >>> bit & 1) === 1);
  }

  /** Puts a feature into the set or takes it out. @throws {RangeError} if it is unknown */
  put(name: string, on: boolean): void {
    for (const { word, bit } of bitsOf(name)) {
      if (on) this.#words[word] |= 1 << bit;
      else this.#words[word] &= ~(1 << bit);
    }
  }

  /** One word's bits; 0 for a register that holds no features. */
  word(leaf: number, register: CpuidRegister, index?: number): number {
    const at = featureWords.findIndex((word) =>
      word.leaf === leaf && word.index === index && word.register === register
    );
    return this.#words[at] ?? 0;
  }

  /** What is in both sets. */
  and(other: FeatureSet): FeatureSet {
    return this.#combine(other, (a, b) => a & b);
  }

  /** What is in either set. */
  or(other: FeatureSet): FeatureSet {
    return this.#combine(other, (a, b) => a | b);
  }

  /** What is in this set but not in the other. */
  minus(other: FeatureSet): FeatureSet {
    return this.#combine(other, (a, b) => a & ~b);
  }

  /** Without the bits that have no name. */
  named(): FeatureSet {
    return new FeatureSet(
      this.#words.map((bits, i) => {
        let mask = 0;
        for (const bit of featureWords[i].names.keys()) mask |= 1 << bit;
        return bits & mask;
      }),
    );
  }

  /** Whether nothing is in the set. */
  get empty(): boolean {
    return this.#words.every((bits) => bits === 0);
  }

  /** Each bit in QEMU's words, `CPUID[eax=01h].ECX.cx16 [bit 13]`, in the order of the words. */
  describe(): string[] {
    const lines: string[] = [];
    this.#words.forEach((bits, i) => {
      for (let bit = 0; bits >>> bit !== 0 && bit < 32; bit++) {
        if (bits >>> bit & 1) lines.push(describeBit(featureWords[i], bit));
      }
    });
    return lines;
  }

  #combine(other: FeatureSet, operation: (a: number, b: number) => number): FeatureSet {
    return new FeatureSet(this.#words.map((bits, i) => operation(bits, other.#words[i])));
  }
}

function bitsOf(name: string): readonly FeatureBit[] {
  const bits = bitsByName.get(normalize(name));
  if (!bits) throw new RangeError(`CPU feature '${name}' is unknown`);
  return bits;
}
