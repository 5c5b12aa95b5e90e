/**
 * The anchor: a process that keeps a guest running while the process that has made its VM executes
 * another program.
 *
 * KVM ties a VM to the memory map of the process that has made it; execve gives a process another one.
 * The anchor is cloned with CLONE_VM, so it has the same map, and keeps it. It is machine code alone
 * (`anchor.s`): a leader and one thread for each vCPU. They get their orders in a mailbox, a memfd that
 * the program before and the one after map; whoever has it can stop the vCPUs, let them run, and have
 * the anchor make system calls, ioctls on its VM above all, which fail in any other process.
 *
 * ```text
 * head    u64 magic   u32 version   u32 vCPUs   u64 where the anchor has the mailbox   u32 process id
 *         u32 whether time is up   timespec of CLOCK_MONOTONIC when it is   u64 three signal masks
 * lines   one for the leader and for each vCPU: u32 order, phase, done, thread id   i64 result of
 *         KVM_RUN   u64 program   u64 descriptor   u64 kvm_run page   u64 stack
 * arenas  for programs and what their calls point to, one for each line
 * stacks  one for each line
 * ```
 *
 * A vCPU that comes out of the guest for anything waits: its exit stays in its kvm_run page until
 * somebody serves it. The anchor ends with the thread that has made it, at once (PR_SET_PDEATHSIG). If
 * nobody has taken the guest when the time is up, it stops the vCPUs for good, and can still be asked
 * for their state.
 *
 * @module
 */
import {
  ANCHOR_VERSION,
  ARENA,
  arenaAt,
  Head,
  Line,
  lineAt,
  MAGIC,
  mailboxSize,
  MAX_VCPUS,
  PAGE,
  stackTop,
} from "./anchor_layout.ts";
import { type AnchorBuffer, AnchorProgram, ioctlCall } from "./anchor_program.ts";
import { encodeCalls, type EncodedCall, programSize } from "./call_program.ts";
import { Errno, OsError } from "./errno.ts";
import { monotonicNow } from "./event.ts";
import { fileStatus, type OwnedFd } from "./fd.ts";
import { KVM } from "./kvm/ioctl.ts";
import { Exit, type RunPage } from "./kvm/run.ts";
import { libc } from "./libc.ts";
import { addSeals, makeMemfd, mapCode, type MappedRegion, mapShared, Seal } from "./memory.ts";
import { ChildProcess, endChild, hasEnded, KICK_SIGNAL, SIGKILL } from "./process.ts";

/** `anchor.s`, base64: `as --64`, then `ld -Ttext=0 --oformat=binary`; a test does the same. */
const CODE: string =
  "6xUAAAAAAADDAAAAAAAAALgPAAAADwVTQVRBVUiJ+0iNczBIjVNA6DcAAAC4OAAAAL8RAQAASIuzsAAAADHSRTHSRTHADwVIhcB0" +
  "KkmJxEiNc0Ax0ugJAAAATIngQV1BXFvDuA4AAAC/AgAAAEG6CAAAAA8Fw0iNq4AAAADodAEAAE07Jg+F2wEAAEUx/0yNZUBEO3sM" +
  "czS4OAAAAL8ADxUASYt0JDBJjVQkDEUx0kUxwA8FSIXAD4SXAAAAD4ijAQAASYPEQEH/x+vG6GsBAABMjXsgg30AAnUM6BYBAADo" +
  "VwEAAOvuuMoAAABIie++CQAAADHSTYn6RTHAQbn/////DwVIg/iSdctFMf/HQxwBAAAARTHtTI1lQEQ7awxztEmLRCQoxkABAbgB" +
  "AAAAMdLwQQ+xFCS46gAAAIt7GEGLdCQMuigAAAAPBUmDxEBB/8Xrx0yJ5UiNczgx0ugB////i0UAg/gBdCeD+AJ1DOiCAAAA6MMA" +
  "AADr57jKAAAASInvvgAAAAAx0kUx0g8F69G4AQAAAIdFBOs/uBAAAABIi30gvoCuAAAx0g8FSIlFEEiD+Px0I0iD+PV0HbkCAAAA" +
  "SIXAdAW5AwAAALgBAAAAMdLwD7FVAOsLg30AAXS7uQAAAACHTQRIjX0E6GMAAADpbP///0yLdRhNjW4YRTHk6y9Ji0UASYt9CEmL" +
  "dRBJi1UYTYtVIE2LRShNi00wDwVJiUYQSTtFOHUMSYPFQEn/xE07JnLMTYlmCMO4AgAAADHS8A+xVQC4AQAAAIdFCEiNfQi4ygAA" +
  "AL4BAAAAugEAAAAPBcO/AQAAALjnAAAADwU=";
