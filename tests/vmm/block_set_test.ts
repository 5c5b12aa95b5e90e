import assert from "node:assert/strict";
import { relative } from "node:path";
import type { BlockNodeConfig, DriveConfig, FileNodeConfig } from "../../devices/block/config.ts";
import { Disk } from "../../devices/block/disk.ts";
import { duplicate, fileStatus, O, openFile } from "../../ffi/fd.ts";
import { lockFile } from "../../ffi/file_lock.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { mapAnonymous } from "../../ffi/memory.ts";
import { BlockSet } from "../../vmm/block_set.ts";
import { Inheritance } from "../../vmm/inheritance.ts";
import { has } from "../accel/software/guests/record.ts";

const common = {
  readOnly: false,
  autoReadOnly: false,
  cache: { direct: false, noFlush: false },
  discard: "ignore",
  detectZeroes: "off",
} as const;
const device = { device: "disk0", shareWrites: false };

function file(filename: string, changes: Partial<FileNodeConfig> = {}): FileNodeConfig {
  return {
    ...common,
    ...{ driver: "file", nodeName: "file", filename, locking: "auto", aio: "threads" },
    ...changes,
  };
}

function raw(nodeName: string, of = "file"): BlockNodeConfig {
  return { ...common, driver: "raw", nodeName, file: of, offset: 0 };
}

/** Runs `use` with the path of an image of 1 MiB, and a way to make sets that are closed afterwards. */
async function withImage(
  use: (path: string, makeSet: () => BlockSet) => void | Promise<void>,
): Promise<void> {
  const path = Deno.makeTempFileSync();
  Deno.truncateSync(path, 1 << 20);
  const sets: BlockSet[] = [];
  try {
    await use(path, () => {
      const set = new BlockSet();
      sets.push(set);
      return set;
    });
  } finally {
    for (const set of sets) set.close();
    Deno.removeSync(path);
  }
}

/** The bytes of a file that anybody has locked, `READ` or `WRITE` (proc(5), /proc/locks). */
function locksOn(path: string): string[] {
  using opened = openFile(path, O.PATH);
  const { ino } = fileStatus(opened.fd);
  const read = () =>
    Deno.readTextFileSync("/proc/locks").trim().split("\n")
      .map((line) => line.split(/\s+/))
      .filter((words) => words.some((word) => word.endsWith(`:${ino}`)))
      .map((words) => `${words[1]} ${words[3]} ${words.at(-2)}-${words.at(-1)}`)
      .sort();
  // It is read in pieces: while others lock and unlock files between two of them, a line may come twice
  // or not at all.
  for (let before = read();;) {
    const now = read();
    if (now.join() === before.join()) return now;
    before = now;
  }
}

/** What a set hands over, in an inheritance of duplicates, which share the locks. */
function inheritedFrom(set: BlockSet, shared = true): Inheritance {
  const inheritance = new Inheritance(shared);
  const { fds, values } = set.handOver();
  for (const { name, id, fd } of fds) inheritance.addFd(name, id, duplicate(fd));
  for (const { name, id, data } of values) {
    inheritance.addValue(name, id, new Uint8Array(data));
  }
  return inheritance;
}

const refused = (lock: string, path: string) => ({
  message: `Failed to get ${lock} lock\nIs another process using the image [${path}]?`,
});

