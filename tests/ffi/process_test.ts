import assert from "node:assert/strict";
import {
  isOpen,
  makePipe,
  O,
  openFile,
  type OwnedFd,
  pollFd,
  POLLIN,
  readFd,
} from "../../ffi/fd.ts";
import { makeMemfd } from "../../ffi/memory.ts";
import {
  findProgram,
  hasEnded,
  installKick,
  kickThread,
  nameThread,
  openPidfd,
  spawn,
  type SpawnOptions,
  threadId,
} from "../../ffi/process.ts";
import { newlyOpen, openFiles } from "../processes.ts";

const SIGTERM = 15;
const SIGKILL = 9;

/** Everything that comes out of a descriptor until its end. */
function readAll(fd: number): string {
  const buffer = new Uint8Array(4096);
  let text = "";
  for (let n; (n = readFd(fd, buffer)) > 0;) {
    text += new TextDecoder().decode(buffer.subarray(0, n));
  }
  return text;
}

/** Runs a command to its end; returns its output and how it ended. */
function run(argv: string[], options: SpawnOptions = {}) {
  const [input, output] = makePipe();
  using child = spawn(argv, { ...options, fds: [[output.fd, 1], ...(options.fds ?? [])] });
  output.close();
  const text = readAll(input.fd);
  input.close();
  return { text, status: child.wait(), pid: child.pid };
}

Deno.test("`spawn()` runs a program and tells its exit code", () => {
  assert.deepEqual(run(["sh", "-c", "echo $0 $1; exit 42", "a", "b c"]).text, "a b c\n");
  assert.deepEqual(run(["sh", "-c", "exit 42"]).status, { code: 42 });
  assert.deepEqual(run(["/bin/true"]).status, { code: 0 });
});

Deno.test("`spawn()` starts a child in another folder", () => {
  assert.equal(run(["pwd"], { cwd: "/proc/sys" }).text, "/proc/sys\n");
  assert.throws(() => run(["pwd"], { cwd: "/nonexistent" }), /No such file or directory/);
});

Deno.test("`spawn()` tells the signal that ended the child", () => {
  using child = spawn(["sleep", "1000"]);
  assert.equal(child.poll(), undefined);
  assert.equal(hasEnded(child.pidfd.fd), false);
  child.kill(SIGTERM);
  assert.deepEqual(child.wait(), { signal: SIGTERM });
  assert.deepEqual(child.poll(), { signal: SIGTERM });
  // The id may be another process's by now.
  child.kill(SIGKILL);
});

Deno.test("`spawn()` gives the child the descriptors named, under their numbers, and no others", () => {
  using file = makeMemfd("passed", 7);
  using _other = makeMemfd("other", 7);
  const other = file.fd + 50;
  const { text } = run(["sh", "-c", "ls -l /proc/self/fd"], {
    fds: [[file.fd, other], [file.fd, file.fd]],
  });
  const passed = [...text.matchAll(/ (\d+) -> \/memfd:(\w+)/g)].map(([, fd, name]) => [fd, name]);
  assert.deepEqual(
    passed.toSorted(),
    [[`${file.fd}`, "passed"], [`${other}`, "passed"]].toSorted(),
  );
  assert.equal(isOpen(file.fd), true);
});

Deno.test("`spawn()` changes the environment as told", () => {
  Deno.env.set("DENOVO_TEST_KEPT", "kept");
  Deno.env.set("DENOVO_TEST_REMOVED", "still there");
  const env = { DENOVO_TEST_NEW: "a=b", DENOVO_TEST_REMOVED: undefined };
  const command = "echo $DENOVO_TEST_KEPT $DENOVO_TEST_NEW [$DENOVO_TEST_REMOVED]";
  assert.equal(run(["sh", "-c", command], { env }).text, "kept a=b []\n");
  Deno.env.delete("DENOVO_TEST_KEPT");
  Deno.env.delete("DENOVO_TEST_REMOVED");
});

Deno.test("`spawn()` starts the child in a session of its own when told to", () => {
  const session = (newSession: boolean) => {
    const { text, pid } = run(["sh", "-c", "cut -d' ' -f6 /proc/$$/stat"], { newSession });
    return Number(text) === pid;
  };
  assert.equal(session(true), true);
  assert.equal(session(false), false);
});

