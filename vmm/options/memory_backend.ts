/**
 * `-object memory-backend-*`.
 *
 * @module
 */
import type { MemoryBackendConfig } from "../config.ts";
import type { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { fromJson, parseJsonOrOpts, type RawOptions } from "./grammar.ts";
import { propertyHelp } from "./property_help.ts";
import { compact, readOptions, type Schema } from "./schema.ts";

const common = {
  "qom-type": "string",
  id: "id",
  size: "size",
  share: "bool",
  prealloc: "bool",
} as const satisfies Schema;

const file = {
  "mem-path": "string",
  align: "size",
  offset: "size",
  readonly: "bool",
} as const satisfies Schema;

const memfd = {
  hugetlb: "bool",
  hugetlbsize: "size",
  seal: "bool",
} as const satisfies Schema;

type QomType = MemoryBackendConfig["qomType"];

/** Each type's own properties, and whether its memory is shared unless told otherwise. */
const TYPES: Readonly<Record<QomType, { readonly properties: Schema; readonly share: boolean }>> = {
  "memory-backend-file": { properties: file, share: false },
  "memory-backend-memfd": { properties: memfd, share: true },
  "memory-backend-ram": { properties: {}, share: false },
  "memory-backend-shm": { properties: {}, share: true },
};

const PAGE_SIZE = 4096;

const isQomType = (name: string): name is QomType => Object.hasOwn(TYPES, name);

const missing = (name: string) => new OptionError(`Parameter '${name}' is missing`);

/** One line for each property in `-object TYPE,help`. */
const PROPERTY_HELP: Readonly<Record<string, string>> = {
  size: "Size of the memory region (ex: 500M)",
  share: "Mark the memory as private to the VMM or shared",
  prealloc: "Preallocate memory",
  "mem-path": "Path of the file, or of a directory to make one in",
  align: "Alignment of the mapping",
  offset: "Start of the memory in the file",
  readonly: "Open the file for reading only",
  hugetlb: "Use huge pages",
  hugetlbsize: "Huge pages size (ex: 2M, 1G)",
  seal: "Seal growing & shrinking",
};

function objectTypesHelp(): string {
  return ["List of user creatable objects:", ...Object.keys(TYPES).map((name) => `  ${name}`)]
    .join("\n");
}

function readQomType(options: RawOptions): QomType {
  const name = options.entries.get("qom-type");
  if (name === undefined) throw missing("qom-type");
  if (typeof name !== "string" || !isQomType(name)) {
    throw new OptionError(`Parameter 'qom-type' does not accept value '${name}'`);
  }
  return name;
}

function check({ qomType, size, share, align, offset, hugetlb, hugetlbsize }: MemoryBackendConfig) {
  if (size === 0) {
    throw new OptionError(`property 'size' of ${qomType} doesn't take value '0'`);
  }
  for (const [name, value] of [["size", size], ["alignment", align], ["offset", offset]] as const) {
    if (value !== undefined && value % PAGE_SIZE !== 0) {
      throw new OptionError(
        `${name} 0x${value.toString(16)} must be multiples of page size 0x1000`,
      );
    }
  }
  if (hugetlb && hugetlbsize !== undefined && Math.log2(hugetlbsize) % 1 !== 0) {
    throw new OptionError("Hugepage size must be a power of 2");
  }
  if (qomType === "memory-backend-shm" && !share) {
    throw new OptionError("can't create shm backend with `share=off`");
  }
}

function fromOptions(options: RawOptions): MemoryBackendConfig {
  const qomType = readQomType(options);
  if (!options.entries.has("id")) throw missing("id");
  const type = TYPES[qomType];
  if (!options.entries.has("size")) throw missing("size");
  if (qomType === "memory-backend-file" && !options.entries.has("mem-path")) {
    throw missing("mem-path");
  }
  // Reading with the type's own properties refuses those of the other types.
  readOptions(options, { ...common, ...type.properties });
  const values = readOptions(options, { ...common, ...file, ...memfd });
  const config: MemoryBackendConfig = compact({
    qomType,
    id: values.id!,
    size: values.size!,
    share: values.share ?? type.share,
    memPath: values["mem-path"],
    prealloc: values.prealloc ?? false,
    hugetlb: values.hugetlb ?? false,
    hugetlbsize: values.hugetlbsize,
    align: values.align,
    offset: values.offset,
    readonly: values.readonly ?? false,
    seal: values.seal ?? true,
  });
  check(config);
  return config;
}

/**
 * Reads a memory backend: `memory-backend-memfd,id=ram0,size=1G`, JSON text, or `object-add`'s
 * arguments.
 *
 * @throws OptionError in QEMU's words
 */
export function parseObject(
  input: string | Readonly<Record<string, unknown>>,
): MemoryBackendConfig {
  return fromOptions(
    typeof input === "string" ? parseJsonOrOpts(input, "qom-type") : fromJson(input),
  );
}

/** The help that `-object help` or `-object TYPE,help` asks for, if the text does. */
export function objectHelp(text: string): string | undefined {
  const options = parseJsonOrOpts(text, "qom-type");
  if (!options.help) return undefined;
  if (!options.entries.has("qom-type")) return objectTypesHelp();
  const qomType = readQomType(options);
  const { "qom-type": _type, id: _id, ...properties } = { ...common, ...TYPES[qomType].properties };
  return propertyHelp(
    qomType,
    Object.entries(properties).map(([name, type]) => ({
      name,
      type: type === "size" ? "int" : type as string,
      help: PROPERTY_HELP[name],
    })),
  );
}

/** `-object` */
export function object(text: string, draft: Draft): void {
  const backend = parseObject(text);
  if (draft.config.objects.some(({ id }) => id === backend.id)) {
    throw new OptionError(`Duplicate ID '${backend.id}' for object`);
  }
  draft.config.objects = [...draft.config.objects, backend];
}
