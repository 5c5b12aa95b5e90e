import assert from "node:assert/strict";
import {
  O,
  openFile,
  pollFd,
  POLLHUP,
  POLLIN,
  readFd,
  setNonblocking,
  writeFd,
} from "../../ffi/fd.ts";
import { libc } from "../../ffi/libc.ts";
import {
  getTermios,
  isTerminal,
  makeRaw,
  openPty,
  ptyPath,
  setTermios,
} from "../../ffi/terminal.ts";

const encoder = new TextEncoder();
/** One flag in each of c_iflag, c_oflag, c_cflag and c_lflag, and where they lie. */
const IFLAG = 0, OFLAG = 4, CFLAG = 8, LFLAG = 12;
const ICRNL = 0o400, IXON = 0o2000, OPOST = 1, CS8 = 0o60, ISIG = 1, ICANON = 2, ECHO = 8;

/** A pseudo-terminal with the settings that a new terminal has. */
function cookedPty() {
  const { master, path } = openPty();
  const slave = openFile(path, O.RDWR | O.NOCTTY);
  const settings = getTermios(slave.fd);
  const view = new DataView(settings.buffer);
  view.setUint32(IFLAG, ICRNL | IXON, true);
  view.setUint32(OFLAG, OPOST | 4, true);
  view.setUint32(LFLAG, ISIG | ICANON | ECHO, true);
  setTermios(slave.fd, settings);
  return { master, slave, settings };
}

Deno.test("openPty() passes bytes through unchanged both ways", () => {
  const { master, path } = openPty();
  using slave = openFile(path, O.RDWR | O.NOCTTY | O.NONBLOCK);
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
  const buffer = new Uint8Array(512);
  for (const [from, to] of [[master.fd, slave.fd], [slave.fd, master.fd]]) {
    assert.equal(writeFd(from, bytes), 256);
    pollFd(to, POLLIN, -1);
    let length = 0;
    while (length < 256) length += Math.max(0, readFd(to, buffer.subarray(length)));
    assert.deepEqual(buffer.subarray(0, 256), bytes);
  }
  master.close();
});

Deno.test("openPty() reports POLLHUP exactly while nobody has the slave open", () => {
  const { master, path } = openPty();
  assert.ok(pollFd(master.fd, 0, 0) & POLLHUP);
  const slave = openFile(path, O.RDWR | O.NOCTTY);
  assert.equal(pollFd(master.fd, 0, 0) & POLLHUP, 0);
  slave.close();
  assert.ok(pollFd(master.fd, 0, 0) & POLLHUP);
  assert.equal(ptyPath(master.fd), path);
  master.close();
});

Deno.test("ptyPath() fails for a file that is no pseudo-terminal", () => {
  using file = openFile("/dev/null", O.RDWR);
  assert.throws(() => ptyPath(file.fd), { code: "ENOTTY" });
});

Deno.test("isTerminal() tells terminals from other files", () => {
  const { master, path } = openPty();
  using slave = openFile(path, O.RDWR | O.NOCTTY);
  using file = openFile("/dev/null", O.RDWR);
  assert.deepEqual([isTerminal(slave.fd), isTerminal(file.fd)], [true, false]);
  master.close();
});

Deno.test("makeRaw() gives every byte at once, without echo or signals, and keeps its argument", () => {
  const { master, slave, settings } = cookedPty();
  const before = settings.slice();
  const raw = makeRaw(settings, { signals: false });
  assert.deepEqual(settings, before);
  setTermios(slave.fd, raw);
  setNonblocking(slave.fd, true);
  // A carriage return, C-c, C-s and no newline at the end: all reach the reader.
  const typed = encoder.encode("a\r\x03\x13");
  writeFd(master.fd, typed);
  const buffer = new Uint8Array(16);
  pollFd(slave.fd, POLLIN, -1);
  assert.equal(readFd(slave.fd, buffer), 4);
  assert.deepEqual(buffer.subarray(0, 4), typed);
  writeFd(slave.fd, encoder.encode("\n"));
  pollFd(master.fd, POLLIN, -1);
  // No echo before it, and a newline is still sent as CR LF.
  assert.equal(readFd(master.fd, buffer), 2);
  assert.deepEqual(buffer.subarray(0, 2), encoder.encode("\r\n"));
  slave.close();
  master.close();
});

Deno.test("makeRaw() with signals keeps ISIG and nothing else", () => {
  const { master, slave, settings } = cookedPty();
  const flags = (bytes: Uint8Array) => {
    const view = new DataView(bytes.buffer);
    return [IFLAG, OFLAG, CFLAG, LFLAG].map((at) => view.getUint32(at, true));
  };
  const [iflag, oflag, cflag, lflag] = flags(makeRaw(settings, { signals: true }));
  assert.equal(iflag & (ICRNL | IXON), 0);
  assert.equal(oflag & OPOST, OPOST);
  assert.equal(cflag & CS8, CS8);
  assert.equal(lflag & (ISIG | ICANON | ECHO), ISIG);
  assert.equal(flags(makeRaw(settings, { signals: false }))[3] & ISIG, 0);
  slave.close();
  master.close();
});

Deno.test("setTermios() puts back what getTermios() gave", () => {
  const { master, slave, settings } = cookedPty();
  const before = getTermios(slave.fd);
  setTermios(slave.fd, makeRaw(settings, { signals: false }));
  assert.notDeepEqual(getTermios(slave.fd), before);
  setTermios(slave.fd, before);
  assert.deepEqual(getTermios(slave.fd), before);
  assert.throws(() => setTermios(slave.fd, before.slice(1)), RangeError);
  slave.close();
  master.close();
});

Deno.test("terminal functions name the call that failed", () => {
  using file = openFile("/dev/null", O.RDWR);
  assert.throws(() => getTermios(file.fd), { syscall: "tcgetattr", code: "ENOTTY" });
  assert.equal(libc.isatty(file.fd), 0);
});