Deno.test("`spawn()` throws when the program cannot be started, and leaves nothing open", () => {
  const before = openFiles(Deno.pid);
  assert.throws(() => spawn(["/nonexistent"]), {
    message: "posix_spawn /nonexistent: No such file or directory",
  });
  assert.throws(() => spawn(["no-such-program-anywhere"]), { code: "ENOENT" });
  assert.throws(() => spawn(["/tmp"]), { code: "EACCES" });
  assert.throws(() => spawn(["true"], { fds: [[100_000, 5]] }), { code: "EBADF" });
  assert.throws(() => spawn(["true", "a\0b"]), TypeError);
  assert.deepEqual(newlyOpen(before), []);
});

Deno.test("`findProgram()` looks names up in PATH, and leaves paths alone", () => {
  assert.match(findProgram("sh"), /^\/.*\/sh$/);
  assert.equal(findProgram("./sh"), "./sh");
  assert.equal(findProgram("no-such-program-anywhere"), "no-such-program-anywhere");
});

Deno.test("`openPidfd()` becomes readable when the process ends", () => {
  const [input, output] = makePipe();
  using child = spawn(["sh", "-c", "read line"], { fds: [[input.fd, 0]] });
  input.close();
  using pidfd = openPidfd(child.pid);
  assert.equal(pollFd(pidfd.fd, POLLIN, 0), 0);
  output.close();
  assert.equal(pollFd(pidfd.fd, POLLIN, -1), POLLIN);
  assert.equal(hasEnded(pidfd.fd), true);
  child.wait();
  assert.throws(() => openPidfd(child.pid), { code: "ESRCH" });
});

/** Starts a deno process that replaces itself by a command. */
function runExec(argv: string[], fds: SpawnOptions["fds"] = []) {
  const program = new URL("exec_program.ts", import.meta.url).pathname;
  return run([Deno.execPath(), "run", "-A", "--no-lock", program, ...argv], { fds });
}

Deno.test("`exec()` replaces a process with all its threads, which keeps its id", () => {
  const { text, pid, status } = runExec(["sh", "-c", "echo $$ $GREETING [$HOME]; exit 7"]);
  assert.equal(text, `${pid} hello []\n`);
  assert.deepEqual(status, { code: 7 });
});

Deno.test("`exec()` works from a process that was itself execed, descriptors and all", () => {
  using file = openFile("/dev/null", O.RDONLY);
  const program = new URL("exec_program.ts", import.meta.url).pathname;
  const again = [Deno.execPath(), "run", "-A", "--no-lock", program];
  const command = "echo $$; readlink /proc/self/fd/50";
  const { text, pid } = runExec([...again, ...again, "sh", "-c", command], [[file.fd, 50]]);
  assert.equal(text, `${pid}\n/dev/null\n`);
});

Deno.test("`exec()` throws and leaves the process as it was when there is no such program", () => {
  const { text, pid, status } = runExec(["/nonexistent"]);
  assert.equal(text, `${pid} execve /nonexistent: No such file or directory\n`);
  assert.deepEqual(status, { code: 0 });
});

Deno.test("`kickThread()` interrupts a Worker that is blocked in a read", async () => {
  installKick();
  installKick();
  const [input, output] = makePipe();
  const words = new SharedArrayBuffer(8);
  const shared = new Int32Array(words);
  const worker = new Worker(new URL("blocked_worker.ts", import.meta.url), { type: "module" });
  worker.postMessage({ fd: input.fd, words });
  while (Atomics.load(shared, 0) === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  const tid = Atomics.load(shared, 0);
  assert.notEqual(tid, threadId());
  assert.equal(Deno.readTextFileSync(`/proc/self/task/${tid}/comm`), "a name that is \n");
  // A kick that comes before the read is lost, so it is repeated, as that of a vCPU is.
  while (Atomics.load(shared, 1) === 0) {
    kickThread(tid);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assert.equal(Atomics.load(shared, 1), 1);
  worker.terminate();
  input.close();
  output.close();
});

Deno.test("`kickThread()` does no harm to a thread that computes, nor to one that has ended", () => {
  installKick();
  let sum = 0;
  for (let i = 0; i < 1000; i++) {
    kickThread(threadId());
    sum += i;
  }
  assert.equal(sum, 499_500);
  kickThread(4_000_000);
});

Deno.test("`nameThread()` names the calling thread", () => {
  const path = `/proc/self/task/${threadId()}/comm`;
  const before = Deno.readTextFileSync(path).trim();
  nameThread("denovo test");
  assert.equal(Deno.readTextFileSync(path), "denovo test\n");
  nameThread(before);
});

Deno.test("`ChildProcess` closes its pidfd at the end of its scope", () => {
  let pidfd: OwnedFd;
  {
    using child = spawn(["true"]);
    ({ pidfd } = child);
    child.wait();
  }
  assert.equal(pidfd.closed, true);
});
