/**
 * The files that entropy devices read.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { O, openFile } from "../../ffi/fd.ts";
import type { DeviceRequest } from "../bus/device_set.ts";
import type { MachineConfig } from "../config.ts";

/**
 * Opens the sources that entropy devices name by `rng`, where they are files.
 *
 * @param opened closes them
 * @throws {Error} in QEMU's words if one cannot be opened
 */
export function openEntropy(
  requests: readonly DeviceRequest[],
  { rngs }: MachineConfig,
  opened: DisposableStack,
): DeviceRequest[] {
  return requests.map((request) => {
    const { rng } = request.properties;
    const filename = rngs.find(({ id }) => id === rng)?.filename;
    if (filename === undefined) return request;
    const source = opened.use(openSource(filename)).fd;
    return { ...request, properties: { ...request.properties, source } };
  });
}

function openSource(filename: string) {
  try {
    return openFile(filename, O.RDONLY | O.NONBLOCK);
  } catch (cause) {
    if (!(cause instanceof OsError)) throw cause;
    throw new Error(`Could not open '${filename}': ${cause.reason}`, { cause });
  }
}
