import assert from "node:assert/strict";
import type { CharacterFrontend } from "../../devices/chardev/backend.ts";
import type { ChardevConfig } from "../../devices/chardev/config.ts";
import { duplicate, isOpen, makePipe } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { connectUnix } from "../../ffi/socket.ts";
import { ChardevSet } from "../../vmm/chardev_set.ts";
import type { MonitorConfig } from "../../vmm/config.ts";
import { Inheritance, type Successor } from "../../vmm/inheritance.ts";

const host = { notice: () => {}, quit: () => {} };
const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** A reactor, a folder and sets of character devices. */
class Stage implements AsyncDisposable {
  readonly reactor = new Reactor();
  readonly #sets: ChardevSet[] = [];

  private constructor(readonly folder: string) {}

  static async open(): Promise<Stage> {
    return new Stage(await Deno.makeTempDir({ prefix: "denovo-chardevs-" }));
  }

  /** A server, and whether it is kept; a monitor's if `id` begins so. */
  server(id: string, cpr?: boolean): ChardevConfig {
    const path = `${this.folder}/${id}`;
    return { backend: "socket", id, family: "unix", path, server: true, wait: false, cpr };
  }

  file(id: string): ChardevConfig {
    return { backend: "file", id, path: `${this.folder}/${id}`, append: false };
  }

