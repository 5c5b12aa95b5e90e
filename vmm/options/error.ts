/**
 * The error of everything that a user types.
 *
 * @module
 */

/** Something in the command line, or in an option's text given at run time, is wrong. */
export class OptionError extends Error {
  /** The class's name. */
  override readonly name = "OptionError";
  /** Whether the message already names the option that it is about. */
  readonly located: boolean;

  /**
   * Makes the error.
   *
   * @param message one line in QEMU's words, without the program's name
   * @param located whether the message begins with the option
   */
  constructor(message: string, located = false) {
    // What the user typed is quoted in it, and must not break the line or drive the terminal.
    super(message.replace(/\p{Cc}/gu, (control) => JSON.stringify(control).slice(1, -1)));
    this.located = located;
  }
}

/**
 * Runs `action` and puts the option that it is about in front of its errors, as QEMU does:
 * `-m abc: Parameter 'size' expects …`.
 *
 * @param where the option as the user typed it
 * @throws OptionError that names the option
 */
export function located<T>(where: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (!(error instanceof OptionError) || error.located) throw error;
    throw new OptionError(`${where}: ${error.message}`, true);
  }
}
