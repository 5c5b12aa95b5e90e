import assert from "node:assert/strict";
import type { ChardevConfig } from "../../devices/chardev/config.ts";
import { openChardev } from "../../devices/chardev/open.ts";
import { nullSink } from "../../devices/chardev/sink.ts";
import { duplicate, O, openFile, pollFd, POLLIN, readFd } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { newlyOpen, openFiles } from "../processes.ts";
import { encode, hear, Recorder, RecordingHost, say, until } from "./chardev_testing.ts";

const host = new RecordingHost();

async function makeFifo(path: string): Promise<void> {
  await new Deno.Command("mkfifo", { args: [path] }).output();
}

Deno.test("the null backend and the null sink take everything", () => {
  const backend = openChardev({ backend: "null", id: "n" }, host);
  assert.deepEqual([backend.label, backend.filename, backend.connected], ["n", "null", false]);
  assert.equal(backend.write(new Uint8Array(10_000)), 10_000);
  assert.equal(nullSink.write(encode("abc")), 3);
  backend.close();
  backend.close();
});

Deno.test("the file backend empties the file, or appends to it", () => {
  const path = Deno.makeTempFileSync();
  const write = (append: boolean, text: string) => {
    const backend = openChardev({ backend: "file", id: "f", path, append }, host);
    assert.equal(backend.filename, "file");
    assert.equal(backend.write(encode(text)), text.length);
    backend.close();
    return Deno.readTextFileSync(path);
  };
  Deno.writeTextFileSync(path, "old");
  assert.equal(write(true, "+a"), "old+a");
  assert.equal(write(false, "b"), "b");
});

Deno.test("a file goes on where it was in a successor, which does not empty it", () => {
  const path = Deno.makeTempFileSync();
  const config = { backend: "file", id: "f", path, append: false } as const;
  const old = openChardev(config, host);
  old.write(encode("old "));
  const fds = new Map(old.keptFds().map(({ name, fd }) => [name, duplicate(fd)]));
  const next = openChardev(config, host, { fds, state: old.saveState() });
  old.release();
  next.write(encode("new"));
  next.close();
  assert.equal(Deno.readTextFileSync(path), "old new");
});

Deno.test("a writer to a file is told at once that it may go on", async () => {
  const reactor = new Reactor();
  const path = Deno.makeTempFileSync();
  const backend = openChardev({ backend: "file", id: "f", path, append: false }, host);
  const frontend = new Recorder();
  backend.attach(reactor, frontend);
  assert.equal(frontend.writableCalls, 1);
  assert.deepEqual(frontend.events, ["opened"]);
  backend.close();
  await reactor.close();
});

Deno.test("output to a full disk is dropped", () => {
  const backend = openChardev({
    backend: "file",
    id: "f",
    path: "/dev/full",
    append: false,
  }, host);
  assert.equal(backend.write(encode("abc")), 3);
  backend.close();
});

Deno.test("backends that cannot be opened say so in QEMU's words, and leave nothing open", () => {
  const path = "/nonexistent/x";
  const reason = "'/nonexistent/x': No such file or directory";
  const cases: [ChardevConfig, string][] = [
    [{ backend: "file", id: "c", path, append: false }, `Could not open ${reason}`],
    [{ backend: "pipe", id: "c", path }, `Could not open ${reason}`],
    [{ backend: "null", id: "c", logfile: path }, `Could not create ${reason}`],
    [
      { backend: "socket", id: "c", family: "unix", path, server: false, wait: false },
      `Failed to connect to ${reason}`,
    ],
    [
      { backend: "socket", id: "c", family: "unix", path, server: true, wait: false },
      "Failed to bind socket to /nonexistent/x: No such file or directory",
    ],
    [
      { backend: "pty", id: "c", path: "/nonexistent/x" },
      "Failed to create PTY symlink: No such file or directory",
    ],
  ];
  const before = openFiles(Deno.pid);
  for (const [config, message] of cases) {
    assert.throws(() => openChardev(config, host), { message });
  }
  assert.deepEqual(newlyOpen(before), []);
});

Deno.test("the log file gets a copy of all output, and is appended to if that is asked for", () => {
  const logfile = Deno.makeTempFileSync();
  const log = (text: string, logappend?: boolean) => {
    const backend = openChardev({ backend: "null", id: "n", logfile, logappend }, host);
    backend.write(encode(text));
    backend.close();
    return Deno.readTextFileSync(logfile);
  };
  assert.equal(log("one"), "one");
  assert.equal(log(" two", true), "one two");
  assert.equal(log("three"), "three");
});

