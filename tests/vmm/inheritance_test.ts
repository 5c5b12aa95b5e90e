import assert from "node:assert/strict";
import { isOpen, makePipe } from "../../ffi/fd.ts";
import { Inheritance } from "../../vmm/inheritance.ts";

/** One of two descriptors and two values; the descriptors' numbers. */
function inherited() {
  const inheritance = new Inheritance(false);
  const [reader, writer] = makePipe();
  inheritance.addFd("disk/data", "d", reader);
  inheritance.addFd("disk/log", "e", writer);
  inheritance.addValue("disk", "d", Uint8Array.of(1));
  inheritance.addValue("other", "", Uint8Array.of(2));
  return { inheritance, reader, writer };
}

Deno.test("an inheritance gives each thing to the first who takes it", () => {
  const { inheritance, reader } = inherited();
  using _rest = inheritance;
  assert.deepEqual(inheritance.idsOf("disk/data"), ["d"]);
  assert.equal(inheritance.takeFd("disk/data", "d", { kind: "fifo" }), reader);
  assert.equal(inheritance.takeFd("disk/data", "d", {}), undefined);
  assert.equal(inheritance.takeFd("disk/log", "d", {}), undefined);
  assert.deepEqual(inheritance.takeValue("disk", "d"), Uint8Array.of(1));
  assert.equal(inheritance.takeValue("disk", "d"), undefined);
  assert.equal(inheritance.takeValue("disk"), undefined);
  assert.deepEqual(inheritance.takeValue("other"), Uint8Array.of(2));
  assert.deepEqual(inheritance.fds.map(({ name }) => name), ["disk/log"]);
  assert.deepEqual(inheritance.values, []);
  reader.close();
});

Deno.test("an inheritance gives all descriptors of an id by the rest of their names", () => {
  const { inheritance, reader, writer } = inherited();
  const spare = makePipe();
  inheritance.addFd("disk/lock", "d", spare[0]);
  inheritance.addFd("tap/data", "d", spare[1]);
  assert.deepEqual(
    [...inheritance.takeFds("disk/", "d")],
    [["data", reader], ["lock", spare[0]]],
  );
  assert.deepEqual(inheritance.takeFds("disk/", "d"), new Map());
  for (const fd of [reader, spare[0]]) fd.close();
  inheritance[Symbol.dispose]();
  assert.ok(writer.closed && spare[1].closed);
});

Deno.test("an inheritance keeps what is not what it must be, and says so", () => {
  const { inheritance, reader } = inherited();
  assert.throws(() => inheritance.takeFd("disk/data", "d", { kind: "file" }), {
    name: "Error",
    message: "File descriptor 'disk/data' d is a fifo, expected a file",
  });
  assert.ok(isOpen(reader.fd));
  inheritance[Symbol.dispose]();
  assert.ok(reader.closed);
});

Deno.test("an inheritance closes what is optional and nobody has taken", () => {
  const inheritance = new Inheritance(false);
  const [reader, writer] = makePipe();
  inheritance.addFd("lock", "", reader, true);
  inheritance.addFd("disk", "", writer);
  assert.deepEqual(inheritance.fds, [
    { name: "lock", id: "", fd: reader.fd, optional: true },
    { name: "disk", id: "", fd: writer.fd },
  ]);
  assert.throws(() => inheritance.checkEmpty(), { message: "Unknown file descriptor 'disk'" });
  inheritance.takeFd("disk", "", {})!.close();
  inheritance.checkEmpty();
  assert.ok(reader.closed);
  assert.deepEqual(inheritance.fds, []);
});

Deno.test("an inheritance says what nobody has taken", () => {
  const { inheritance } = inherited();
  using _rest = inheritance;
  assert.throws(() => inheritance.checkEmpty(), {
    message: "Unknown file descriptor 'disk/data' d",
  });
  for (const id of ["d", "e"]) {
    for (const fd of inheritance.takeFds("disk/", id).values()) fd.close();
  }
  assert.throws(() => inheritance.checkEmpty(), {
    message: "Unknown value 'disk' d among the file descriptors",
  });
  inheritance.takeValue("disk", "d");
  inheritance.takeValue("other");
  inheritance.checkEmpty();
  inheritance.addValue("a\nb", "", new Uint8Array());
  assert.throws(() => inheritance.checkEmpty(), {
    message: "Unknown value 'a\\nb' among the file descriptors",
  });
});