/** Where the kick signal's handler is in it, and where it returns to. */
const HANDLER = 8;
const RESTORER = 16;

const Order = { IDLE: 0, RUN: 1, CALLS: 2 } as const;
/** What a vCPU of the anchor does; EXITED is to wait for its exit to be served. */
export const AnchorPhase = { STOPPED: 0, RUNNING: 1, EXITED: 2, FAILED: 3 } as const;

const SYS_RT_SIGACTION = 13;
const SYS_RT_SIGPROCMASK = 14;
const SYS_GETPPID = 110;
const SYS_PRCTL = 157;
const SYS_FUTEX = 202;
const SYS_TGKILL = 234;
const SYS_CLOSE_RANGE = 436;
const PR_SET_PDEATHSIG = 1;
const SIG_SETMASK = 2;
const SA_RESTORER = 0x0400_0000n;
const FUTEX_WAIT = 0;
const FUTEX_WAKE = 1;
const MAX_FD = 0xffff_ffff;

/** How often a word is looked at before its change is slept for, some 200 us. */
const SPIN_LOOKS = 16_000;
/** Milliseconds after which a word is looked at again, and a kick repeated. */
const LOOK_AGAIN_MS = 20;
/** Milliseconds for what takes microseconds, on a host that has no time for it. */
const LIMIT_MS = 10_000;

/** A constant, so that the compiler can call it directly. */
const { futex, tgkill } = libc;
const lookAgain = new BigInt64Array([0n, BigInt(LOOK_AGAIN_MS * 1e6)]);

/** int start(void *mailbox) */
const entryPoint = { parameters: ["usize"], result: "i32" } as const;

let code: number | undefined;

/** The machine code. */
export function anchorCode(): Uint8Array<ArrayBuffer> {
  return Uint8Array.fromBase64(CODE);
}

/** The anchor has ended, and the guest with it. */
export class AnchorEnded extends Error {
  override readonly name = "AnchorEnded";

  /** @param pid its process id */
  constructor(pid: number) {
    super(`Process ${pid}, which had the guest meanwhile, has ended, and the guest with it`);
  }
}

/** A vCPU that the anchor shall run. */
export interface VcpuToAnchor {
  /** The vCPU's descriptor. */
  readonly fd: number;
  /** Where its kvm_run page is mapped. */
  readonly runAddress: number;
}

/** One anchor, from whichever program has its mailbox. */
export class Anchor implements Disposable {
  /** The mailbox. */
  readonly memory: OwnedFd;
  readonly #mapping: MappedRegion;
  readonly #words: Int32Array<ArrayBuffer>;
  readonly #longs: BigInt64Array<ArrayBuffer>;
  /** How much of each line's arena is taken. */
  readonly #used: number[];
  #process: ChildProcess | undefined;

  private constructor(memory: OwnedFd, size: number) {
    this.memory = memory;
    this.#mapping = mapShared(memory.fd, size);
    const { buffer } = this.#mapping.bytes;
    this.#words = new Int32Array(buffer);
    this.#longs = new BigInt64Array(buffer);
    this.#used = [];
  }

  /**
   * Makes the anchor's process, with all its threads waiting. To be called on the thread that will
   * execute the next program: the anchor ends with it.
   *
   * @param vmFd the VM's descriptor
   * @param vcpus its vCPUs
   * @param limitMs milliseconds until the vCPUs are stopped if nobody has taken the guest
   * @throws {RangeError} if these are too many vCPUs
   * @throws {Error} if it cannot be made; nothing is left of it
   */
  static start(vmFd: number, vcpus: readonly VcpuToAnchor[], limitMs: number): Anchor {
    if (vcpus.length > MAX_VCPUS) {
      throw new RangeError(`An anchor has at most ${MAX_VCPUS} vCPUs, not ${vcpus.length}`);
    }
    const size = mailboxSize(vcpus.length);
    const memory = makeMemfd("denovo-anchor", size, { sealing: true });
    let anchor: Anchor | undefined;
    try {
      addSeals(memory.fd, Seal.SHRINK | Seal.GROW | Seal.SEAL);
      anchor = new Anchor(memory, size);
      anchor.#layOut(vmFd, vcpus, limitMs);
      anchor.#clone([vmFd, ...vcpus.map(({ fd }) => fd)]);
      return anchor;
    } catch (error) {
      anchor?.end();
      if (anchor) anchor[Symbol.dispose]();
      else memory.close();
      throw error;
    }
  }

