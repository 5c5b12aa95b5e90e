/** The way back of cpr-exec: a program that cannot take the guest executes the one before it. */
import assert from "node:assert/strict";
import { EXEC_STATE } from "../../cpr/modes/exec.ts";
import { encodeHandover } from "../../cpr/handover/handover.ts";
import { encodeStream, type Section } from "../../cpr/stream/stream.ts";
import { fileStatus, makePipe, type OwnedFd, readFd, writeAll } from "../../ffi/fd.ts";
import { makeMemfd } from "../../ffi/memory.ts";
import { type ExitStatus, spawn } from "../../ffi/process.ts";

const program = new URL("./exec_program.ts", import.meta.url).pathname;
const command = (task: string) => [Deno.execPath(), "run", "-A", "--no-check", program, task];
const text = (value: string) => new TextEncoder().encode(value);

/** Executes the program with a table of two descriptors and a value. */
function run(task: string, back: readonly string[]): { output: string; status: ExitStatus } {
  using opened = new DisposableStack();
  const memfd = (name: string): OwnedFd => opened.use(makeMemfd(name, 4096));
  const [ram, disk] = [memfd("ram"), memfd("disk")];
  const fds = [
    { name: "memory", id: "ram", fd: ram.fd },
    { name: "disk/data", id: "d", fd: disk.fd },
  ];
  const values = [{ name: "disk", id: "d", data: Uint8Array.of(1, 2) }];
  const about: Section[] = [
    { name: "exec/command", id: "", version: 1, data: text(JSON.stringify(back)) },
    { name: "exec/state", id: "", version: 1, data: text("the saved state") },
  ];
  const table = opened.use(makeMemfd("table", 0));
  writeAll(table.fd, encodeStream([...encodeHandover({ fds, values }, ({ fd }) => fd), ...about]));
  const [reader, writer] = makePipe();
  opened.use(reader);
  using child = spawn(command(task), {
    env: { [EXEC_STATE]: `${table.fd}` },
    fds: [[writer.fd, 1], ...[table, ram, disk].map(({ fd }) => [fd, fd] as const)],
  });
  writer.close();
  let output = "";
  const buffer = new Uint8Array(4096);
  for (let n; (n = readFd(reader.fd, buffer)) > 0;) {
    output += new TextDecoder().decode(buffer.subarray(0, n));
  }
  const inodes = new Map([["RAM", ram], ["DISK", disk]]);
  for (const [name, { fd }] of inodes) {
    output = output.replaceAll(new RegExp(`\\b${fileStatus(fd).ino}\\b`, "g"), name);
  }
  return { output, status: child.wait() };
}

const left = {
  fds: ["memory ram RAM", "disk/data d DISK"],
  values: ["disk d 1,2"],
};

Deno.test("a program learns from its environment what the one before it left", () => {
  const { output, status } = run("tell", ["unused"]);
  assert.deepEqual(status, { code: 0 });
  assert.deepEqual(JSON.parse(output), { ...left, hasWayBack: true });
});

Deno.test("the way back leaves all that came to the program before, with the reason", () => {
  const { output, status } = run("refuse", command("tell"));
  assert.deepEqual(status, { code: 0 });
  const failure = { reason: "it was Monday", state: "the saved state" };
  assert.deepEqual(JSON.parse(output), { ...left, failure, hasWayBack: false });
});

Deno.test("a way back that leads nowhere says so", () => {
  const { output, status } = run("refuse", ["/nonexistent/program"]);
  assert.equal(output, "execve /nonexistent/program: No such file or directory\n");
  assert.deepEqual(status, { code: 0 });
});

Deno.test("there is no way back once the guest has arrived", () => {
  const { output, status } = run("arrive", command("tell"));
  assert.equal(output, "the guest stays\n");
  assert.deepEqual(status, { code: 0 });
});
