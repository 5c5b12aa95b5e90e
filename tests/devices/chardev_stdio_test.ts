import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { openChardev } from "../../devices/chardev/open.ts";
import { duplicate, makePipe, O, openFile, type OwnedFd } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { getTermios, openPty, setTermios } from "../../ffi/terminal.ts";
import { encode, hear, Recorder, RecordingHost, say, until } from "./chardev_testing.ts";

const host = new RecordingHost();
const program = new URL("./chardev_stdio_program.ts", import.meta.url).pathname;
const config = { backend: "stdio", id: "s", signal: false } as const;

/** Where c_lflag lies in struct termios, and some of its flags. */
const LFLAG = 12, ISIG = 1, ICANON = 2, ECHO = 8;

function lflag(fd: number): number {
  return new DataView(getTermios(fd).buffer).getUint32(LFLAG, true) & (ISIG | ICANON | ECHO);
}

/** A terminal as a shell leaves it, seen from outside (`master`) and from inside (`slave`). */
function makeTerminal(): { master: OwnedFd; slave: OwnedFd; path: string } {
  const { master, path } = openPty();
  const slave = openFile(path, O.RDWR | O.NOCTTY);
  const settings = getTermios(slave.fd);
  new DataView(settings.buffer).setUint32(LFLAG, ISIG | ICANON | ECHO, true);
  setTermios(slave.fd, settings);
  return { master, slave, path };
}