  /**
   * Takes over the anchor that the program before this one has made.
   *
   * @param memory the mailbox; it stays the caller's where this fails
   * @throws {Error} if it is none
   */
  static takeOver(memory: OwnedFd): Anchor {
    const { size } = fileStatus(memory.fd);
    if (size < PAGE) throw new Error("The mailbox of the process that has the guest is cut off");
    const anchor = new Anchor(memory, size);
    try {
      anchor.#check(size);
      anchor.#process = new ChildProcess(anchor.pid);
    } catch (error) {
      anchor.#mapping.close();
      throw error;
    }
    return anchor;
  }

  /** How many vCPUs it has. */
  get vcpus(): number {
    return this.#words[Head.vcpus];
  }

  /** Its process id. */
  get pid(): number {
    return this.#words[Head.pid];
  }

  /** The VM's descriptor in the anchor. */
  get vmFd(): number {
    return Number(this.#longs[lineAt(0) / 8 + Line.fd]);
  }

  /** A vCPU's descriptor in the anchor. */
  vcpuFd(index: number): number {
    return Number(this.#longs[lineAt(index + 1) / 8 + Line.fd]);
  }

  /** A vCPU's thread. */
  threadId(index: number): number {
    return this.#words[lineAt(index + 1) / 4 + Line.tid];
  }

  /** What a vCPU does, an {@linkcode AnchorPhase}. */
  phase(index: number): number {
    return Atomics.load(this.#words, lineAt(index + 1) / 4 + Line.phase);
  }

  /** Notes that a vCPU's exit has been served, so that it may be entered again; or that it waits. */
  noteExit(index: number, waits: boolean): void {
    const phase = waits ? AnchorPhase.EXITED : AnchorPhase.STOPPED;
    Atomics.store(this.#words, lineAt(index + 1) / 4 + Line.phase, phase);
  }

  /** Whether the time is up: the vCPUs stand still, and are not to be let run here again. */
  get expired(): boolean {
    return Atomics.load(this.#words, Head.expired) !== 0;
  }

  /** The process has ended or been dismissed: it has no guest. */
  get hasEnded(): boolean {
    return this.#process === undefined || hasEnded(this.#process.pidfd.fd);
  }

  /**
   * Whether a vCPU that does not run has an exit to be served; of a process that has ended only its
   * run page tells.
   */
  waits(index: number, page: RunPage): boolean {
    if (this.phase(index) !== AnchorPhase.RUNNING) return this.phase(index) === AnchorPhase.EXITED;
    return page.exitReason !== Exit.UNKNOWN && page.exitReason !== Exit.INTR;
  }

  /**
   * Lets the vCPUs run, but for those whose exits wait.
   *
   * @param pages their kvm_run pages
   */
  resume(pages: readonly RunPage[]): void {
    if (this.expired) return;
    pages.forEach((page, i) => {
      if (this.phase(i) === AnchorPhase.EXITED) return;
      // What it stopped with before has been served: `waits` must not find it.
      page.exitReason = Exit.UNKNOWN;
      page.immediateExit = false;
      this.#order(i + 1, Order.RUN);
    });
    // The leader may have stopped them meanwhile: it does not see an order that comes behind its look.
    if (this.expired) this.stop(pages);
  }

  /** Waits until a vCPU that has been told to run does. @throws {Error} if it does not */
  awaitEntry(index: number): void {
    const phase = lineAt(index + 1) / 4 + Line.phase;
    this.#awaitChange(phase, AnchorPhase.STOPPED, `vCPU ${index} of process ${this.pid}`);
  }

  /**
   * Stops the vCPUs.
   *
   * @param pages their kvm_run pages
   * @throws {AnchorEnded}
   * @throws {Error} if one does not stop, which is a defect
   */
  stop(pages: readonly RunPage[]): void {
    pages.forEach((page, i) => {
      page.immediateExit = true;
      const order = lineAt(i + 1) / 4 + Line.order;
      Atomics.compareExchange(this.#words, order, Order.RUN, Order.IDLE);
      if (this.phase(i) === AnchorPhase.RUNNING) this.#kick(i);
    });
    pages.forEach((_, i) => {
      const what = `vCPU ${i} of process ${this.pid}`;
      const phase = lineAt(i + 1) / 4 + Line.phase;
      this.#awaitChange(phase, AnchorPhase.RUNNING, what, () => this.#kick(i));
    });
  }

  /**
   * Takes memory of the mailbox.
   *
   * @param line whose: 0 for the leader, from 1 on the vCPUs
   * @throws {RangeError} if there is none left
   */
  allocate(line: number, size: number): AnchorBuffer {
    const at = this.#used[line] ?? 0;
    if (at + size > ARENA) throw new RangeError(`No ${size} bytes are left in an anchor's arena`);
    this.#used[line] = at + Math.ceil(size / 64) * 64;
    const offset = arenaAt(this.vcpus, line) + at;
    return {
      bytes: new Uint8Array(this.#mapping.bytes.buffer, offset, size),
      address: Number(this.#longs[Head.base]) + offset,
    };
  }

  /** Writes a program into the mailbox, to be run on a line's thread. */
  prepare(line: number, calls: readonly EncodedCall[]): AnchorProgram {
    const buffer = this.allocate(line, programSize(calls.length));
    encodeCalls(buffer.bytes, calls);
    return new AnchorProgram(buffer, () => this.#run(line, buffer.address));
  }

  /**
   * A program that lets a vCPU through KVM_RUN with a kick pending for its thread alone, so that it
   * does what it does on the way, and turns back before the guest's first instruction; and one that has
   * to follow it.
   */
  prepareTurn(index: number): readonly [AnchorProgram, AnchorProgram] {
    const line = index + 1;
    const mask = this.allocate(line, 12);
    new DataView(mask.bytes.buffer, mask.bytes.byteOffset).setUint32(0, 8, true);
    const fd = this.vcpuFd(index);
    const base = Number(this.#longs[Head.base]);
    const setMask = (at: number): EncodedCall => ({
      number: SYS_RT_SIGPROCMASK,
      args: [SIG_SETMASK, base + at * 8, 0, 8],
      expected: 0,
    });
    const signalMask = (address: number) => ioctlCall(fd, KVM.SET_SIGNAL_MASK, address);
    return [
      this.prepare(line, [
        setMask(Head.maskAll),
        { number: SYS_TGKILL, args: [this.pid, this.threadId(index), KICK_SIGNAL], expected: 0 },
        signalMask(mask.address),
        ioctlCall(fd, KVM.RUN, 0, -Errno.EINTR),
      ]),
      this.prepare(line, [signalMask(0), setMask(Head.maskVcpu)]),
    ];
  }

  /** Ends the process, and the guest that it has. */
  end(): void {
    this.#process?.kill(SIGKILL);
    this.#process?.wait();
  }

  /**
   * Ends the process, whose guest has left.
   *
   * @returns the process, to be waited for and closed
   */
  dismiss(): ChildProcess {
    const child = this.#process!;
    this.#process = undefined;
    child.kill(SIGKILL);
    return child;
  }

  /** Unmaps and closes the mailbox; the process goes on. */
  [Symbol.dispose](): void {
    this.#process?.[Symbol.dispose]();
    this.#mapping.close();
    this.memory.close();
  }

  /** @throws {Error} if this is no mailbox of this version */
  #check(size: number): void {
    const version = this.#words[Head.version];
    if (this.#longs[Head.magic] !== MAGIC || version !== ANCHOR_VERSION) {
      throw new Error("The mailbox of the process that has the guest is of another version");
    }
    const { vcpus } = this;
    if (!(vcpus > 0 && vcpus <= MAX_VCPUS) || size !== mailboxSize(vcpus)) {
      throw new Error(`The mailbox of the process that has the guest has ${vcpus} vCPUs`);
    }
  }

  #layOut(vmFd: number, vcpus: readonly VcpuToAnchor[], limitMs: number): void {
    const words = this.#words;
    const longs = this.#longs;
    const { length } = vcpus;
    words[Head.version] = ANCHOR_VERSION;
    words[Head.vcpus] = length;
    longs[Head.magic] = MAGIC;
    longs[Head.base] = BigInt(this.#mapping.address);
    const deadline = BigInt(Math.round(monotonicNow() + limitMs * 1e6));
    longs[Head.deadline] = deadline / 1_000_000_000n;
    longs[Head.deadline + 1] = deadline % 1_000_000_000n;
    longs[Head.maskAll] = -1n;
    longs[Head.maskVcpu] = ~(1n << BigInt(KICK_SIGNAL - 1));
    for (let line = 0; line <= length; line++) {
      const vcpu = vcpus[line - 1];
      const at = lineAt(line) / 8;
      longs[at + Line.fd] = BigInt(vcpu?.fd ?? vmFd);
      longs[at + Line.runPage] = BigInt(vcpu?.runAddress ?? 0);
      longs[at + Line.stack] = BigInt(this.#mapping.address + stackTop(length, line));
    }
  }

  /** @param keep the descriptors that the process needs: others would keep things open */
  #clone(keep: readonly number[]): void {
    code ??= mapCode(anchorCode()).address;
    const action = this.allocate(0, 32);
    // struct kernel_sigaction: handler, flags, restorer, mask
    const longs = new BigInt64Array(action.bytes.buffer, action.bytes.byteOffset, 4);
    longs.set([BigInt(code + HANDLER), SA_RESTORER, BigInt(code + RESTORER), 0n]);
    const setUp = this.prepare(0, [
      { number: SYS_PRCTL, args: [PR_SET_PDEATHSIG, SIGKILL], expected: 0 },
      { number: SYS_GETPPID, args: [], expected: libc.getpid() },
      { number: SYS_RT_SIGACTION, args: [KICK_SIGNAL, action.address, 0, 8], expected: 0 },
      ...gaps(keep).map(([first, last]) => ({
        number: SYS_CLOSE_RANGE,
        args: [first, last, 0],
        expected: 0,
      })),
    ]);
    this.#longs[lineAt(0) / 8 + Line.program] = BigInt(setUp.address);
    const entry = Deno.UnsafePointer.create<typeof entryPoint>(BigInt(code))!;
    const call = new Deno.UnsafeFnPointer(entry, entryPoint);
    const pid = call.call(BigInt(this.#mapping.address));
    if (pid < 0) throw new OsError("clone", -pid);
    this.#words[Head.pid] = pid;
    try {
      this.#process = new ChildProcess(pid);
      this.#awaitChange(lineAt(0) / 4 + Line.done, 0, `Process ${pid}`);
    } catch (cause) {
      // It must not outlive its mailbox, which is in its memory as well.
      if (!this.#process) endChild(pid);
      throw new Error("The process that would keep the guest has not come up", { cause });
    }
  }

  #run(line: number, address: number): void {
    const at = lineAt(line);
    this.#longs[at / 8 + Line.program] = BigInt(address);
    Atomics.store(this.#words, at / 4 + Line.done, 0);
    this.#order(line, Order.CALLS);
    this.#awaitChange(at / 4 + Line.done, 0, `Process ${this.pid}`);
  }

  #order(line: number, order: number): void {
    const index = lineAt(line) / 4 + Line.order;
    Atomics.store(this.#words, index, order);
    futex(SYS_FUTEX, this.#mapping.address + index * 4, FUTEX_WAKE, 1, lookAgain);
  }

  #kick(index: number): void {
    tgkill(this.pid, this.threadId(index), KICK_SIGNAL);
  }

  /** @throws {AnchorEnded} @throws {Error} if the word stays as it is */
  #awaitChange(index: number, value: number, what: string, again?: () => void): void {
    const words = this.#words;
    for (let look = 0; look < SPIN_LOOKS; look++) {
      if (Atomics.load(words, index) !== value) return;
    }
    const limit = monotonicNow() + LIMIT_MS * 1e6;
    while (Atomics.load(words, index) === value) {
      if (this.hasEnded) throw new AnchorEnded(this.pid);
      if (monotonicNow() > limit) throw new Error(`${what} does not answer`);
      futex(SYS_FUTEX, this.#mapping.address + index * 4, FUTEX_WAIT, value, lookAgain);
      if (Atomics.load(words, index) === value) again?.();
    }
  }
}

/** All descriptors but some, as ranges. */
function gaps(keep: readonly number[]): [first: number, last: number][] {
  const sorted = [...new Set(keep)].sort((a, b) => a - b);
  const ends = [...sorted.map((fd) => fd - 1), MAX_FD];
  const starts = [0, ...sorted.map((fd) => fd + 1)];
  return starts.flatMap((first, i) => first <= ends[i] ? [[first, ends[i]]] : []);
}
