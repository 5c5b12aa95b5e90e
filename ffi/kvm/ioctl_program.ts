/**
 * Programs of ioctls, for the pause.
 *
 * @module
 */
import { CallProgram, SYS_IOCTL } from "../call_program.ts";
import { OsError } from "../errno.ts";
import { requestName } from "./ioctl.ts";

/** An ioctl with a struct that the kernel reads or fills. */
export interface PreparedIoctl {
  readonly request: number;
  readonly buffer: Uint8Array<ArrayBuffer>;
  /** What it returns if all is well; 0 as a rule. */
  readonly expected?: number;
}

/** Where a program has ended. */
export interface IoctlFailure {
  /** Which of the ioctls it was. */
  readonly index: number;
  /** What it has returned, or its error. */
  readonly result: number | OsError;
}

/** Ioctls on one descriptor, one after the other. */
export class IoctlProgram {
  readonly #ioctls: readonly PreparedIoctl[];
  readonly #program: CallProgram;

  /** @param fd stays open as long as this runs */
  constructor(fd: number, ioctls: readonly PreparedIoctl[]) {
    this.#ioctls = ioctls;
    this.#program = new CallProgram(ioctls.map(({ request, buffer, expected = 0 }) => ({
      number: SYS_IOCTL,
      args: [fd, request, buffer],
      expected,
    })));
  }

  /** Does them, up to the first that does not return what it should. */
  run(): IoctlFailure | undefined {
    const index = this.#program.run();
    if (index === this.#ioctls.length) return undefined;
    const { result } = this.#program;
    if (result >= 0) return { index, result };
    const name = requestName(this.#ioctls[index].request);
    return { index, result: new OsError(name, -result) };
  }
}