  async set(configs: ChardevConfig[], inheritance?: Inheritance): Promise<ChardevSet> {
    const set = new ChardevSet(this.reactor, host);
    this.#sets.push(set);
    const monitors = configs.filter(({ id }) => id.startsWith("mon")).map(({ id }) =>
      ({ mode: "control", chardev: id, pretty: false }) satisfies MonitorConfig
    );
    await set.open(configs, monitors, inheritance, { successor: inheritance !== undefined });
    return set;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const set of this.#sets) set.close();
    await this.reactor.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** What a set hands over, in an inheritance of duplicates. */
function inheritedFrom(set: ChardevSet, to: Successor, shared = true): Inheritance {
  const inheritance = new Inheritance(shared);
  const { fds, values } = set.handOver(to);
  for (const { name, id, fd } of fds) inheritance.addFd(name, id, duplicate(fd));
  for (const { name, id, data } of values) inheritance.addValue(name, id, data);
  return inheritance;
}

/** A frontend whose state is a word. */
class Speaker implements CharacterFrontend {
  restored: (string | undefined)[] = [];
  constructor(readonly word?: string) {}
  inputRoom = () => 0;
  input = () => {};
  event = () => {};
  writable = () => {};
  saveState = () => this.word;
  restoreState = (state: string | undefined) => void this.restored.push(state);
}

Deno.test("a set of character devices hands over what each successor goes on with", async () => {
  await using stage = await Stage.open();
  const set = await stage.set([
    stage.server("a"),
    stage.server("off", false),
    stage.file("f"),
    stage.server("mon"),
    stage.server("mon-on", true),
    stage.file("mon-file"),
  ]);
  const names = (to: Successor) => {
    const { fds, values } = set.handOver(to);
    const parts = values.map(({ name, id }) => `${name} ${id}`);
    return [...fds.map(({ name, id }) => `${name} ${id}`), ...parts];
  };
  const neighbour = ["listener a", "file f", "listener mon-on"].map((one) => `chardev/${one}`);
  assert.deepEqual(names("neighbour"), [...neighbour, "chardev a", "chardev f", "chardev mon-on"]);
  const inPlace = ["listener a", "file f", "listener mon", "listener mon-on", "file mon-file"]
    .map((one) => `chardev/${one}`);
  const states = ["a", "f", "mon", "mon-on", "mon-file"].map((id) => `chardev ${id}`);
  for (const to of ["helper", "same process"] as const) {
    assert.deepEqual(names(to), [...inPlace, ...states]);
  }
});

Deno.test("a set tells a neighbour again only of what has changed since it was told", async () => {
  await using stage = await Stage.open();
  const set = await stage.set([
    stage.server("a"),
    stage.server("off", false),
    stage.file("f"),
    stage.server("mon"),
    stage.server("mon-on", true),
  ]);
  const speaker = new Speaker("before");
  set.attach("a", speaker);
  const changes = () => set.changes().map(({ id, data }) => `${id} ${decode(data)}`);
  const state = (word: string) => `a {"connected":false,"frontend0":"${word}"}`;
  assert.deepEqual(changes(), [state("before"), "f {}", 'mon-on {"connected":false}']);
  for (const to of ["neighbour", "helper"] as const) {
    set.handOver(to);
    assert.deepEqual(changes(), []);
    Object.assign(speaker, { word: "after" });
    assert.deepEqual(changes(), [state("after")]);
    assert.deepEqual(changes(), [state("after")]);
    Object.assign(speaker, { word: "before" });
    assert.deepEqual(changes(), []);
  }
});

Deno.test("a monitor's connection is not handed over, and its successor knows", async () => {
  await using stage = await Stage.open();
  const set = await stage.set([stage.server("mon")]);
  set.attach("mon", new Speaker());
  using _client = connectUnix(`${stage.folder}/mon`);
  while (!set.get("mon").connected) await new Promise((resolve) => setTimeout(resolve, 1));
  const { fds, values: [{ data }] } = set.handOver("same process");
  assert.deepEqual(fds.map(({ name }) => name), ["chardev/listener"]);
  assert.deepEqual(JSON.parse(decode(data)), { connected: false });
});

for (const word of ["after", "before"]) {
  Deno.test(`a set goes on where its predecessor was when the guest came: ${word}`, async () => {
    await using stage = await Stage.open();
    const configs = [stage.server("a"), stage.file("f")];
    const old = await stage.set(configs);
    const speaker = new Speaker("before");
    old.attach("a", speaker);
    const inheritance = inheritedFrom(old, "neighbour");
    const next = await stage.set(configs, inheritance);
    inheritance.checkEmpty();
    const listener = new Speaker();
    next.attach("a", listener);
    assert.equal(next.get("a").held, "everything");
    assert.ok(next.hasFrontendStates);
    Object.assign(speaker, { word });
    const takeOver = next.arrive(old.changes());
    assert.deepEqual(listener.restored, []);
    takeOver();
    assert.deepEqual(listener.restored, [word]);
    assert.equal(next.get("a").held, "nothing");
  });
}

Deno.test("a set closes what it was left of devices that it does not have", async () => {
  await using stage = await Stage.open();
  const old = await stage.set([stage.server("a"), stage.server("b"), stage.file("f")]);
  const inheritance = inheritedFrom(old, "neighbour");
  const numbers = inheritance.fds.map(({ fd }) => fd);
  assert.equal(numbers.length, 3);
  const next = await stage.set(
    [stage.server("a")],
    inheritance,
  );
  inheritance.checkEmpty();
  assert.deepEqual(numbers.map(isOpen), [true, false, false]);
  assert.deepEqual([...next.backends.keys()], ["a"]);
});

Deno.test("a set refuses states and descriptors that make no sense", async () => {
  await using stage = await Stage.open();
  const states: [state: string, reason: string][] = [
    ["{", "is not JSON"],
    ["\xff", "is not JSON"],
    ["null", "is not a plain object"],
    ["[1]", "is not a plain object"],
    ['{"a":{}}', "is not a plain object"],
    ['{"a":null}', "is not a plain object"],
  ];
  for (const [state, reason] of states) {
    for (const id of ["f", "stranger"]) {
      using inheritance = new Inheritance(false);
      const data = state === "\xff" ? Uint8Array.of(0xff) : encode(state);
      inheritance.addValue("chardev", id, data);
      const message = `State of character device '${id}' ${reason}`;
      await assert.rejects(stage.set([stage.file("f")], inheritance), { message });
    }
  }
  const set = await stage.set([stage.file("g")]);
  assert.throws(() => set.arrive([{ name: "chardev", id: "g", data: encode("3") }]), {
    message: "State of character device 'g' is not a plain object",
  });
  const [reader, writer] = makePipe();
  using inheritance = new Inheritance(false);
  inheritance.addFd("chardev/file", "f", reader);
  await assert.rejects(stage.set([stage.file("f")], inheritance), {
    message: "Character device 'f' has file descriptors but no state",
  });
  inheritance[Symbol.dispose]();
  writer.close();
});

Deno.test("members of objects are not taken for ids", async () => {
  await using stage = await Stage.open();
  using inheritance = new Inheritance(false);
  for (const id of ["__proto__", "constructor"]) inheritance.addValue("chardev", id, encode("{}"));
  await stage.set([stage.file("f")], inheritance);
  inheritance.checkEmpty();
});
