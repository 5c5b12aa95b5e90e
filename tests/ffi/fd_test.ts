import assert from "node:assert/strict";
import { OsError } from "../../ffi/errno.ts";
import {
  accessMode,
  dataRanges,
  duplicate,
  fileStatus,
  isOpen,
  makePipe,
  O,
  openFile,
  OwnedFd,
  pollFd,
  POLLHUP,
  POLLIN,
  POLLOUT,
  readAt,
  readFd,
  redirect,
  seekFd,
  setCloexec,
  setNonblocking,
  unlinkFile,
  writeAll,
  writeFd,
} from "../../ffi/fd.ts";
import { makeMemfd } from "../../ffi/memory.ts";
import { socketPair } from "../../ffi/socket.ts";

const FD_CLOEXEC_FLAG = 0o2000000;

/** The open-file flags of a descriptor, close-on-exec among them. */
function flagsOf(fd: number): number {
  const info = Deno.readTextFileSync(`/proc/self/fdinfo/${fd}`);
  return parseInt(/^flags:\t(\d+)$/m.exec(info)![1], 8);
}

function withFile(run: (path: string) => void): void {
  const path = Deno.makeTempFileSync({ prefix: "denovo-fd-" });
  try {
    run(path);
  } finally {
    Deno.removeSync(path);
  }
}

/** poll(2): an error is pending, here that the reader has gone. */
const POLLERR = 8;

Deno.test("`OwnedFd` closes its descriptor once", () => {
  const file = openFile("/dev/null", O.RDONLY);
  const { fd } = file;
  assert.equal(isOpen(fd), true);
  assert.equal(file.closed, false);
  file.close();
  assert.equal(isOpen(fd), false);
  assert.equal(file.closed, true);
  assert.throws(() => file.fd, { code: "EBADF" });
  // The number may be another file's by now: each one that is opened gets the lowest that is free.
  const others = [openFile("/dev/null", O.RDONLY)];
  while (others.at(-1)!.fd < fd) others.push(openFile("/dev/null", O.RDONLY));
  file.close();
  for (const other of others) {
    assert.equal(isOpen(other.fd), true);
    other[Symbol.dispose]();
    assert.equal(other.closed, true);
  }
});

Deno.test("`release()` gives the descriptor away", () => {
  const file = openFile("/dev/null", O.RDONLY);
  const fd = file.release();
  file.close();
  assert.equal(isOpen(fd), true);
  assert.throws(() => file.release(), OsError);
  using _owner = new OwnedFd(fd);
});

Deno.test("`openFile()` opens with close-on-exec, and says what it could not open", () => {
  using file = openFile("/dev/null", O.RDWR);
  assert.ok(flagsOf(file.fd) & FD_CLOEXEC_FLAG);
  assert.equal(accessMode(file.fd), O.RDWR);
  assert.throws(() => openFile("/nonexistent", O.RDONLY), {
    message: "open '/nonexistent': No such file or directory",
  });
  assert.throws(() => openFile("/dev/null\0", O.RDONLY), TypeError);
});

Deno.test("`openFile()` creates a file with the permissions given", () => {
  withFile((path) => {
    unlinkFile(path);
    openFile(path, O.WRONLY | O.CREAT | O.EXCL, 0o600).close();
    assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
    assert.throws(() => openFile(path, O.WRONLY | O.CREAT | O.EXCL), { code: "EEXIST" });
  });
});

Deno.test("`unlinkFile()` removes a name, and bears one that does not exist", () => {
  withFile((path) => {
    unlinkFile(path);
    unlinkFile(path);
    assert.throws(() => Deno.statSync(path), Deno.errors.NotFound);
    Deno.writeTextFileSync(path, "");
  });
  assert.throws(() => unlinkFile("/proc"), OsError);
});

Deno.test("`setCloexec()` and `setNonblocking()` set and clear their flags", () => {
  const [input, output] = makePipe();
  for (const on of [false, true]) {
    setCloexec(input.fd, on);
    assert.equal((flagsOf(input.fd) & FD_CLOEXEC_FLAG) !== 0, on);
    setNonblocking(input.fd, on);
    assert.equal((flagsOf(input.fd) & O.NONBLOCK) !== 0, on);
  }
  input.close();
  output.close();
  assert.throws(() => setCloexec(100_000, true), { code: "EBADF" });
  assert.throws(() => setNonblocking(100_000, true), { code: "EBADF" });
});

Deno.test("`duplicate()` makes another descriptor of the same open file", () => {
  withFile((path) => {
    using file = openFile(path, O.RDWR);
    using copy = duplicate(file.fd);
    assert.notEqual(copy.fd, file.fd);
    assert.ok(flagsOf(copy.fd) & FD_CLOEXEC_FLAG);
    writeAll(file.fd, new Uint8Array(5));
    assert.equal(seekFd(copy.fd, null), 5);
  });
});

Deno.test("`redirect()` replaces an open file, for programs that are started later too", () => {
  const [input, output] = makePipe();
  using target = openFile("/dev/null", O.RDONLY);
  redirect(output.fd, target.fd);
  output.close();
  assert.equal(flagsOf(target.fd) & FD_CLOEXEC_FLAG, 0);
  writeFd(target.fd, Uint8Array.of(7));
  assert.equal(readFd(input.fd, new Uint8Array(2)), 1);
  redirect(target.fd, target.fd);
  input.close();
});

