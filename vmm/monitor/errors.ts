/**
 * Errors of monitor commands, with QMP's error classes (QAPI QapiErrorClass).
 *
 * @module
 */

/** QMP's error classes. New code uses `GenericError` unless clients must tell an error apart. */
export type ErrorClass =
  | "GenericError"
  | "CommandNotFound"
  | "DeviceNotActive"
  | "DeviceNotFound"
  | "KVMMissingCap";

/** A command's failure as QMP reports it: `message` is the reply's `desc`. */
export class QmpError extends Error {
  /** The class's name. */
  override readonly name = "QmpError";
  /** The reply's `class`. */
  readonly errorClass: ErrorClass;

  /**
   * An error with its reply's members.
   *
   * @param desc one sentence for humans
   * @param errorClass what programs may act on
   */
  constructor(desc: string, errorClass: ErrorClass = "GenericError") {
    super(desc);
    this.errorClass = errorClass;
  }
}

/** The error that `device_del` and others give for an id that no device has. */
export function deviceNotFound(id: string): QmpError {
  return new QmpError(`Device '${id}' not found`, "DeviceNotFound");
}

/** The error of a command that the run state does not allow. */
export function notPermitted(command: string, state: string): QmpError {
  return new QmpError(`The command '${command}' isn't permitted in '${state}' state`);
}

/** Any thrown value as a QmpError: errors of the VM's own code become `GenericError`. */
export function toQmpError(thrown: unknown): QmpError {
  if (thrown instanceof QmpError) return thrown;
  return new QmpError(thrown instanceof Error ? thrown.message : String(thrown));
}
