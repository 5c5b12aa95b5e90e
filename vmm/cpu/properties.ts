/**
 * The properties of a CPU beside its features: `-cpu host,enforce,phys-bits=40`.
 *
 * @module
 */
import { OptionError } from "../options/error.ts";
import { parseUint } from "../options/values.ts";

/** What the user has said; what is undefined follows from model and host. */
export interface CpuProperties {
  /** Warn about features that the host lacks; the default. */
  check?: boolean;
  /** Fail if the host lacks a feature. */
  enforce?: boolean;
  /** Show KVM's signature and features. */
  kvm?: boolean;
  /** `host` and `max`: leave out what can't follow the guest to another host; the default. */
  migratable?: boolean;
  /** Give the host's performance counters. */
  pmu?: boolean;
  /** Use the host's physical address width. */
  hostPhysBits?: boolean;
  /** The most that hostPhysBits gives; 0 for no limit. */
  hostPhysBitsLimit?: number;
  /** Bits of a guest physical address. */
  physBits?: number;
  /** Family, with the extended family added. */
  family?: number;
  /** Model, with the extended model as its high digit. */
  model?: number;
  /** Stepping. */
  stepping?: number;
  /** The highest basic leaf. */
  level?: number;
  /** The highest extended leaf. */
  xlevel?: number;
  /** Twelve characters: `GenuineIntel`. */
  vendor?: string;
  /** The brand string. */
  modelId?: string;
}

/** Physical address widths that x86-64 and its page tables allow. */
const PHYS_BITS = { min: 32, max: 52 } as const;

type Setter = (to: CpuProperties, name: string, value: string | boolean) => void;
type KeysOf<T> = { [K in keyof CpuProperties]-?: CpuProperties[K] extends T ? K : never }[
  keyof CpuProperties
];

function flag(key: KeysOf<boolean | undefined>): Setter {
  return (to, name, value) => {
    if (typeof value !== "boolean") {
      throw new OptionError(`Parameter '${name}' expects 'on' or 'off'`);
    }
    to[key] = value;
  };
}

function number(key: KeysOf<number | undefined>, max: number): Setter {
  return (to, name, value) => {
    const parsed = parseUint(name, textOf(value), 64);
    if (parsed > max) throw new OptionError(`parameter '${name}' can be at most ${max}`);
    to[key] = parsed;
  };
}

const setters: Readonly<Record<string, Setter>> = {
  "check": flag("check"),
  "enforce": flag("enforce"),
  "kvm": flag("kvm"),
  "migratable": flag("migratable"),
  "pmu": flag("pmu"),
  "host-phys-bits": flag("hostPhysBits"),
  "host-phys-bits-limit": number("hostPhysBitsLimit", 255),
  "phys-bits": (to, name, value) => {
    const bits = parseUint(name, textOf(value), 32);
    // 0 is QEMU's way to say that the width isn't fixed.
    if (bits !== 0 && (bits < PHYS_BITS.min || bits > PHYS_BITS.max)) {
      throw new OptionError(
        `phys-bits should be between ${PHYS_BITS.min} and ${PHYS_BITS.max}  (but is ${bits})`,
      );
    }
    to.physBits = bits === 0 ? undefined : bits;
  },
  // The limits are those of the fields of leaf 1: 15 plus an 8-bit extension; 8 bits; 4 bits.
  "family": number("family", 0xf + 0xff),
  "model": number("model", 0xff),
  "stepping": number("stepping", 0xf),
  "level": number("level", 0xffff_ffff),
  "xlevel": number("xlevel", 0xffff_ffff),
  "vendor": (to, name, value) => {
    const text = textOf(value);
    if (!/^[\x20-\x7e]{12}$/.test(text)) {
      throw new OptionError(`value of property '${name}' must consist of exactly 12 characters`);
    }
    to.vendor = text;
  },
  "model-id": (to, _name, value) => {
    to.modelId = textOf(value);
  },
};

/**
 * Sets one property.
 *
 * @param model the CPU model's name, for messages
 * @throws {OptionError} in QEMU's words if the property is unknown or its value is wrong
 */
export function setProperty(
  to: CpuProperties,
  model: string,
  name: string,
  value: string | boolean,
): void {
  const passthroughOnly = name === "migratable" && model !== "host" && model !== "max";
  if (!Object.hasOwn(setters, name) || passthroughOnly) {
    throw new OptionError(`Property '${model}-x86_64-cpu.${name}' not found`);
  }
  setters[name](to, name, value);
}

/** A value that looks like a boolean was meant as text: `model-id=on`. */
function textOf(value: string | boolean): string {
  if (typeof value === "string") return value;
  return value ? "on" : "off";
}
