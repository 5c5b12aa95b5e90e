/**
 * Terminals and pseudo-terminals.
 *
 * @module
 */
import { check, errno, OsError, retry } from "./errno.ts";
import { O, openFile, OwnedFd } from "./fd.ts";
import { cstring, libc } from "./libc.ts";
import { bytes, struct, u32, u8 } from "./struct.ts";

/** struct termios of glibc (bits/termios-struct.h), which is not the kernel's: 60 bytes. */
const termios = struct("termios", {
  iflag: u32,
  oflag: u32,
  cflag: u32,
  lflag: u32,
  line: u8,
  cc: bytes(32),
  ispeed: u32,
  ospeed: u32,
});

// asm-generic/termbits.h
const Input = {
  IGNBRK: 0o1,
  BRKINT: 0o2,
  PARMRK: 0o10,
  ISTRIP: 0o40,
  INLCR: 0o100,
  IGNCR: 0o200,
  ICRNL: 0o400,
  IXON: 0o2000,
} as const;
const Output = { OPOST: 0o1 } as const;
const Control = { CSIZE: 0o60, CS8: 0o60, PARENB: 0o400 } as const;
const Local = {
  ISIG: 0o1,
  ICANON: 0o2,
  ECHO: 0o10,
  ECHONL: 0o100,
  IEXTEN: 0o100000,
} as const;
const VTIME = 5;
const VMIN = 6;
const TCSANOW = 0;

const SIGTTOU = 22;
const SIG_IGN = 1n;
const SIGACTION_SIZE = 152;

/** Whether a descriptor is a terminal. */
export function isTerminal(fd: number): boolean {
  return libc.isatty(fd) === 1;
}

/** Whether a terminal is this process's own, but another job of the shell's is in the foreground. */
export function isBackground(fd: number): boolean {
  const foreground = libc.tcgetpgrp(fd);
  return foreground !== -1 && foreground !== libc.getpgrp();
}

/** A terminal's settings: the bytes of its struct termios. @throws {OsError} */
export function getTermios(fd: number): Uint8Array<ArrayBuffer> {
  const settings = new Uint8Array(termios.size);
  check(libc.tcgetattr(fd, settings), "tcgetattr", `${fd}`);
  return settings;
}

/**
 * Changes a terminal's settings at once, also from a background process.
 *
 * @param fd the terminal, or the master of a pseudo-terminal
 * @param settings what {@linkcode getTermios} gave
 * @throws {OsError}
 * @throws {RangeError} if the settings have the wrong size
 */
export function setTermios(fd: number, settings: Uint8Array<ArrayBuffer>): void {
  if (settings.length !== termios.size) {
    throw new RangeError(`Terminal settings have ${settings.length} bytes, not ${termios.size}`);
  }
  // A background process is stopped by SIGTTOU unless it ignores it (termios(3)).
  const action = new Uint8Array(SIGACTION_SIZE);
  const handler = new BigUint64Array(action.buffer, 0, 1);
  handler[0] = SIG_IGN;
  check(libc.sigaction(SIGTTOU, action, 0), "sigaction(SIGTTOU)");
  try {
    check(retry(() => libc.tcsetattr(fd, TCSANOW, settings)), "tcsetattr", `${fd}`);
  } finally {
    handler[0] = 0n;
    libc.sigaction(SIGTTOU, action, 0);
  }
}

/**
 * Settings under which every key reaches the reader at once and unchanged, as QEMU sets them for
 * its stdio backend. Output is still processed, so that a newline begins at the left edge.
 *
 * @param settings what {@linkcode getTermios} gave; it stays as it is
 * @param options `signals`: whether the interrupt, quit and suspend keys still send signals
 */
export function makeRaw(
  settings: Uint8Array<ArrayBuffer>,
  options: { readonly signals: boolean },
): Uint8Array<ArrayBuffer> {
  const raw = settings.slice();
  const view = termios.view(raw.buffer);
  view.iflag &= ~sum(Input);
  view.oflag |= Output.OPOST;
  view.lflag &= ~(sum(Local) & ~(options.signals ? Local.ISIG : 0));
  view.cflag = view.cflag & ~(Control.CSIZE | Control.PARENB) | Control.CS8;
  view.cc[VMIN] = 1;
  view.cc[VTIME] = 0;
  return raw;
}

/** A pseudo-terminal that nobody has open at its slave side. */
export interface Pty {
  /** Non-blocking. */
  readonly master: OwnedFd;
  /** The slave's path, for example `/dev/pts/3`. */
  readonly path: string;
}

/**
 * Makes a pseudo-terminal whose slave side passes bytes through unchanged in both directions. Until
 * someone opens the slave, the master reports POLLHUP.
 *
 * @throws {OsError}
 */
export function openPty(): Pty {
  const flags = O.RDWR | O.NOCTTY | O.CLOEXEC | O.NONBLOCK;
  const master = new OwnedFd(check(libc.posix_openpt(flags), "posix_openpt"));
  try {
    check(libc.grantpt(master.fd), "grantpt");
    check(libc.unlockpt(master.fd), "unlockpt");
    const path = ptyPath(master.fd);
    // POLLHUP comes only once the slave was open; settings made through it stay with the pair.
    using slave = openFile(path, O.RDWR | O.NOCTTY);
    const settings = makeRaw(getTermios(slave.fd), { signals: false });
    termios.view(settings.buffer).oflag &= ~Output.OPOST;
    setTermios(slave.fd, settings);
    return { master, path };
  } catch (error) {
    master.close();
    throw error;
  }
}

/** The slave's path of a pseudo-terminal's master. @throws {OsError} if it is none */
export function ptyPath(master: number): string {
  const name = new Uint8Array(64);
  // Unlike the others, this function returns the error number.
  const error = libc.ptsname_r(master, name, name.length);
  if (error !== 0) throw new OsError("ptsname_r", error, `${master}`);
  return new TextDecoder().decode(name.subarray(0, name.indexOf(0)));
}

/**
 * Makes a symbolic link to a pseudo-terminal's slave.
 *
 * @throws {Error} in QEMU's words; `cause` is the {@linkcode OsError}
 */
export function linkPty(slave: string, path: string): void {
  if (libc.symlink(cstring(slave), cstring(path)) !== -1) return;
  const cause = new OsError("symlink", errno(), `'${path}'`);
  throw new Error(`Failed to create PTY symlink: ${cause.reason}`, { cause });
}

function sum(flags: Readonly<Record<string, number>>): number {
  return Object.values(flags).reduce((all, flag) => all | flag, 0);
}