Deno.test("a disk's locks are on the bytes on which QEMU's are", async () => {
  const drive: DriveConfig = { id: "d", nodeName: "file", writeCache: true };
  const READ_WRITE = ["OFDLCK READ 100-101", "OFDLCK READ 201-201"];
  const cases: [
    what: string,
    node: Partial<FileNodeConfig>,
    drives: DriveConfig[],
    attach: string | undefined,
    share: boolean,
    locks: string[],
  ][] = [
    ["a node that nobody uses", {}, [], undefined, false, []],
    ["a drive that nobody uses", {}, [drive], undefined, false, ["OFDLCK READ 100-100"]],
    ["a disk", {}, [], "file", false, READ_WRITE],
    ["a drive as a disk", {}, [drive], "d", false, READ_WRITE],
    ["a disk to share", {}, [], "file", true, ["OFDLCK READ 100-101"]],
    ["a disk to read", { readOnly: true }, [], "file", false, [
      "OFDLCK READ 100-100",
      "OFDLCK READ 201-201",
    ]],
    ["a disk without locks", { locking: "off" }, [], "file", false, []],
  ];
  for (const [what, node, drives, attach, shareWrites, locks] of cases) {
    await withImage((path, makeSet) => {
      const set = makeSet();
      set.open([file(path, node)], drives);
      if (attach !== undefined) set.attach(attach, { device: "x", shareWrites });
      assert.deepEqual(locksOn(path), locks, what);
      set.close();
      assert.deepEqual(locksOn(path), [], what);
    });
  }
});

Deno.test("an image is one VMM's, unless both share it", async () => {
  await withImage((path, makeSet) => {
    const first = makeSet();
    first.open([file(path)], []);
    first.attach("file", device);
    const second = makeSet();
    second.open([file(path)], []);
    assert.throws(() => second.attach("file", device), refused('"write"', path));
    assert.throws(
      () => second.attach("file", { ...device, shareWrites: true }),
      refused('"write"', path),
    );
    const reader = makeSet();
    reader.open([file(path, { readOnly: true })], []);
    assert.throws(() => reader.attach("file", device), refused('shared "write"', path));
    assert.deepEqual(locksOn(path), ["OFDLCK READ 100-101", "OFDLCK READ 201-201"]);
    first.close();
    second.attach("file", { ...device, shareWrites: true });
    const third = makeSet();
    third.open([file(path)], []);
    third.attach("file", { ...device, shareWrites: true });
    assert.throws(() => reader.attach("file", device), refused('shared "write"', path));
  });
});

Deno.test("two devices of one VMM do not get the same image either", async () => {
  await withImage((path, makeSet) => {
    const set = makeSet();
    set.open([file(path), raw("a"), raw("b")], [{ id: "d", writeCache: true }]);
    set.attach("a", device);
    assert.throws(() => set.attach("a", device), {
      message: "Drive 'a' is already in use by another device",
    });
    assert.throws(() => set.attach("b", device), {
      message: "Permission conflict on node 'file': permissions 'write' are both required by" +
        " block device 'b' and unshared by block device 'a'",
    });
    assert.throws(() => set.attach("d", device), {
      message: "Device needs media, but drive is empty",
    });
    assert.throws(() => set.attach("x", device), { message: "Cannot find drive 'x'" });
  });
});

Deno.test("a successor has an image's lock with its predecessor, and nobody gets it between them", async () => {
  await withImage((path, makeSet) => {
    const third = makeSet();
    third.open([file(path)], []);
    const tryIt = () =>
      assert.throws(
        () => third.attach("file", { device: "x", shareWrites: true }),
        /^Error: Failed/,
      );
    let vmm = makeSet();
    vmm.open([file(path), raw("disk")], []);
    vmm.attach("disk", device);
    for (let i = 0; i < 5; i++) {
      const next = makeSet();
      using inheritance = inheritedFrom(vmm);
      tryIt();
      next.open([file(path), raw("disk")], [], inheritance);
      inheritance.checkEmpty();
      next.attach("disk", device);
      tryIt();
      vmm.close();
      tryIt();
      vmm = next;
    }
    assert.deepEqual(locksOn(path), ["OFDLCK READ 100-101", "OFDLCK READ 201-201"]);
    vmm.close();
    third.attach("file", device);
  });
});

Deno.test("who tries to get an image keeps no successor from having it", async () => {
  await withImage((path, makeSet) => {
    const vmm = makeSet();
    vmm.open([file(path)], []);
    vmm.attach("file", device);
    using inheritance = inheritedFrom(vmm);
    // The first half of an attempt: bytes are locked before it is seen that others have theirs.
    using attempt = openFile(path, O.RDWR);
    for (const start of [100, 101, 201]) lockFile(attempt.fd, "shared", { start, length: 1 });
    const next = makeSet();
    next.open([file(path)], [], inheritance);
    next.attach("file", device);
  });
});

