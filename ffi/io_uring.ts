/**
 * io_uring: many reads and writes at once (io_uring(7), linux/io_uring.h).
 *
 * A ring belongs to the thread that makes it. Requests are put in, and then all of them are waited for:
 * between two batches nothing is in flight, so that a process may be replaced or its memory unmapped.
 *
 * @module
 */
import { check, Errno, errno, OsError } from "./errno.ts";
import { OwnedFd } from "./fd.ts";
import type { IoVector } from "./iovec.ts";
import { libc } from "./libc.ts";
import { addressOf, type MappedRegion, mapShared } from "./memory.ts";
import { array, i32, struct, u16, u32, u64, u8 } from "./struct.ts";

const SYS_IO_URING_SETUP = 425;
const SYS_IO_URING_ENTER = 426n;
const GETEVENTS = 1;
/** One mapping has both rings; since Linux 5.4. */
const FEAT_SINGLE_MMAP = 1;
/** Milliseconds between two looks for results where the kernel does not let them be waited for. */
const LOOK_MS = 1;
const OFF_SQ_RING = 0;
const OFF_SQES = 0x1000_0000;

/** IORING_OP_*: the vectored ones, since a request of the guest's is in pieces. */
const Operation = { READV: 1, WRITEV: 2 } as const;

const sqOffsets = struct("io_sqring_offsets", {
  head: u32,
  tail: u32,
  ring_mask: u32,
  ring_entries: u32,
  flags: u32,
  dropped: u32,
  array: u32,
  resv1: u32,
  user_addr: u64,
});

const cqOffsets = struct("io_cqring_offsets", {
  head: u32,
  tail: u32,
  ring_mask: u32,
  ring_entries: u32,
  overflow: u32,
  cqes: u32,
  flags: u32,
  resv1: u32,
  user_addr: u64,
});

const parameters = struct("io_uring_params", {
  sq_entries: u32,
  cq_entries: u32,
  flags: u32,
  sq_thread_cpu: u32,
  sq_thread_idle: u32,
  features: u32,
  wq_fd: u32,
  resv: array(u32, 3),
  sq_off: sqOffsets,
  cq_off: cqOffsets,
});

const submission = struct("io_uring_sqe", {
  opcode: u8,
  flags: u8,
  ioprio: u16,
  fd: i32,
  off: u64,
  addr: u64,
  len: u32,
  rw_flags: u32,
  user_data: u64,
  buf_index: u16,
  personality: u16,
  splice_fd_in: i32,
  addr3: u64,
  pad2: u64,
});

const completion = struct("io_uring_cqe", { user_data: u64, res: i32, flags: u32 });

/** Makes a ring. @throws {OsError} if the kernel has none, or not for this process */
function setUp(entries: number) {
  const { bytes, view } = parameters.alloc();
  const result = libc.syscall2(SYS_IO_URING_SETUP, entries, addressOf(bytes));
  const fd = new OwnedFd(check(result, "io_uring_setup"));
  if (view.features & FEAT_SINGLE_MMAP) return { fd, view };
  fd.close();
  throw new OsError("io_uring_setup", Errno.ENOSYS);
}

/** Whether this process may use io_uring on this kernel. */
export function hasIoUring(): boolean {
  try {
    setUp(1).fd.close();
    return true;
  } catch (error) {
    if (error instanceof OsError) return false;
    throw error;
  }
}

/** A ring. */
export class IoUring implements Disposable {
  /** How many requests there can be in a batch, a power of two. */
  readonly capacity: number;
  readonly #fd: OwnedFd;
  readonly #rings: MappedRegion;
  readonly #entries: MappedRegion;
  readonly #submissions: ReturnType<typeof submission.view>[] = [];
  readonly #completions: ReturnType<typeof completion.view>[] = [];
  /** Both rings in words; each index wraps around at 2^32. */
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #sqTail: number;
  readonly #cqHead: number;
  readonly #cqTail: number;
  /** Requests of the batch. */
  #count = 0;
  /** Nobody wakes who waits on it. */
  readonly #pause = new Int32Array(new SharedArrayBuffer(4));
  /** What became of each. */
  readonly #results: Int32Array<ArrayBuffer>;

