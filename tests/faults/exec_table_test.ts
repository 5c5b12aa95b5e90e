/** What a program finds that was executed over a VMM, damaged or made up: refused by name. */
import assert from "node:assert/strict";
import { EXEC_STATE, type ReceivedExec, receiveExec } from "../../cpr/modes/exec.ts";
import { encodeHandover } from "../../cpr/handover/handover.ts";
import { Ownership } from "../../cpr/handover/ownership.ts";
import { encodeStream, type Section } from "../../cpr/stream/stream.ts";
import { isOpen, writeAll } from "../../ffi/fd.ts";
import { addSeals, makeMemfd, Seal } from "../../ffi/memory.ts";
import type { HandedFd } from "../../vmm/inheritance.ts";
import { assertNames, type Bytes, cut, doubled, encodeParts, flipped, refusal } from "./damage.ts";

const COMMAND = ["deno", "run", "mod.ts"];
const STATE = new TextEncoder().encode("the saved state");

function section(name: string, data: Bytes): Section {
  return { name, id: "", version: 1, data };
}

function json(value: unknown): Bytes {
  return new TextEncoder().encode(JSON.stringify(value));
}

/** The descriptors of a guest, and what a VMM says of them to the program that it executes. */
class Handover implements Disposable {
  readonly #memory = makeMemfd("memory", 4096, { sealing: true });
  readonly #ownership = Ownership.create();
  readonly fds: readonly HandedFd[] = [
    { name: "ownership", id: "", fd: this.#ownership.fd },
    { name: "memory", id: "microvm.ram", fd: this.#memory.fd },
  ];

  constructor() {
    addSeals(this.#memory.fd, Seal.SHRINK | Seal.GROW);
  }

  /** The table, and the way back. */
  get sections(): Section[] {
    const values = [{ name: "processors", id: "", data: new Uint8Array() }];
    const fds = encodeHandover({ fds: this.fds, values }, ({ fd }) => fd);
    return [...fds, section("exec/command", json(COMMAND)), section("exec/state", STATE)];
  }

  /** What the program gets from a table. */
  receive(bytes: Bytes): ReceivedExec | undefined {
    const state = makeMemfd("table", 0);
    writeAll(state.fd, bytes);
    Deno.env.set(EXEC_STATE, `${state.fd}`);
    // Whoever reads the table closes it.
    const number = state.release();
    try {
      return receiveExec();
    } finally {
      assert.equal(Deno.env.get(EXEC_STATE), undefined);
      assert.ok(!isOpen(number));
    }
  }

  /** Why the program refuses a table. */
  refusal(bytes: Bytes, what: string): string {
    return refusal(() => this.receive(bytes), what);
  }

  [Symbol.dispose](): void {
    this.#memory.close();
    this.#ownership.close();
  }
}

Deno.test("a table that came over exec gives the descriptors and the way back", () => {
  using handover = new Handover();
  const received = handover.receive(encodeStream(handover.sections))!;
  assert.deepEqual(received.inheritance.fds, handover.fds);
  assert.equal(received.inheritance.shared, false);
  assert.equal(received.failure, undefined);
  received.wayBack![Symbol.dispose]();

  const failed = section("exec/failed", new TextEncoder().encode("it was Monday"));
  const back = handover.receive(encodeStream([...handover.sections, failed]))!;
  assert.deepEqual(back.failure, { reason: "it was Monday", state: STATE });
  assert.equal(back.wayBack, undefined);
});

Deno.test("a table over exec with any byte changed, doubled or missing is refused", () => {
  using handover = new Handover();
  const parts = encodeParts(handover.sections);
  for (const { bytes, part, what } of [...flipped(parts), ...cut(parts)]) {
    assertNames(handover.refusal(bytes, what), part, parts.length, what);
  }
  for (const { bytes, what } of doubled(parts)) handover.refusal(bytes, what);
});

Deno.test("a table over exec that is whole but makes no sense is refused", () => {
  using handover = new Handover();
  const { sections } = handover;
  const refuse = (changed: Section[], message: RegExp) =>
    assert.match(handover.refusal(encodeStream(changed), `${message}`), message);
  for (const name of ["exec/command", "exec/state"]) {
    refuse(sections.filter((one) => one.name !== name), /^Descriptor table lacks the way back$/);
  }
  for (const text of ["", "[", "{}", "[]", "[1]", '"deno"', "null"]) {
    const command = section("exec/command", new TextEncoder().encode(text));
    const changed = sections.map((one) => one.name === command.name ? command : one);
    refuse(changed, /^Section 'exec\/command' is not a command line$/);
  }
  const { fd: taken } = handover.fds[0];
  for (const number of [0, 1, 2, taken, 999_999, 0xffff_ffff]) {
    const data = new Uint8Array(new Uint32Array([number]).buffer);
    refuse(sections.with(1, { ...sections[1], data }), /'fd\/memory' microvm.ram was not passed$/);
  }
});

Deno.test("an environment that names no table is refused", () => {
  for (const value of ["", "x", "-1", "7 ", "1e1", "999999", "99999999999"]) {
    Deno.env.set(EXEC_STATE, value);
    const message = refusal(receiveExec, value);
    assert.equal(message, `${EXEC_STATE}=${value} names no open file descriptor`);
  }
  assert.equal(receiveExec(), undefined);
});