Deno.test("a successor that fails, or wants less, takes no lock from its predecessor", async () => {
  await withImage((path, makeSet) => {
    const vmm = makeSet();
    vmm.open([file(path)], []);
    vmm.attach("file", { device: "x", shareWrites: true });
    const other = makeSet();
    other.open([file(path)], []);
    other.attach("file", { device: "x", shareWrites: true });
    other.close();
    const locks = ["OFDLCK READ 100-101"];
    assert.deepEqual(locksOn(path), locks);
    const writer = makeSet();
    writer.open([file(path)], []);
    writer.attach("file", { device: "x", shareWrites: true });
    {
      using inheritance = inheritedFrom(vmm);
      const next = makeSet();
      next.open([file(path)], [], inheritance);
      // Somebody else writes: it cannot have the image for itself.
      assert.throws(() => next.attach("file", device), refused('shared "write"', path));
      next.close();
    }
    writer.close();
    assert.deepEqual(locksOn(path), locks);
    {
      using inheritance = inheritedFrom(vmm);
      const next = makeSet();
      next.open([file(path)], [], inheritance);
      next.close();
    }
    assert.deepEqual(locksOn(path), locks);
  });
});

Deno.test("a successor that was passed nothing has the images when the guest is there", async () => {
  await withImage((path, makeSet) => {
    const old = makeSet();
    old.open([file(path)], []);
    old.attach("file", device);
    const next = makeSet();
    next.open([file(path)], [], undefined, true);
    next.attach("file", device);
    assert.throws(() => next.claim(), refused('"write"', path));
    old.letGo("all");
    assert.deepEqual(locksOn(path), []);
    next.claim();
    next.arrive()();
    assert.deepEqual(locksOn(path), ["OFDLCK READ 100-101", "OFDLCK READ 201-201"]);
    // The old one cannot go on any more, and takes nothing while it tries.
    assert.equal(old.whyNotHeld(), lacks(path));
    next.close();
    assert.deepEqual(locksOn(path), []);
    assert.equal(old.whyNotHeld(), undefined);
    assert.deepEqual(locksOn(path), ["OFDLCK READ 100-101", "OFDLCK READ 201-201"]);
  });
});

/** What a VMM says that cannot have an image again. */
function lacks(path: string): string {
  return `Another process has the disk image '${path}': end it, then 'cont'`;
}

Deno.test("cpr=off: a successor opens the file itself, and its locks go to and fro", async () => {
  await withImage((path, makeSet) => {
    const kept = Deno.makeTempFileSync();
    Deno.truncateSync(kept, 1 << 20);
    const configs = [file(path, { cpr: false }), file(kept, { nodeName: "kept" })];
    const ours = ["OFDLCK READ 100-101", "OFDLCK READ 201-201"];
    const old = makeSet();
    old.open(configs, []);
    assert.ok(old.leavesFiles);
    for (const name of ["file", "kept"]) old.attach(name, { ...device, device: name });
    const { fds, values } = old.handOver();
    assert.deepEqual([...fds, ...values].map(({ id }) => id), ["kept", "kept"]);
    using inheritance = inheritedFrom(old);
    const next = makeSet();
    next.open(configs, [], inheritance, true);
    for (const name of ["file", "kept"]) next.attach(name, { ...device, device: name });
    assert.throws(() => next.claim(), refused('"write"', path));
    old.letGo("not kept");
    assert.deepEqual(locksOn(path), []);
    assert.deepEqual(locksOn(kept), ours);
    next.claim();
    next.arrive()();
    assert.deepEqual(locksOn(path), ours);
    assert.equal(old.whyNotHeld(), lacks(path));
    // It may lose the guest again, and get it by another try.
    next.unclaim();
    assert.equal(old.whyNotHeld(), undefined);
    assert.ok(next.waits);
    assert.throws(() => next.claim(), refused('"write"', path));
    next.unclaim();
    assert.deepEqual(locksOn(path), ours);
    old.letGo("not kept");
    next.claim();
    assert.equal(old.whyNotHeld(), lacks(path));
    next.close();
    assert.equal(old.whyNotHeld(), undefined);
    assert.deepEqual(locksOn(path), ours);
    assert.deepEqual(locksOn(kept), ours);
    Deno.removeSync(kept);
  });
});

