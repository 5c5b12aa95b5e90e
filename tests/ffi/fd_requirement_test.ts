import assert from "node:assert/strict";
import { makePipe, O, openFile, type OwnedFd } from "../../ffi/fd.ts";
import { type FdRequirement, whyUnfit } from "../../ffi/fd_requirement.ts";
import { addSeals, makeMemfd, Seal } from "../../ffi/memory.ts";
import { listenUnix, socketPair } from "../../ffi/socket.ts";

Deno.test("`whyUnfit()` names the first thing that a descriptor is not", async () => {
  const folder = await Deno.makeTempDir();
  using opened = new DisposableStack();
  const own = (fd: OwnedFd) => opened.use(fd).fd;
  const memfd = (size: number, seals: number, sealing = true) => {
    const fd = own(makeMemfd("fd", size, { sealing }));
    if (seals !== 0) addSeals(fd, seals);
    return fd;
  };
  const [reader, writer] = makePipe().map(own);
  const [socket] = socketPair("stream").map(own);
  const listener = own(listenUnix(`${folder}/socket`));
  const file = own(openFile(`${folder}/file`, O.RDWR | O.CREAT));
  const shrinkable = "can shrink: it lacks the seal F_SEAL_SHRINK";
  const cases: [fd: number, must: FdRequirement, reason: string | undefined][] = [
    [reader, {}, undefined],
    [reader, { kind: "fifo" }, undefined],
    [reader, { kind: "file", bytes: 9 }, "is a fifo, expected a file"],
    [own(openFile("/dev/null", O.RDWR)), { kind: "file" }, "is a character, expected a file"],
    [own(openFile("/", O.RDONLY)), { kind: "file" }, "is a directory, expected a file"],
    [memfd(4096, 0), { bytes: 4096 }, undefined],
    [memfd(4095, 0), { bytes: 4096 }, "has 4095 bytes, expected 4096"],
    [memfd(1, Seal.SHRINK), { sealed: true }, undefined],
    [memfd(1, Seal.GROW | Seal.SEAL), { sealed: true }, shrinkable],
    [file, { sealed: true }, shrinkable],
    [memfd(1, 0), { sealed: "if possible" }, shrinkable],
    [memfd(1, Seal.GROW), { sealed: "if possible" }, shrinkable],
    [memfd(1, Seal.SHRINK), { sealed: "if possible" }, undefined],
    [memfd(1, 0, false), { sealed: "if possible" }, undefined],
    [file, { sealed: "if possible" }, undefined],
    [writer, { writable: true }, undefined],
    [reader, { writable: true }, "cannot be written"],
    [memfd(1, Seal.WRITE), { writable: true }, "cannot be written"],
    [socket, { kind: "socket", listening: false, writable: true }, undefined],
    [socket, { listening: true }, "does not listen"],
    [reader, { listening: true }, "does not listen"],
    [listener, { listening: true }, undefined],
    [listener, { listening: false }, "listens, expected a connection"],
  ];
  for (const [fd, must, reason] of cases) {
    assert.equal(whyUnfit(fd, must), reason, JSON.stringify(must));
  }
  assert.throws(() => whyUnfit(9999, { kind: "file" }), { code: "EBADF" });
  await Deno.remove(folder, { recursive: true });
});