/** Starts a shell script with `$DENO` and `$PROGRAM`. */
function start(script: string): Deno.ChildProcess {
  return new Deno.Command("sh", {
    args: ["-c", script],
    env: { DENO: Deno.execPath(), PROGRAM: program, NO_COLOR: "1" },
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
}

/** Runs the program on a terminal until it is ready. */
function onTerminal(argument = "") {
  const terminal = makeTerminal();
  const before = getTermios(terminal.slave.fd);
  const child = start(
    `exec "$DENO" run -A --no-config "$PROGRAM" ${argument} <${terminal.path} >${terminal.path}`,
  );
  assert.equal(hear(terminal.master.fd, 5), "ready");
  return {
    ...terminal,
    child,
    restored: () => assert.deepEqual(getTermios(terminal.slave.fd), before),
    close() {
      terminal.slave.close();
      terminal.master.close();
    },
  };
}

Deno.test("stdio on a terminal is raw, and put back by close()", async () => {
  const t = onTerminal();
  assert.equal(lflag(t.slave.fd), 0);
  say(t.master.fd, "a\x03");
  assert.equal(hear(t.master.fd, 6), "[a][\x03]");
  say(t.master.fd, "q");
  assert.equal(hear(t.master.fd, 3), "end");
  assert.equal((await t.child.status).code, 0);
  t.restored();
  t.close();
});

Deno.test("stdio with signal=on keeps the signal keys", async () => {
  const t = onTerminal("signal");
  assert.equal(lflag(t.slave.fd), ISIG);
  say(t.master.fd, "q");
  await t.child.status;
  t.restored();
  t.close();
});

for (const [key, how, code] of [["e", "exits", 3], ["t", "throws", 1]] as const) {
  Deno.test(`stdio is put back when the program ${how}`, async () => {
    const t = onTerminal();
    assert.equal(lflag(t.slave.fd), 0);
    say(t.master.fd, key);
    assert.equal((await t.child.status).code, code);
    t.restored();
    t.close();
  });
}

for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
  Deno.test(`stdio is put back when ${signal} kills the program`, async () => {
    const t = onTerminal();
    t.child.kill(signal);
    assert.equal((await t.child.status).signal, signal);
    t.restored();
    t.close();
  });
}

Deno.test("stdio is raw again after the program was stopped and continued", async () => {
  const t = onTerminal();
  t.child.kill("SIGSTOP");
  const shell = getTermios(t.slave.fd);
  new DataView(shell.buffer).setUint32(LFLAG, ISIG | ICANON | ECHO, true);
  setTermios(t.slave.fd, shell);
  t.child.kill("SIGCONT");
  await until(() => lflag(t.slave.fd) === 0);
  say(t.master.fd, "q");
  await t.child.status;
  t.restored();
  t.close();
});

Deno.test("stdio in the background leaves the terminal alone until it is in the foreground", async () => {
  const terminal = makeTerminal();
  const cooked = getTermios(terminal.slave.fd);
  const fifo = `${Deno.makeTempDirSync()}/go`;
  // A session of its own, with job control, whose terminal this is.
  const child = start(`
    mkfifo ${fifo}
    exec setsid --ctty sh -c '
      set -m
      "$DENO" run -A --no-config "$PROGRAM" &
      read line <${fifo}
      fg' <${terminal.path} >${terminal.path}`);
  assert.equal(hear(terminal.master.fd, 5), "ready");
  assert.deepEqual(getTermios(terminal.slave.fd), cooked);
  Deno.writeTextFileSync(fifo, "\n");
  await until(() => lflag(terminal.slave.fd) === 0);
  say(terminal.master.fd, "q");
  assert.equal((await child.status).code, 0);
  assert.deepEqual(getTermios(terminal.slave.fd), cooked);
  terminal.slave.close();
  terminal.master.close();
});

Deno.test("stdio does not make the shell's terminal non-blocking, even if it is killed", async () => {
  const terminal = makeTerminal();
  const output = Deno.makeTempFileSync();
  // A background job has no stdin of its own: it gets the shell's as descriptor 3.
  const child = start(`
    exec <${terminal.path} >${terminal.path} 3<&0
    "$DENO" run -A --no-config "$PROGRAM" <&3 &
    echo $! >${output}.pid
    wait
    cat /proc/self/fdinfo/0 /proc/self/fdinfo/1 >${output}`);
  assert.equal(hear(terminal.master.fd, 5), "ready");
  const pid = () => existsSync(`${output}.pid`) ? Deno.readTextFileSync(`${output}.pid`) : "";
  await until(() => pid().endsWith("\n"));
  Deno.kill(Number(pid()), "SIGKILL");
  await child.status;
  const flags = [...Deno.readTextFileSync(output).matchAll(/^flags:\s*([0-7]+)$/gm)];
  assert.equal(flags.length, 2);
  for (const [, octal] of flags) assert.equal(parseInt(octal, 8) & O.NONBLOCK, 0);
  terminal.slave.close();
  terminal.master.close();
});

Deno.test("stdio reads a file to its end and writes to a file", async () => {
  const [input, output] = [Deno.makeTempFileSync(), Deno.makeTempFileSync()];
  Deno.writeTextFileSync(input, "abc");
  const run = async (script: string) => {
    assert.equal((await start(`"$DENO" run -A --no-config "$PROGRAM" ${script}`).status).code, 0);
    return Deno.readTextFileSync(output);
  };
  assert.equal(await run(`<${input} >${output}`), "ready[a][b][c]end");
  assert.equal(await run(`</dev/null >>${output}`), "ready[a][b][c]endreadyend");
  assert.equal(await run(`<${input} | cat >${output}`), "ready[a][b][c]end");
});

Deno.test("a termination signal goes to the host if it asks for it, with the terminal still raw", async () => {
  const { master, slave } = makeTerminal();
  const before = getTermios(slave.fd);
  const signals: string[] = [];
  const fds = new Map([["in", duplicate(slave.fd)], ["out", duplicate(slave.fd)]]);
  const backend = openChardev(
    config,
    { notice() {}, quit() {}, terminate: (signal) => void signals.push(signal) },
    { fds, state: {} },
  );
  Deno.kill(Deno.pid, "SIGHUP");
  await until(() => signals.length > 0);
  assert.deepEqual(signals, ["SIGHUP"]);
  assert.equal(lflag(slave.fd), 0);
  backend.close();
  assert.deepEqual(getTermios(slave.fd), before);
  slave.close();
  master.close();
});

Deno.test("stdio puts back nothing that somebody else has changed meanwhile", () => {
  const { master, slave } = makeTerminal();
  const fds = new Map([["in", duplicate(slave.fd)], ["out", duplicate(slave.fd)]]);
  const backend = openChardev(config, host, { fds, state: {} });
  const other = getTermios(slave.fd);
  new DataView(other.buffer).setUint32(LFLAG, ECHO, true);
  setTermios(slave.fd, other);
  backend.close();
  assert.equal(lflag(slave.fd), ECHO);
  slave.close();
  master.close();
});

Deno.test("output goes on when the writer of stdin has left before the guest reads", async () => {
  const reactor = new Reactor();
  const [input, writer] = makePipe(O.NONBLOCK);
  const [reader, output] = makePipe(O.NONBLOCK);
  const fds = new Map([["in", input], ["out", output]]);
  const backend = openChardev(config, host, { fds, state: {} });
  const frontend = new Recorder();
  frontend.room = 1;
  backend.attach(reactor, frontend);
  say(writer.fd, "script");
  writer.close();
  await until(() => frontend.text === "s");
  for (let i = 0; i < 5; i++) reactor.poll(0);
  backend.write(encode("boot"));
  assert.equal(hear(reader.fd, 4), "boot");
  frontend.room = 100;
  backend.acceptInput();
  await until(() => frontend.events.at(-1) === "closed");
  assert.equal(frontend.text, "script");
  backend.write(encode("more"));
  assert.equal(hear(reader.fd, 4), "more");
  backend.close();
  reader.close();
  await reactor.close();
});

Deno.test("there is one stdio backend at a time", () => {
  const { master, slave } = makeTerminal();
  const kept = () => ({
    fds: new Map([["in", duplicate(slave.fd)], ["out", duplicate(slave.fd)]]),
    state: {},
  });
  const first = openChardev(config, host, kept());
  for (let i = 0; i < 2; i++) {
    assert.throws(() => openChardev(config, host, kept()), {
      message: "cannot use stdio by multiple character devices",
    });
  }
  first.close();
  openChardev(config, host, kept()).close();
  slave.close();
  master.close();
});

Deno.test("the predecessor leaves the terminal raw, the successor puts back what it was", async () => {
  const reactor = new Reactor();
  const { master, slave } = makeTerminal();
  const before = getTermios(slave.fd);
  const fds = () => new Map([["in", duplicate(slave.fd)], ["out", duplicate(slave.fd)]]);
  const old = openChardev(config, host, { fds: fds(), state: {} });
  assert.equal(lflag(slave.fd), 0);
  const state = JSON.parse(JSON.stringify(old.saveState()));
  assert.deepEqual(old.keptFds().map(({ name }) => name), ["in", "out"]);
  old.release();
  assert.equal(lflag(slave.fd), 0);
  const next = openChardev(config, host, { fds: fds(), state });
  next.attach(reactor, new Recorder());
  next.write(encode("x"));
  assert.equal(hear(master.fd, 1), "x");
  next.close();
  assert.deepEqual(getTermios(slave.fd), before);
  slave.close();
  master.close();
  await reactor.close();
});

Deno.test("saved terminal settings that are none are refused, and the terminal is left alone", () => {
  const { master, slave } = makeTerminal();
  const before = getTermios(slave.fd);
  for (const termios of [7, "zz", "00", "00".repeat(61)]) {
    const fds = new Map([["in", duplicate(slave.fd)], ["out", duplicate(slave.fd)]]);
    assert.throws(() => openChardev(config, host, { fds, state: { termios } }));
    assert.deepEqual(getTermios(slave.fd), before);
  }
  slave.close();
  master.close();
});