Deno.test("`fileStatus()` tells kind, size and identity", () => {
  withFile((path) => {
    Deno.writeFileSync(path, new Uint8Array(10_000).fill(1));
    using file = openFile(path, O.RDONLY);
    const status = fileStatus(file.fd);
    const expected = Deno.statSync(path);
    assert.equal(status.kind, "file");
    assert.equal(status.size, 10_000);
    assert.equal(status.ino, BigInt(expected.ino!));
    assert.equal(status.dev, BigInt(expected.dev));
    assert.equal(status.allocated, expected.blocks! * 512);
  });
  const [input, output] = makePipe();
  const [a, b] = socketPair();
  assert.equal(fileStatus(input.fd).kind, "fifo");
  assert.equal(fileStatus(a.fd).kind, "socket");
  using folder = openFile("/tmp", O.RDONLY);
  assert.equal(fileStatus(folder.fd).kind, "directory");
  using device = openFile("/dev/null", O.RDONLY);
  assert.equal(fileStatus(device.fd).kind, "character");
  for (const fd of [input, output, a, b]) fd.close();
  assert.throws(() => fileStatus(100_000), { message: "fstat 100000: Bad file descriptor" });
});

Deno.test("`readFd()` and `writeFd()` return -1 when they would wait, and 0 at the end", () => {
  const [input, output] = makePipe(O.NONBLOCK);
  const buffer = new Uint8Array(1 << 16);
  assert.equal(readFd(input.fd, buffer), -1);
  let room = 0;
  for (let n; (n = writeFd(output.fd, buffer)) !== -1;) room += n;
  assert.ok(room > 0);
  for (let n; (n = readFd(input.fd, buffer)) !== -1;) room -= n;
  assert.equal(room, 0);
  output.close();
  assert.equal(readFd(input.fd, buffer), 0);
  input.close();
  assert.throws(() => readFd(100_000, buffer), { message: "read 100000: Bad file descriptor" });
  assert.throws(() => writeFd(100_000, buffer), { message: "write 100000: Bad file descriptor" });
});

Deno.test("`writeAll()` waits until a slow reader has taken everything", async () => {
  const [input, output] = makePipe(O.NONBLOCK);
  const data = new Uint8Array(300_000);
  for (let i = 0; i < data.length; i++) data[i] = i * 7;
  const worker = new Worker(new URL("writer_worker.ts", import.meta.url), { type: "module" });
  const done = new Promise((resolve) => worker.onmessage = resolve);
  worker.postMessage({ fd: output.fd, data });
  const read: number[] = [];
  const buffer = new Uint8Array(1000);
  while (read.length < data.length) {
    const n = readFd(input.fd, buffer);
    if (n > 0) read.push(...buffer.subarray(0, n));
    else await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assert.deepEqual(Uint8Array.from(read), data);
  await done;
  assert.equal(readFd(input.fd, buffer), -1);
  worker.terminate();
  input.close();
  output.close();
});

Deno.test("`readAt()` reads at an offset and stops at the end; `seekFd()` moves", () => {
  withFile((path) => {
    Deno.writeTextFileSync(path, "0123456789");
    using file = openFile(path, O.RDONLY);
    const buffer = new Uint8Array(4);
    const text = () => new TextDecoder().decode(buffer);
    assert.equal(readAt(file.fd, buffer, 3), 4);
    assert.equal(text(), "3456");
    assert.equal(readAt(file.fd, buffer, 8), 2);
    assert.equal(readAt(file.fd, buffer, 2 ** 40), 0);
    assert.equal(seekFd(file.fd, null), 0);
    assert.equal(seekFd(file.fd, 2 ** 40), 2 ** 40);
    assert.equal(seekFd(file.fd, 5), 5);
    assert.equal(readFd(file.fd, buffer), 4);
    assert.equal(text(), "5678");
  });
  const [input, output] = makePipe();
  assert.throws(() => seekFd(input.fd, 0), { code: "ESPIPE" });
  assert.throws(() => readAt(input.fd, new Uint8Array(1), 0), { code: "ESPIPE" });
  input.close();
  output.close();
});

Deno.test("`pollFd()` tells what is there, and 0 after its timeout", () => {
  const [input, output] = makePipe();
  assert.equal(pollFd(input.fd, POLLIN, 1), 0);
  assert.equal(pollFd(output.fd, POLLOUT, -1), POLLOUT);
  writeFd(output.fd, Uint8Array.of(1));
  assert.equal(pollFd(input.fd, POLLIN, -1), POLLIN);
  output.close();
  assert.equal(pollFd(input.fd, POLLIN, -1), POLLIN | POLLHUP);
  const [input2, output2] = makePipe();
  input2.close();
  assert.equal(pollFd(output2.fd, 0, -1), POLLERR);
  output2.close();
  input.close();
});

Deno.test("dataRanges() gives what a memfd has, within bounds", () => {
  const page = 4096;
  using memfd = makeMemfd("ranges", 64 * page);
  const ranges = (from = 0, to = 64 * page) => [...dataRanges(memfd.fd, from, to)];
  assert.deepEqual(ranges(), []);
  for (const index of [3, 4, 10, 63]) {
    seekFd(memfd.fd, index * page + 7);
    writeAll(memfd.fd, Uint8Array.of(1));
  }
  const pages = (list: number[][]) => list.map((range) => range.map((at) => at * page));
  assert.deepEqual(ranges(), pages([[3, 5], [10, 11], [63, 64]]));
  assert.deepEqual(ranges(4 * page, 63 * page), pages([[4, 5], [10, 11]]));
  assert.deepEqual(ranges(5 * page, 9 * page), []);
  const [reader, writer] = makePipe();
  using _reader = reader;
  using _writer = writer;
  assert.throws(() => [...dataRanges(reader.fd, 0, page)], { code: "ESPIPE" });
});