Deno.test("cpr=on may follow on cpr=off, but not the other way round", async () => {
  await withImage((path, makeSet) => {
    const off = makeSet();
    off.open([file(path, { cpr: false })], []);
    {
      using inheritance = inheritedFrom(off);
      const next = makeSet();
      next.open([file(path)], [], inheritance, true);
      off.letGo("not kept");
      next.claim();
      next.arrive()();
      assert.equal(next.leavesFiles, false);
      using further = inheritedFrom(next);
      assert.throws(() => makeSet().open([file(path, { cpr: false })], [], further, true), {
        message:
          "Node 'file' has cpr=on in the old VMM: that cannot become off while the guest runs",
      });
    }
  });
});

Deno.test("what a successor inherits must be what it is told that a node is", async () => {
  await withImage(async (path, makeSet) => {
    const vmm = makeSet();
    vmm.open([file(path)], []);
    vmm.attach("file", device);
    const other = await Deno.makeTempFile();
    const fails = (config: FileNodeConfig, message: string, change?: (i: Inheritance) => void) => {
      using inheritance = inheritedFrom(vmm);
      change?.(inheritance);
      assert.throws(() => makeSet().open([config], [], inheritance), { message });
    };
    const UNKNOWN = "The guest has a disk 'file' that this VMM has not: give it the old VMM's" +
      " -drive or -blockdev as well";
    fails(
      file(other),
      `Node 'file' is another file than '${other}' in the old VMM; the disk of the guest is` +
        ` '${path}': name that`,
    );
    fails(
      file(path, { cache: { direct: true, noFlush: false } }),
      "Node 'file' has cache.direct=off in the old VMM: that cannot change while the guest runs",
    );
    fails(
      file(path, { readOnly: true }),
      "Node 'file' has read-only=off in the old VMM: that cannot change while the guest runs",
    );
    fails(file(path, { nodeName: "new" }), UNKNOWN);
    fails(
      file(path, { driver: "host_device" }),
      "File descriptor 'block' file is a file, expected a block",
    );
    const bytes = (text: string) => (inheritance: Inheritance) => {
      inheritance.takeValue("block", "file");
      inheritance.addValue("block", "file", new TextEncoder().encode(text));
    };
    const senseless = "Permissions of block node 'file' make no sense";
    for (const text of ["", "null", "{}", '{"used":-1,"unshared":0}', '{"used":16,"unshared":0}']) {
      fails(file(path), senseless, bytes(text));
    }
    fails(file(path), senseless, bytes('{"used":0,"unshared":0,"filename":1}'));
    await Deno.remove(other);
  });
});

Deno.test("a successor's name for a disk leads to it, or is the one that the old VMM had", async () => {
  await withImage(async (path, makeSet) => {
    const vmm = makeSet();
    vmm.open([file(path)], []);
    const moved = `${path}.moved`;
    const opens = (filename: string, change?: (inheritance: Inheritance) => void) => {
      using inheritance = inheritedFrom(vmm);
      change?.(inheritance);
      makeSet().open([file(filename)], [], inheritance);
    };
    const refused = (name: string, is: string) => ({
      message: `Could not open '${name}': No such file or directory; the disk of the guest, node` +
        ` 'file', is '${is}': name that`,
    });
    opens(relative(Deno.cwd(), path));
    // A typo would be another disk, or none, at the next start.
    const typo = `${path}.typo`;
    assert.throws(() => opens(typo), refused(typo, path));
    // An older version does not say what it called the file.
    const unnamed = (inheritance: Inheritance) => {
      inheritance.takeValue("block", "file");
      const text = '{"used":0,"unshared":0}';
      inheritance.addValue("block", "file", new TextEncoder().encode(text));
    };
    opens(path, unnamed);
    await Deno.rename(path, moved);
    opens(moved);
    // The same options as ever: what has become of the file is not their mistake.
    opens(path);
    assert.throws(() => opens(path, unnamed), refused(path, moved));
    assert.throws(() => opens(typo), refused(typo, moved));
    await Deno.remove(moved);
    opens(path);
    await Deno.writeFile(path, new Uint8Array(1 << 20));
  });
});

