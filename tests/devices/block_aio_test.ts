import assert from "node:assert/strict";
import type { FileNodeConfig } from "../../devices/block/config.ts";
import { Disk } from "../../devices/block/disk.ts";
import { openNode } from "../../devices/block/open_node.ts";
import { MOST_TRANSFERS, type Transfer } from "../../devices/block/transfers.ts";
import { Errno } from "../../ffi/errno.ts";
import { hasIoUring, IoUring } from "../../ffi/io_uring.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { mapAnonymous } from "../../ffi/memory.ts";

const PAGE = 4096;
const PAGES = 16;

function configOf(filename: string, changes: Partial<FileNodeConfig>): FileNodeConfig {
  return {
    ...{ driver: "file", nodeName: "file", filename, locking: "off", aio: "io_uring" },
    ...{ readOnly: false, autoReadOnly: false, cache: { direct: false, noFlush: false } },
    ...{ discard: "ignore", detectZeroes: "off" },
    ...changes,
  };
}

const kinds = ["threads", "native", "io_uring"] as const;
const direct = { direct: true, noFlush: false };

Deno.test("where the kernel has no io_uring, or not for this process, that is said in QEMU's words", async () => {
  const path = await Deno.makeTempFile();
  const configs = kinds.map((aio) => configOf(path, { aio, cache: direct }));
  const refusal =
    "aio=io_uring was specified, but is not available (disabled via io_uring_disabled" +
    " sysctl or blocked by container runtime seccomp policy?)";
  try {
    for (const errno of [Errno.ENOSYS, Errno.EPERM]) {
      const worker = new Worker(new URL("block_aio_worker.ts", import.meta.url), {
        type: "module",
      });
      const { promise, resolve, reject } = Promise.withResolvers<string[]>();
      worker.onmessage = ({ data }: MessageEvent<string[]>) => resolve(data);
      worker.onerror = (event) => reject(event.message);
      worker.postMessage({ errno, configs });
      assert.deepEqual(await promise, ["calls", "calls", refusal]);
      worker.terminate();
    }
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("aio=io_uring and aio=native make requests at once, aio=threads one by one", {
  ignore: !hasIoUring(),
}, () => {
  const path = Deno.makeTempFileSync();
  using uring = new IoUring(MOST_TRANSFERS);
  const depths = kinds.map((aio) => {
    const node = openNode(configOf(path, { aio, cache: direct }));
    node.close();
    // On other threads than the one that works on queues there is no ring.
    assert.equal(new Disk(node.description).depth, 1);
    return new Disk(node.description, uring).depth;
  });
  assert.deepEqual(depths, [1, MOST_TRANSFERS, MOST_TRANSFERS]);
  Deno.removeSync(path);
});

Deno.test("transfers are within the disk's part of its file, and what is not allowed is not made", {
  ignore: !hasIoUring(),
}, () => {
  for (const cache of [direct, { direct: false, noFlush: false }]) {
    const path = Deno.makeTempFileSync();
    const content = Uint8Array.from({ length: PAGES * PAGE }, (_, i) => i / PAGE);
    Deno.writeFileSync(path, content);
    const file = openNode(configOf(path, { cache }));
    const [offset, size] = [2 * PAGE, 4 * PAGE];
    const raw = openNode({
      ...file.config,
      ...{ driver: "raw", nodeName: "raw", file: "file", offset, size },
    }, { child: file });
    using uring = new IoUring(MOST_TRANSFERS);
    using memory = mapAnonymous(PAGES * PAGE);
    const disk = new Disk(raw.description, uring);
    const transfer = (isWrite: boolean, page: number, at: number, odd = 0): Transfer => {
      const vector = new IoVector(1);
      vector.push(memory.address + at * PAGE + odd, PAGE);
      return { isWrite, vector, offset: page * PAGE, result: 1, request: 0 };
    };
    memory.write(8 * PAGE, new Uint8Array(2 * PAGE).fill(99));
    const transfers = [
      transfer(false, 0, 0),
      transfer(true, 1, 8),
      // Memory that is no whole blocks.
      transfer(true, 2, 8, 100),
      transfer(false, 3, 1, 8),
      transfer(false, 4, 3),
      transfer(true, 4, 8),
      transfer(true, -1, 8),
    ];
    disk.transfer(transfers, 0, transfers.length);
    assert.deepEqual(
      transfers.map(({ result }) => result),
      [0, 0, 0, 0, -Errno.EIO, -Errno.EIO, -Errno.EIO],
    );
    assert.deepEqual(memory.read(0, PAGE), new Uint8Array(PAGE).fill(2));
    assert.deepEqual(memory.read(PAGE + 8, PAGE), new Uint8Array(PAGE).fill(5));
    assert.deepEqual(
      Deno.readFileSync(path),
      content.map((byte) => [3, 4].includes(byte) ? 99 : byte),
    );
    raw.close();
    file.close();
    Deno.removeSync(path);
  }
});
