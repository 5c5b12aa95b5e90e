/**
 * Signals that end the VM.
 *
 * @module
 */
import { terminationSignals } from "../devices/chardev/raw_terminal.ts";
import type { MachineConfig } from "./config.ts";
import { stampMessage } from "./messages.ts";

/**
 * SIGINT, SIGTERM and SIGHUP end the VM as QEMU's do.
 *
 * @param config how the message begins that says so
 * @param end called with the signal's name
 * @returns takes the listeners away
 */
export function listenForSignals(
  config: MachineConfig,
  end: (signal: string) => void,
): () => void {
  const listeners = terminationSignals.map((signal) => {
    const listener = () => {
      console.error(stampMessage(config, `denovo: terminating on signal ${signal}`));
      end(signal);
    };
    Deno.addSignalListener(signal, listener);
    return () => Deno.removeSignalListener(signal, listener);
  });
  return () => listeners.forEach((remove) => remove());
}
