import assert from "node:assert/strict";
import type { Mux } from "../../devices/chardev/mux.ts";
import { openChardev } from "../../devices/chardev/open.ts";
import { duplicate, type OwnedFd, pollFd, POLLIN, readFd } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { shutdownSocket, socketPair } from "../../ffi/socket.ts";
import { encode, hear, Recorder, RecordingHost, say, until } from "./chardev_testing.ts";

const HELP = "\n\r" +
  "C-a h    print this help\n\r" +
  "C-a x    exit emulator\n\r" +
  "C-a s    save disk data back to file (if -snapshot)\n\r" +
  "C-a t    toggle console timestamps\n\r" +
  "C-a b    send break (magic sysrq)\n\r" +
  "C-a c    switch between console and monitor\n\r" +
  "C-a C-a  sends C-a\n\r";

interface Setup {
  readonly mux: Mux;
  readonly host: RecordingHost;
  readonly peer: OwnedFd;
  readonly reactor: Reactor;
  /** Attached first. */
  readonly monitor: Recorder;
  /** Attached last: it has the focus. */
  readonly serial: Recorder;
}

async function withMux(test: (setup: Setup) => void | Promise<void>): Promise<void> {
  const [near, peer] = socketPair();
  const host = new RecordingHost();
  const reactor = new Reactor();
  const mux = openChardev({ backend: "fd", id: "m", fd: near.release(), mux: true }, host) as Mux;
  const monitor = new Recorder();
  const serial = new Recorder();
  mux.attach(reactor, monitor);
  mux.attach(reactor, serial);
  try {
    await test({ mux, host, peer, reactor, monitor, serial });
  } finally {
    mux.close();
    peer.close();
    await reactor.close();
  }
}

Deno.test("a multiplexer is named as in QEMU, and so is its base", () =>
  withMux(({ mux }) => {
    assert.deepEqual([mux.label, mux.filename], ["m", "mux"]);
    assert.deepEqual([mux.base.label, mux.base.filename], ["m-base", "unix:"]);
    assert.deepEqual([mux.frontendOpen, mux.base.frontendOpen], [true, true]);
  }));

Deno.test("input goes to the frontend that came last, and C-a c switches", () =>
  withMux(async ({ peer, monitor, serial }) => {
    assert.deepEqual(monitor.events, ["opened", "mux-in", "mux-out"]);
    assert.deepEqual(serial.events, ["opened", "mux-in"]);
    say(peer.fd, "login\x01cinfo\x01cmore");
    await until(() => serial.text === "loginmore");
    assert.equal(monitor.text, "info");
    assert.deepEqual(serial.events, ["opened", "mux-in", "mux-out", "mux-in"]);
  }));

Deno.test("output of all frontends goes to the backend", () =>
  withMux(({ mux, peer }) => {
    mux.write(encode("one "));
    mux.write(encode("two"));
    assert.equal(hear(peer.fd, 7), "one two");
  }));

for (const key of ["h", "?"]) {
  Deno.test(`C-a ${key} prints the help`, () =>
    withMux(async ({ peer, serial }) => {
      say(peer.fd, `a\x01${key}b`);
      await until(() => serial.text === "ab");
      assert.equal(hear(peer.fd, HELP.length), HELP);
    }));
}

Deno.test("the key that begins commands can be another", async () => {
  const [near, peer] = socketPair();
  const reactor = new Reactor();
  const config = { backend: "fd", id: "m", fd: near.release(), mux: true, escape: 0x14 } as const;
  const mux = openChardev(config, new RecordingHost());
  const serial = new Recorder();
  mux.attach(reactor, serial);
  const help = HELP.replaceAll("C-a", "C-t");
  say(peer.fd, "\x01h\x14\x14\x14h");
  await until(() => serial.text === "\x01h\x14");
  assert.equal(hear(peer.fd, help.length), help);
  mux.close();
  peer.close();
  await reactor.close();
});

Deno.test("a frontend reads what its peer has left before it hears that the peer is gone", () =>
  withMux(async ({ mux, peer, monitor, serial }) => {
    const woken = (condition: () => boolean) => () => (mux.acceptInput(), condition());
    monitor.room = 0;
    say(peer.fd, "login\x01cquit");
    shutdownSocket(peer.fd);
    await until(() => serial.text === "login" && serial.events.at(-1) === "closed");
    assert.equal(monitor.text, "");
    assert.equal(monitor.events.at(-1), "mux-in");
    monitor.room = 4;
    await until(woken(() => monitor.text === "quit"));
    // It has no room while it is at work.
    assert.equal(monitor.events.at(-1), "mux-in");
    monitor.room = 1;
    await until(woken(() => monitor.events.at(-1) === "closed"));
  }));

Deno.test("C-a x says goodbye and quits", () =>
  withMux(async ({ peer, host }) => {
    say(peer.fd, "\x01x");
    await until(() => host.quits === 1);
    assert.equal(hear(peer.fd, 18), "QEMU: Terminated\n\r");
  }));

Deno.test("C-a C-a sends C-a, C-a b a break, other keys nothing", () =>
  withMux(async ({ peer, monitor, serial }) => {
    say(peer.fd, "\x01\x01\x01b\x01q\x01s.");
    await until(() => serial.text === "\x01.");
    assert.equal(serial.events.at(-1), "break");
    assert.equal(monitor.events.includes("break"), false);
  }));

