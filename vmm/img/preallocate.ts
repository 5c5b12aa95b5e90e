/**
 * `-o preallocation=`: what a new image has on its file system before anything is written to it.
 *
 * @module
 */
import { allocateRange } from "../../ffi/disk.ts";
import { O, openFile } from "../../ffi/fd.ts";
import { resizeFile } from "../../ffi/memory.ts";
import { ImgImage, must } from "./image.ts";

/** What it may be of each format; `off` unless given. */
const modes = {
  raw: ["off", "falloc", "full"],
  qcow2: ["off", "metadata", "falloc", "full"],
} as const;

/**
 * How much a new image has: nothing, its tables, room on the file system as well, or zeros that were
 * written there.
 */
export type Preallocation = typeof modes[keyof typeof modes][number];

/** The values that are allowed of a qcow2 image, as its help has them. */
export const preallocationHelp: string = `Preallocation mode (allowed values: ${
  modes.qcow2.join(", ")
})`;

/** Reads what is given among the options of an image. @throws {Error} in QEMU's words */
export function readPreallocation(
  filename: string,
  format: keyof typeof modes,
  options: ReadonlyMap<string, string>,
): Preallocation {
  const given = options.get("preallocation") ?? "off";
  const mode = modes[format].find((one) => one === given);
  if (mode !== undefined) {
    if (mode === "off" || options.get("backing_file") === undefined) return mode;
    throw new Error(
      `${filename}: Backing file and preallocation can only be used at the same time if extended_l2 is on`,
    );
  }
  if (format === "qcow2") {
    throw new Error(`${filename}: Parameter 'preallocation' does not accept value '${given}'`);
  }
  throw new Error(
    given === "metadata"
      ? `${filename}: Unsupported preallocation mode: metadata`
      : `${filename}: invalid parameter value: ${given}`,
  );
}

/** Gives all of a new image what it shall have. @throws {Error} if there is no room */
export function preallocate(
  filename: string,
  format: keyof typeof modes,
  mode: Preallocation,
): void {
  if (mode === "off") return;
  using image = new ImgImage(filename, { format, writable: true });
  const end = image.qcow2?.allocateAll() ?? image.size;
  using file = openFile(filename, O.RDWR);
  if (mode === "falloc") must("allocation", filename, 0, allocateRange(file.fd, 0, end));
  else resizeFile(file.fd, end);
  if (mode === "full") image.writeZeros();
}
