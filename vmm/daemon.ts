/**
 * `-daemonize`.
 *
 * A process with threads cannot fork, so the parent starts itself anew in a session of its own and
 * waits until the VM is up there.
 *
 * @module
 */
import {
  fileStatus,
  isOpen,
  makePipe,
  O,
  openFile,
  OwnedFd,
  readFd,
  redirect,
  setCloexec,
  writeAll,
} from "../ffi/fd.ts";
import { readStrings, spawn } from "../ffi/process.ts";
import type { Reactor } from "../ffi/reactor.ts";

/** Tells the child which descriptor its parent waits on. */
const READY_FD = "DENOVO_DAEMON_READY_FD";

/**
 * Tells the successor that a live update starts which descriptor its errors go to later.
 *
 * @internal
 */
export const UPDATE_OUTPUT_FD = "DENOVO_UPDATE_OUTPUT_FD";

/** Whether this process is the one that `-daemonize` started. */
export function isDaemonChild(): boolean {
  return Deno.env.has(READY_FD);
}

/**
 * Starts this very command in the background and waits until its VM is up.
 *
 * @returns the exit status: 0 when it is up, 1 when it ended before
 */
export function startDaemon(): number {
  const [reader, writer] = makePipe();
  using waiting = reader;
  {
    using ready = writer;
    const child = spawn(ownCommandLine(), {
      env: { [READY_FD]: `${ready.fd}` },
      fds: [[ready.fd, ready.fd]],
      newSession: true,
    });
    child[Symbol.dispose]();
  }
  return readFd(waiting.fd, new Uint8Array(1)) === 1 ? 0 : 1;
}

/** Takes the descriptor that the parent waits on; its children shall not have it. */
export function takeReadyFd(): OwnedFd | undefined {
  const value = Deno.env.get(READY_FD);
  if (value === undefined) return undefined;
  Deno.env.delete(READY_FD);
  setCloexec(Number(value), true);
  return new OwnedFd(Number(value));
}

/** Calls `gone` if the parent ends before the VM is up: nobody would know of it. */
export function watchParent(reactor: Reactor, ready: OwnedFd, gone: () => void): void {
  // A pipe that nobody reads any more is in error, which is always reported.
  reactor.add(ready.fd, 0, () => {
    reactor.remove(ready.fd);
    gone();
  });
}

/** Lets the parent end, and leaves its terminal. */
export function daemonIsUp(reactor: Reactor, ready: OwnedFd): void {
  using own = ready;
  reactor.remove(own.fd);
  using nothing = openFile("/dev/null", O.RDWR);
  for (const fd of stdioFds()) redirect(nothing.fd, fd);
  writeAll(own.fd, new Uint8Array(1));
}

/**
 * 0, 1, 2 and the duplicates that Deno makes of them, some for each thread: whoever reads the
 * parent's output would wait until all of them are closed.
 */
function stdioFds(): number[] {
  const stdio = [0, 1, 2];
  const streams = stdio.filter((fd) => fileStatus(fd).kind !== "file");
  return [...new Set([...stdio, ...streams.flatMap(sameAs)])];
}

/**
 * Takes the descriptor that a live update leaves to a successor which it starts: its errors go to
 * the update at first, and to where its predecessor's went once the guest is its own.
 *
 * @returns to be called when the guest has arrived; undefined if no update started this process
 */
export function takeUpdateOutput(): (() => void) | undefined {
  const value = Deno.env.get(UPDATE_OUTPUT_FD);
  if (value === undefined) return undefined;
  Deno.env.delete(UPDATE_OUTPUT_FD);
  const output = new OwnedFd(Number(value));
  setCloexec(output.fd, true);
  return () => {
    using own = output;
    // Deno writes to duplicates of 2.
    for (const fd of sameAs(2)) {
      redirect(own.fd, fd);
      if (fd > 2) setCloexec(fd, true);
    }
  };
}

/** The open descriptors that refer to what this one refers to, itself among them. */
function sameAs(fd: number): number[] {
  const target = targetOf(fd);
  const all = Array.from(Deno.readDirSync("/proc/self/fd"), ({ name }) => Number(name));
  return all.filter((other) => isOpen(other) && targetOf(other) === target);
}

/** What a descriptor refers to, as the kernel names it. */
function targetOf(fd: number): string {
  return Deno.readLinkSync(`/proc/self/fd/${fd}`);
}

/** The command line of this process, as the kernel has it. */
export function ownCommandLine(): string[] {
  const argv = readStrings("/proc/self/cmdline");
  // The name may be relative to a PATH or a folder that has changed.
  return [Deno.execPath(), ...argv.slice(1)];
}

/** The program's own arguments. Deno changes bytes that are not UTF-8, and the kernel has them still. */
export function ownArguments(): string[] {
  const { args } = Deno;
  if (!args.some((text) => text.includes("\ufffd"))) return args;
  return readStrings("/proc/self/cmdline").slice(-args.length);
}