Deno.test("C-a may be the last byte of one read and its key the first of the next", () =>
  withMux(async ({ peer, monitor, serial }) => {
    say(peer.fd, "a\x01");
    await until(() => serial.text === "a");
    say(peer.fd, "cb");
    await until(() => monitor.text === "b");
  }));

Deno.test("C-a is seen although the guest reads nothing", () =>
  withMux(async ({ mux, peer, monitor, serial }) => {
    serial.room = 0;
    say(peer.fd, "for the guest\x01c");
    say(peer.fd, "for the monitor");
    await until(() => monitor.text === "for the monitor");
    // What was typed before the switch is not lost, although the focus is elsewhere.
    serial.room = 4;
    mux.acceptInput();
    await until(() => serial.text === "for ");
    serial.room = 100;
    mux.acceptInput();
    await until(() => serial.text === "for the guest");
  }));

Deno.test("no more than a little is read ahead of a guest that reads nothing", () =>
  withMux(async ({ mux, peer, serial }) => {
    serial.room = 0;
    say(peer.fd, "x".repeat(100));
    await until(() => mux.saveState().muxQueue1 !== "");
    assert.equal(mux.saveState().muxQueue1, "78".repeat(32));
    serial.room = 1000;
    mux.acceptInput();
    await until(() => serial.text === "x".repeat(100));
  }));

Deno.test("C-a t puts the time before each line that begins after it", () =>
  withMux(async ({ mux, peer, serial }) => {
    say(peer.fd, "\x01t.");
    await until(() => serial.text === ".");
    mux.write(encode("rest of a line\none"));
    mux.write(encode(" line\n"));
    mux.write(encode("two\n"));
    const text = hear(peer.fd, 15 + 15 + 9 + 15 + 4);
    assert.match(text, /^rest of a line\n\[00:00:00\.000\] one line\n\[00:00:\d\d\.\d{3}\] two\n$/);
    say(peer.fd, "\x01t.");
    await until(() => serial.text === "..");
    mux.write(encode("plain\nplain\n"));
    assert.equal(hear(peer.fd, 12), "plain\nplain\n");
  }));

Deno.test("time stamps come whole when the host takes bytes only now and then", () =>
  withMux(async ({ mux, peer, serial }) => {
    say(peer.fd, "\x01t.");
    await until(() => serial.text === ".");
    const lines = Array.from({ length: 20_000 }, (_, i) => `line ${i}\n`);
    const data = encode("\n" + lines.join(""));
    let sent = 0;
    const push = () => {
      for (let n = 1; n > 0 && sent < data.length; sent += n) {
        n = mux.write(data.subarray(sent, sent + 700));
      }
    };
    serial.onWritable = push;
    push();
    assert.ok(sent < data.length, "the socket takes it all at once: nothing is tested");
    let text = "";
    await until(() => (text += drain(peer.fd)).endsWith("line 19999\n"));
    const plain = text.replaceAll(/^\[\d\d:\d\d:\d\d\.\d{3}\] (?=line)/gm, "");
    assert.equal(plain, "\n" + lines.join(""));
    assert.equal(text.length - plain.length, 20_000 * 15);
  }));

Deno.test("both frontends hear of the connection and of room for output", () =>
  withMux(async ({ mux, peer, monitor, serial }) => {
    const calls = [monitor.writableCalls, serial.writableCalls];
    while (mux.write(new Uint8Array(4096)) === 4096);
    drain(peer.fd);
    await until(() => serial.writableCalls > calls[1]);
    assert.equal(monitor.writableCalls, calls[0] + 1);
    peer.close();
    await until(() => serial.events.at(-1) === "closed");
    assert.equal(monitor.events.at(-1), "closed");
  }));

Deno.test("a multiplexer has up to four frontends", () =>
  withMux(({ mux, reactor }) => {
    mux.attach(reactor, new Recorder());
    mux.attach(reactor, new Recorder());
    assert.throws(() => mux.attach(reactor, new Recorder()), {
      message: "too many uses of multiplexed chardev 'm' (maximum is 4)",
    });
  }));

Deno.test("a successor has the focus, the keys and the input where the predecessor had them", () =>
  withMux(async ({ mux, peer, reactor, serial, monitor }) => {
    serial.room = 0;
    say(peer.fd, "\x01tunread\x01c\x01");
    await until(() => mux.saveState().muxEscaped === true && mux.saveState().muxFocus === 0);
    const fds = new Map(mux.keptFds().map(({ name, fd }) => [name, duplicate(fd)]));
    const state = JSON.parse(JSON.stringify(mux.saveState()));
    const next = openChardev(
      { backend: "fd", id: "m", fd: -1, mux: true },
      new RecordingHost(),
      { fds, state },
    ) as Mux;
    mux.release();
    const [newMonitor, newSerial] = [new Recorder(), new Recorder()];
    next.attach(reactor, newMonitor);
    next.attach(reactor, newSerial);
    assert.equal(newSerial.text, "unread");
    assert.equal(next.base.stamping, true);
    say(peer.fd, "\x01info");
    await until(() => newMonitor.text === "\x01info");
    assert.equal(newSerial.text, "unread");
    assert.equal(serial.text + monitor.text, "");
    next.close();
  }));

function drain(fd: number): string {
  const buffer = new Uint8Array(1 << 20);
  let text = "";
  while (pollFd(fd, POLLIN, 0) & POLLIN) {
    text += new TextDecoder().decode(buffer.subarray(0, readFd(fd, buffer)));
  }
  return text;
}
