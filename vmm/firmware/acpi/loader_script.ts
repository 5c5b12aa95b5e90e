/**
 * `etc/table-loader`: what firmware shall do with the tables that it finds in fw_cfg (QEMU's
 * hw/acpi/bios-linker-loader.c has the layout).
 *
 * @module
 */

/** One thing to do; files are those of fw_cfg, offsets and sizes are bytes. */
export type LoaderCommand =
  | {
    readonly command: "allocate";
    readonly file: string;
    readonly align: number;
    /** Anywhere, or in the BIOS area, which is scanned. */
    readonly zone: "high" | "bios";
  }
  | {
    /** Adds where `target` lies to the number that is there. */
    readonly command: "add-pointer";
    readonly file: string;
    readonly target: string;
    readonly offset: number;
    readonly size: number;
  }
  | {
    /** Sets the byte at `at` so that the sum of a range is 0. */
    readonly command: "add-checksum";
    readonly file: string;
    readonly at: number;
    readonly start: number;
    readonly size: number;
  };

const ENTRY_SIZE = 128;
const NAME_SIZE = 56;
const Code = { ALLOCATE: 1, ADD_POINTER: 2, ADD_CHECKSUM: 3 } as const;
const Zone = { high: 1, bios: 2 } as const;

/** Makes the file. */
export function loaderScript(commands: readonly LoaderCommand[]): Uint8Array {
  const bytes = new Uint8Array(commands.length * ENTRY_SIZE);
  commands.forEach((command, i) =>
    encode(command, bytes.subarray(i * ENTRY_SIZE, (i + 1) * ENTRY_SIZE))
  );
  return bytes;
}

function encode(command: LoaderCommand, entry: Uint8Array<ArrayBuffer>): void {
  const view = new DataView(entry.buffer, entry.byteOffset, entry.length);
  const setName = (name: string, at: number) => entry.set(new TextEncoder().encode(name), at);
  setName(command.file, 4);
  const after = 4 + NAME_SIZE;
  switch (command.command) {
    case "allocate":
      view.setUint32(0, Code.ALLOCATE, true);
      view.setUint32(after, command.align, true);
      entry[after + 4] = Zone[command.zone];
      break;
    case "add-pointer":
      view.setUint32(0, Code.ADD_POINTER, true);
      setName(command.target, after);
      view.setUint32(after + NAME_SIZE, command.offset, true);
      entry[after + NAME_SIZE + 4] = command.size;
      break;
    case "add-checksum":
      view.setUint32(0, Code.ADD_CHECKSUM, true);
      view.setUint32(after, command.at, true);
      view.setUint32(after + 4, command.start, true);
      view.setUint32(after + 8, command.size, true);
      break;
  }
}
