/**
 * Memory backends: `-object memory-backend-*`.
 *
 * @module
 */
import type { MemoryBackendConfig } from "../config.ts";
import { OptionError } from "./error.ts";
import type { RawOptions } from "./grammar.ts";
import { objectProperties, type ObjectType } from "./object_type.ts";
import { compact, readOptions, type Schema } from "./schema.ts";

const common = {
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

function read(qomType: QomType, options: RawOptions): MemoryBackendConfig {
  const type = TYPES[qomType];
  for (const name of qomType === "memory-backend-file" ? ["size", "mem-path"] : ["size"]) {
    if (!options.entries.has(name)) throw new OptionError(`Parameter '${name}' is missing`);
  }
  // Reading with the type's own properties refuses those of the other types.
  readOptions(options, { ...objectProperties, ...common, ...type.properties });
  const values = readOptions(options, { ...objectProperties, ...common, ...file, ...memfd });
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

/** The memory backends, as types of objects. */
export const memoryBackendTypes: readonly ObjectType[] = Object.entries(TYPES).map((
  [name, { properties }],
) => ({
  name,
  properties: Object.entries({ ...common, ...properties }).map(([name, type]) => ({
    name,
    type: type === "size" ? "int" : type as string,
    help: PROPERTY_HELP[name],
  })),
  read: (options) => read(name as QomType, options),
}));
