/**
 * QMP commands about guest memory.
 *
 * @module
 */
import { OsError } from "../../../ffi/errno.ts";
import { O, openFile, type OwnedFd, writeAll } from "../../../ffi/fd.ts";
import { defineCommand } from "../command.ts";
import type { Command } from "../context.ts";
import type { Awaitable } from "../control.ts";
import { QmpError } from "../errors.ts";
import { type Chunk, chunksOf, readVirtual } from "../guest_read.ts";

const schemas = () => import("../schema/memory.ts");

const saveParameters = [
  { name: "val", type: "long" },
  { name: "size", type: "int" },
  { name: "filename", type: "filename" },
] as const;

/** `query-memdev`, `query-memory-size-summary`, `memsave`, `pmemsave` */
export const memoryCommands: readonly Command[] = [
  defineCommand({
    name: "query-memdev",
    help: "show memory backends",
    schema: async () => (await schemas()).queryMemdev,
    handler: ({ machine }) =>
      machine.memoryBackends.map(({ share, reserve, prealloc, size, merge, dump, id }) => ({
        share,
        reserve,
        prealloc,
        "host-nodes": [],
        size,
        merge,
        dump,
        policy: "default" as const,
        id,
      })),
  }),
  defineCommand({
    name: "query-memory-size-summary",
    help: "show the amount of initially allocated and plugged memory in bytes",
    schema: async () => (await schemas()).queryMemorySizeSummary,
    handler: ({ machine: { memory } }) => ({
      "base-memory": memory.size,
      "plugged-memory": memory.plugged,
    }),
  }),
  defineCommand({
    name: "memsave",
    help: "save to disk virtual memory dump starting at 'addr' of size 'size'",
    schema: async () => (await schemas()).memsave,
    handler: async ({ machine }, { val, size, filename, "cpu-index": cpuIndex = 0 }) => {
      if (!machine.vcpus.some(({ index }) => index === cpuIndex)) {
        throw new QmpError("Parameter 'cpu-index' expects a CPU number");
      }
      await save(
        filename,
        val,
        size,
        ({ address, length }) => readVirtual(machine, cpuIndex, address, length),
      );
    },
    hmp: {
      parameters: saveParameters,
      usage: "addr size file",
      run: async (context, args) => {
        const { cpuIndex } = context.session;
        await context.table.execute(context, "memsave", { ...args, "cpu-index": cpuIndex });
      },
    },
  }),
  defineCommand({
    name: "pmemsave",
    help: "save to disk physical memory dump starting at 'addr' of size 'size'",
    schema: async () => (await schemas()).pmemsave,
    handler: ({ machine }, { val, size, filename }) =>
      // What is no memory reads as zeros, as QEMU has it.
      save(filename, val, size, ({ address, length }) =>
        machine.readMemory(address, length) ?? new Uint8Array(length)),
    hmp: { parameters: saveParameters, usage: "addr size file" },
  }),
];

/** Writes a range of guest memory to a file. */
async function save(
  filename: string,
  address: bigint,
  size: bigint,
  read: (chunk: Chunk) => Awaitable<Uint8Array<ArrayBuffer> | undefined>,
): Promise<void> {
  if (size < 0n) throw new QmpError("Parameter 'size' expects a non-negative value");
  using file = create(filename);
  for await (const chunk of chunksOf(address, size)) {
    const bytes = await read(chunk);
    if (!bytes) {
      const start = BigInt.asUintN(64, address).toString(16).padStart(16, "0");
      throw new QmpError(`Invalid addr 0x${start}/size ${size} specified`);
    }
    write(file, bytes, filename);
  }
}

function write(file: OwnedFd, bytes: Uint8Array<ArrayBuffer>, filename: string): void {
  try {
    writeAll(file.fd, bytes);
  } catch (error) {
    if (!(error instanceof OsError)) throw error;
    throw new QmpError(`writing memory to '${filename}' failed: ${error.reason}`);
  }
}

function create(filename: string): OwnedFd {
  try {
    return openFile(filename, O.WRONLY | O.CREAT | O.TRUNC | O.NONBLOCK);
  } catch (error) {
    if (!(error instanceof OsError)) throw error;
    throw new QmpError(`Could not open '${filename}': ${error.reason}`);
  }
}
