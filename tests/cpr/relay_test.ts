/** A relay's part that is not the transfer: who gives the guest away, to whom, and when it ends. */
import assert from "node:assert/strict";
import { Relay } from "../../cpr/modes/relay.ts";
import { closeChannels, type RelayChannels, RelayLink } from "../../cpr/modes/relay_link.ts";
import { makePipe, readFd, writeAll } from "../../ffi/fd.ts";
import { spawn } from "../../ffi/process.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { socketPair } from "../../ffi/socket.ts";
import { until } from "../devices/chardev_testing.ts";

const RELAY = "DENOVO_CPR_RELAY";
const never = new AbortController().signal;
const encode = (text: string) => new TextEncoder().encode(text);

/** A part in a relay as its environment says it, the other end of its link, and an event loop. */
class Stage implements AsyncDisposable {
  readonly relay: Relay;
  readonly other: RelayLink;
  readonly reactor: Reactor = new Reactor();

  constructor(part: { helper?: number; back?: string[] } = {}) {
    const [own, other] = socketPair();
    this.other = new RelayLink(other);
    Deno.env.set(RELAY, JSON.stringify({ link: own.release(), processors: [0], ...part }));
    this.relay = Relay.fromEnvironment()!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.relay.link[Symbol.dispose]();
    this.other[Symbol.dispose]();
    await this.reactor.close();
  }
}

/** Tells over both connections of a transfer what they are, as if the guest went over them. */
function tell({ cpr, main }: RelayChannels): void {
  writeAll(cpr.fd, encode("descriptors"));
  writeAll(main.fd, encode("state"));
}

/** What has come over the connections of a transfer, which are closed. */
function told(channels: RelayChannels): string[] {
  const parts = [channels.cpr, channels.main].map(({ fd }) => {
    const buffer = new Uint8Array(64);
    return new TextDecoder().decode(buffer.subarray(0, readFd(fd, buffer)));
  });
  closeChannels(channels);
  return parts;
}

Deno.test("`giveAway()` gives the guest to who asks, on the connections that it gets", async () => {
  await using stage = new Stage();
  const given = stage.relay.giveAway(stage.reactor, (channels) => {
    tell(channels);
    return Promise.resolve(true);
  });
  // Asking blocks this thread, on which the answer is made: so the answer comes first.
  writeAll(stage.other.fd.fd, encode("A"));
  assert.equal(await given, undefined);
  assert.deepEqual(told(stage.other.ask()), ["descriptors", "state"]);
  assert.equal(await stage.other.asked(stage.reactor, never), false);
});

Deno.test("`giveAway()` keeps a guest that could not be given, for who asks next", async () => {
  await using stage = new Stage();
  let turn = 0;
  const given = stage.relay.giveAway(stage.reactor, () => {
    turn++;
    if (turn === 1) return Promise.resolve(false);
    if (turn === 2) return Promise.reject(new Error("who asked has died"));
    return Promise.resolve(true);
  });
  for (let i = 0; i < 3; i++) writeAll(stage.other.fd.fd, encode("A"));
  assert.equal(await given, undefined);
  assert.equal(turn, 3);
});

Deno.test("`giveAway()` says so when nobody is left who could take the guest", async () => {
  await using stage = new Stage();
  const given = stage.relay.giveAway(stage.reactor, () => Promise.reject(new Error("not asked")));
  stage.other[Symbol.dispose]();
  assert.equal(await given, "cpr-exec failed: the new program has ended");
});

Deno.test("`arrived()` lets the helper end, and waits for it", async () => {
  const [reader, writer] = makePipe();
  using child = spawn(["/bin/sh", "-c", "read line; exit 0"], { fds: [[reader.fd, 0]] });
  reader.close();
  await using stage = new Stage({ helper: child.pid });
  stage.relay.arrived(stage.reactor);
  assert.equal(await stage.other.asked(stage.reactor, never), false);
  const isThere = () => {
    try {
      return Deno.statSync(`/proc/${child.pid}`).isDirectory;
    } catch {
      return false;
    }
  };
  assert.equal(isThere(), true);
  writer.close();
  // A child that is waited for leaves nothing; one that is not stays as a zombie.
  await until(() => !isThere());
});

/** The link in a program that is started: a shell knows numbers of one digit only. */
const LINK = 7;

Deno.test("`goBack()` becomes the program before, which has the link and the reason", async () => {
  const [own, other] = socketPair();
  using link = new RelayLink(other);
  const [reader, writer] = makePipe();
  using output = reader;
  const script = `printf '%s' "$${RELAY}"; printf A >&${LINK}`;
  const part = {
    link: LINK,
    helper: 4711,
    back: ["/bin/sh", "-c", script],
    processors: [0],
  };
  const program = new URL("./relay_program.ts", import.meta.url).pathname;
  using child = spawn([Deno.execPath(), "run", "-A", "--no-check", program], {
    env: { [RELAY]: JSON.stringify(part) },
    fds: [[writer.fd, 1], [own.fd, LINK]],
  });
  writer.close();
  own.close();
  let text = "";
  const buffer = new Uint8Array(4096);
  for (let n; (n = readFd(output.fd, buffer)) > 0;) {
    text += new TextDecoder().decode(buffer.subarray(0, n));
  }
  assert.deepEqual(child.wait(), { code: 0 });
  const { back: _back, processors: _processors, ...rest } = part;
  const { processors, ...left } = JSON.parse(text);
  assert.deepEqual(left, { ...rest, failure: "it was Monday" });
  assert.ok(Array.isArray(processors) && processors.length > 0);
  await using reactor = Object.assign(new Reactor(), {
    async [Symbol.asyncDispose](this: Reactor) {
      await this.close();
    },
  });
  assert.equal(await link.asked(reactor, never), true);
});