  /**
   * @param capacity how many requests there can be in a batch, a power of two
   * @throws {OsError} if the kernel has no io_uring, or not for this process
   */
  constructor(capacity: number) {
    const { fd, view } = setUp(capacity);
    const { sq_off: sq, cq_off: cq, sq_entries: entries, cq_entries: events } = view;
    this.capacity = entries;
    this.#fd = fd;
    this.#results = new Int32Array(entries);
    try {
      const size = Math.max(sq.array + 4 * entries, cq.cqes + completion.size * events);
      this.#rings = mapShared(fd.fd, size, OFF_SQ_RING);
      this.#entries = mapShared(fd.fd, submission.size * entries, OFF_SQES);
    } catch (error) {
      fd.close();
      throw error;
    }
    this.#words = new Uint32Array(this.#rings.bytes.buffer);
    this.#sqTail = sq.tail / 4;
    this.#cqHead = cq.head / 4;
    this.#cqTail = cq.tail / 4;
    for (let i = 0; i < entries; i++) {
      this.#submissions.push(submission.view(this.#entries.bytes.buffer, i * submission.size));
      // Entry i of the ring is always submission i.
      this.#words[sq.array / 4 + i] = i;
    }
    for (let i = 0; i < events; i++) {
      const at = cq.cqes + i * completion.size;
      this.#completions.push(completion.view(this.#rings.bytes.buffer, at));
    }
  }

  /**
   * Adds a read to the batch. Vector and memory stay as they are until `finish` has returned.
   *
   * @returns the request's number in the batch, for `resultOf`
   * @throws {RangeError} if the batch is full
   */
  read(fd: number, vector: IoVector, offset: number): number {
    return this.#add(Operation.READV, fd, vector, offset);
  }

  /** Adds a write to the batch, as `read` does. */
  write(fd: number, vector: IoVector, offset: number): number {
    return this.#add(Operation.WRITEV, fd, vector, offset);
  }

  /**
   * Makes all requests of the batch, and waits for them; the next batch begins.
   *
   * @throws {OsError} if the kernel does not let them be waited for; none is under way any more
   */
  finish(): void {
    let left = this.#count;
    this.#count = 0;
    let underWay = 0;
    let failure: OsError | undefined;
    while (left + underWay > 0) {
      const taken = libc.io_uring_enter(
        SYS_IO_URING_ENTER,
        ...[this.#fd.fd, left, left + underWay, GETEVENTS, 0n, 0n] as const,
      );
      if (taken >= 0) {
        left -= taken;
        underWay += taken;
      } else if (errno() !== Errno.EINTR) {
        // Only new requests can be too many for the kernel now: they are taken back.
        if (left === 0) failure ??= new OsError("io_uring_enter", errno());
        Atomics.sub(this.#words, this.#sqTail, left);
        left = 0;
      }
      underWay -= this.#reap();
      // They are made all the same, in memory that is the caller's again afterwards.
      if (failure && underWay > 0) Atomics.wait(this.#pause, 0, 0, LOOK_MS);
    }
    if (failure) throw failure;
  }

  /**
   * What became of a request of the last batch.
   *
   * @param request its number
   * @returns bytes, or a negative errno: EAGAIN if it was not made at all
   */
  resultOf(request: number): number {
    return this.#results[request];
  }

  /** Closes the ring; no batch is under way. */
  close(): void {
    this.#rings.close();
    this.#entries.close();
    this.#fd.close();
  }

  /** Closes the ring at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }

  #add(opcode: number, fd: number, vector: IoVector, offset: number): number {
    const number = this.#count;
    if (number === this.capacity) throw new RangeError(`A batch holds ${number} requests`);
    const tail = this.#words[this.#sqTail];
    const entry = this.#submissions[tail & (this.capacity - 1)];
    entry.opcode = opcode;
    entry.fd = fd;
    entry.off = BigInt(offset);
    entry.addr = vector.address;
    entry.len = vector.pieces;
    entry.user_data = BigInt(number);
    Atomics.store(this.#words, this.#sqTail, tail + 1);
    this.#results[number] = -Errno.EAGAIN;
    this.#count++;
    return number;
  }

  /** Takes results. @returns how many */
  #reap(): number {
    const head = this.#words[this.#cqHead];
    const count = (Atomics.load(this.#words, this.#cqTail) - head) >>> 0;
    for (let i = 0; i < count; i++) {
      const { user_data, res } = this.#completions[(head + i) & (this.#completions.length - 1)];
      this.#results[Number(user_data)] = res;
    }
    Atomics.store(this.#words, this.#cqHead, head + count);
    return count;
  }
}