Deno.test("the pipe backend reads PATH.in and writes PATH.out", async () => {
  const path = `${Deno.makeTempDirSync()}/p`;
  await makeFifo(`${path}.in`);
  await makeFifo(`${path}.out`);
  const reactor = new Reactor();
  const backend = openChardev({ backend: "pipe", id: "p", path }, host);
  const frontend = new Recorder();
  backend.attach(reactor, frontend);
  assert.equal(backend.filename, "pipe");
  using input = openFile(`${path}.in`, O.WRONLY);
  using output = openFile(`${path}.out`, O.RDONLY | O.NONBLOCK);
  say(input.fd, "in");
  await until(() => frontend.text === "in");
  backend.write(encode("out"));
  assert.equal(hear(output.fd, 3), "out");
  // The other side may come and go.
  input.close();
  using again = openFile(`${path}.in`, O.WRONLY);
  say(again.fd, "!");
  await until(() => frontend.text === "in!");

  // Back-pressure: the FIFO fills up, and the frontend learns when it has been read.
  const calls = frontend.writableCalls;
  while (backend.write(new Uint8Array(4096)) === 4096);
  assert.equal(backend.write(encode("x")), 0);
  const buffer = new Uint8Array(65536);
  while (pollFd(output.fd, POLLIN, 0) & POLLIN) readFd(output.fd, buffer);
  await until(() => frontend.writableCalls > calls);
  backend.close();
  await reactor.close();
});

Deno.test("the pipe backend uses PATH for both directions when there is no pair", async () => {
  const path = `${Deno.makeTempDirSync()}/p`;
  await makeFifo(path);
  const reactor = new Reactor();
  const backend = openChardev({ backend: "pipe", id: "p", path }, host);
  const frontend = new Recorder();
  backend.attach(reactor, frontend);
  assert.deepEqual(backend.keptFds().map(({ name }) => name), ["in"]);
  backend.write(encode("echo"));
  await until(() => frontend.text === "echo");
  backend.close();
  await reactor.close();
});

Deno.test("the pty backend drops output until the slave is open, and again when it is closed", async () => {
  const reactor = new Reactor();
  const notices = new RecordingHost();
  const backend = openChardev({ backend: "pty", id: "serial0" }, notices);
  const path = backend.filename.replace(/^pty:/, "");
  assert.deepEqual(notices.notices, [`char device redirected to ${path} (label serial0)`]);
  const frontend = new Recorder();
  backend.attach(reactor, frontend);
  assert.equal(backend.connected, false);
  assert.equal(backend.write(encode("nobody")), 6);
  const slave = openFile(path, O.RDWR | O.NOCTTY | O.NONBLOCK);
  await until(() => backend.connected);
  backend.write(encode("hi\n"));
  assert.equal(hear(slave.fd, 3), "hi\n");
  say(slave.fd, "yo\r");
  await until(() => frontend.text === "yo\r");
  slave.close();
  await until(() => !backend.connected);
  assert.deepEqual(frontend.events, ["opened", "closed"]);
  assert.equal(backend.write(new Uint8Array(100_000)), 100_000);
  backend.close();
  await reactor.close();
});

Deno.test("a pty whose slave is open goes on in a successor, symbolic link included", async () => {
  const reactor = new Reactor();
  const link = `${Deno.makeTempDirSync()}/tty`;
  const config = { backend: "pty", id: "p", path: link } as const;
  const old = openChardev(config, host);
  using slave = openFile(link, O.RDWR | O.NOCTTY | O.NONBLOCK);
  const fds = new Map(old.keptFds().map(({ name, fd }) => [name, duplicate(fd)]));
  const notices = new RecordingHost();
  const next = openChardev(config, notices, { fds, state: old.saveState() });
  assert.equal(next.filename, old.filename);
  assert.deepEqual(notices.notices, []);
  old.release();
  const frontend = new Recorder();
  next.attach(reactor, frontend);
  assert.equal(next.connected, true);
  say(slave.fd, "x");
  await until(() => frontend.text === "x");
  assert.equal(Deno.readLinkSync(link), next.filename.replace(/^pty:/, ""));
  next.close();
  assert.throws(() => Deno.lstatSync(link), Deno.errors.NotFound);
  await reactor.close();
});

Deno.test("a pty that is opened again while the guest has not read its input is connected", async () => {
  const reactor = new Reactor();
  const backend = openChardev({ backend: "pty", id: "p" }, host);
  const path = backend.filename.replace(/^pty:/, "");
  const frontend = new Recorder();
  frontend.room = 0;
  let slave = openFile(path, O.RDWR | O.NOCTTY | O.NONBLOCK);
  backend.attach(reactor, frontend);
  say(slave.fd, "unread");
  slave.close();
  await until(() => !backend.connected);
  slave = openFile(path, O.RDWR | O.NOCTTY | O.NONBLOCK);
  await until(() => backend.connected);
  backend.write(encode("panic"));
  assert.equal(hear(slave.fd, 5), "panic");
  frontend.room = 100;
  backend.acceptInput();
  await until(() => frontend.text === "unread");
  slave.close();
  backend.close();
  await reactor.close();
});
