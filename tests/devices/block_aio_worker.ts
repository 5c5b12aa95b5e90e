/** Opens a block node on a thread for which the kernel has no io_uring. */
import { openNode } from "../../devices/block/open_node.ts";
import type { FileNodeConfig } from "../../devices/block/config.ts";
import { check } from "../../ffi/errno.ts";
import { libc } from "../../ffi/libc.ts";
import { addressOf } from "../../ffi/memory.ts";

const PR_SET_SECCOMP = 22;
const PR_SET_NO_NEW_PRIVS = 38;
const SECCOMP_MODE_FILTER = 2;
const SYS_IO_URING_SETUP = 425;

/** struct sock_filter: code, jumps if true and if not, argument (linux/bpf_common.h, seccomp.h). */
const instructions = [
  // The system call's number.
  [0x20, 0, 0, 0],
  [0x15, 0, 1, SYS_IO_URING_SETUP],
  // SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW
  [0x06, 0, 0, 0], // its argument is the errno
  [0x06, 0, 0, 0x7fff_0000],
];

/** Has io_uring_setup(2) fail on this thread from now on. */
function denyIoUring(errno: number): void {
  const program = new DataView(new ArrayBuffer(8 * instructions.length));
  for (const [i, [code, yes, no, argument]] of instructions.entries()) {
    program.setUint16(8 * i, code, true);
    program.setUint8(8 * i + 2, yes);
    program.setUint8(8 * i + 3, no);
    program.setUint32(8 * i + 4, i === 2 ? 0x0005_0000 | errno : argument, true);
  }
  const filter = new BigUint64Array([
    BigInt(instructions.length),
    addressOf(new Uint8Array(program.buffer)),
  ]);
  const at = addressOf(new Uint8Array(filter.buffer));
  check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
  check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, at, 0, 0), "prctl");
}

const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<{ errno: number; configs: FileNodeConfig[] }>) => void) | null;
  postMessage(message: string[]): void;
};

scope.onmessage = ({ data: { errno, configs } }) => {
  denyIoUring(errno);
  scope.postMessage(configs.map((config) => {
    try {
      const node = openNode(config);
      node.close();
      const { image } = node.description;
      return "uring" in image && image.uring ? "io_uring" : "calls";
    } catch (error) {
      return (error as Error).message;
    }
  }));
};