Deno.test("nodes are added, resized and removed, or it is said why not", async () => {
  await withImage((path, makeSet) => {
    const set = makeSet();
    set.open([file(path), raw("disk")], [{ id: "d", nodeName: "disk", writeCache: true }]);
    assert.throws(() => set.add([raw("disk")]), {
      message: "Duplicate nodes with node-name='disk'",
    });
    assert.throws(() => set.add([raw("d")]), {
      message: "node-name=d is conflicting with a device id",
    });
    assert.throws(() => set.add([raw("x", "nothing")]), {
      message: "Cannot find device='nothing' nor node-name='nothing'",
    });
    set.add([file(path, { nodeName: "#top.file" }), raw("top", "#top.file")]);
    assert.deepEqual(set.nodes.map(({ config }) => config.nodeName), [
      ...["top", "#top.file", "disk", "file"],
    ]);
    // One of several fails: none is there.
    assert.throws(() => set.add([file(path, { nodeName: "y" }), raw("z", "nothing")]));
    assert.equal(set.nodes.length, 4);
    for (
      const [name, message] of [
        ["nothing", "Failed to find node with node-name='nothing'"],
        ["disk", "Node disk is in use"],
        ["file", "Block device file is in use"],
        ["#top.file", "Node #top.file is not owned by the monitor"],
      ]
    ) {
      assert.throws(() => set.remove(name), { message });
    }
    set.remove("top");
    assert.deepEqual(set.nodes.map(({ config }) => config.nodeName), ["disk", "file"]);

    const { disk: description } = set.attach("d", device);
    const disk = new Disk(description);
    set.resize({ device: "d" }, 2 << 20);
    assert.equal(disk.sizeBytes, 2 << 20);
    assert.equal(Deno.statSync(path).size, 2 << 20);
    set.resize({ nodeName: "file" }, 1 << 19);
    assert.equal(disk.sizeBytes, 1 << 19);
    assert.throws(() => set.resize({ nodeName: "nothing" }, 0), {
      message: "Cannot find device='' nor node-name='nothing'",
    });
    using memory = mapAnonymous(4096);
    const vector = new IoVector();
    vector.push(memory.address, 512);
    assert.ok(disk.write(vector, 1 << 19) < 0);
  });
});

Deno.test({
  name: "QEMU's tools and Denovo keep away from each other's images",
  ignore: !await has("qemu-io"),
  async fn() {
    await withImage(async (path, makeSet) => {
      const qemuIo = (...args: string[]) =>
        new Deno.Command("qemu-io", {
          args: ["-f", "raw", path, ...args],
          ...{ stdin: "piped", stdout: "piped", stderr: "piped" },
        });
      const set = makeSet();
      set.open([file(path)], []);
      set.attach("file", device);
      const { stderr } = await qemuIo("-c", "quit").spawn().output().catch(() => {
        throw new Error("qemu-io did not run");
      });
      assert.match(new TextDecoder().decode(stderr), /Failed to get "write" lock/);
      set.close();

      await using qemu = qemuIo().spawn();
      // It reads commands, with the image open, until there are no more; the prompt says that it does.
      const said = qemu.stdout.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; !text.includes("qemu-io>");) {
        const { value, done } = await said.read();
        assert.ok(!done, `qemu-io ended: ${text}`);
        text += value;
      }
      const next = makeSet();
      next.open([file(path)], []);
      assert.throws(
        () => next.attach("file", device),
        /^Error: Failed to get (shared )?"write" lock/,
      );
      await qemu.stdin.close();
      await Promise.all([said.cancel(), qemu.stderr.cancel(), qemu.status]);
      next.attach("file", device);
    });
  },
});
