import assert from "node:assert/strict";
import { check, describeErrno, Errno, errno, OsError, retry } from "../../ffi/errno.ts";
import { libc } from "../../ffi/libc.ts";
import { checkErrnos } from "./errno_testing.ts";

Deno.test("`OsError` names call, subject and reason", () => {
  const error = new OsError("open", Errno.ENOENT, "'/x'");
  assert.equal(error.message, "open '/x': No such file or directory");
  assert.equal(error.name, "OsError");
  assert.equal(error.syscall, "open");
  assert.equal(error.errno, 2);
  assert.equal(error.code, "ENOENT");
  assert.equal(error.reason, "No such file or directory");
  assert.equal(new OsError("KVM_RUN", Errno.EFAULT).message, "KVM_RUN: Bad address");
});

Deno.test("`OsError` bears a number that is no errno", () => {
  const error = new OsError("call", 99999);
  assert.equal(error.code, "E99999");
  assert.match(error.message, /99999/);
});

Deno.test("`Errno` has the kernel's numbers", () => {
  for (const [name, number] of Object.entries(Errno)) {
    assert.equal(new OsError("call", number).code, name);
    assert.notEqual(describeErrno(number), "");
  }
});

Deno.test("`check()` passes results on and throws for -1 alone", () => {
  assert.equal(check(0, "call"), 0);
  assert.equal(check(-2, "call"), -2);
  const result = libc.close(-1);
  assert.throws(() => check(result, "close", "-1"), { message: "close -1: Bad file descriptor" });
});

Deno.test("`retry()` calls again after EINTR only", () => {
  let calls = 0;
  assert.equal(retry(() => (calls++, libc.close(-1))), -1);
  assert.equal(calls, 1);
  assert.equal(errno(), Errno.EBADF);
  assert.equal(retry(() => 5), 5);
});

Deno.test("errno is the failed call's when garbage is collected all the time", async () => {
  const rounds = 30_000;
  const worker = new Worker(new URL("errno_worker.ts", import.meta.url), { type: "module" });
  const elsewhere = new Promise<string[]>((resolve) => {
    worker.onmessage = ({ data }: MessageEvent<string[]>) => resolve(data);
  });
  worker.postMessage(rounds);
  assert.deepEqual(checkErrnos(rounds), []);
  assert.deepEqual(await elsewhere, []);
  worker.terminate();
});
