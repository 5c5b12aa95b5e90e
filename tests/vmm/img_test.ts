/** `denovo img` beside Debian's qemu-img: the same words, the same images. */
import assert from "node:assert/strict";
import { ImgImage } from "../../vmm/img/image.ts";
import { Model, OpenImage, qemuImg, qemuImgOk, withFolder } from "../devices/qcow2/testing.ts";
import { img, MIB, ok, oracleTest, same, withoutDiskSize, writeRaw } from "./img_testing.ts";

oracleTest("img create makes what qemu-img makes, and says so", async (folder) => {
  const path = `${folder}/x`;
  const cases = [
    ["-f", "qcow2", path, "1M"],
    ["-f", "qcow2", "-o", "cluster_size=4k,compat=0.10", path, "10G"],
    ["-f", "qcow2", "-o", "cluster_size=512,refcount_bits=64", path, "100M"],
    ["-f", "qcow2", "-o", "lazy_refcounts=on,compression_type=zstd", path, "1T"],
    ["-f", "qcow2", "-o", "size=3M", path],
    ["-f", "raw", path, "1000"],
  ];
  for (const args of cases) {
    await same("create", ...args);
    Deno.removeSync(path);
    ok("create", ...args);
    await same("info", path);
    const format = args[1];
    if (format === "qcow2") await same("check", path);
    Deno.removeSync(path);
  }
});

oracleTest(
  "img create -o preallocation= leaves what qemu-img leaves on the file system",
  async (folder) => {
    const path = `${folder}/x`;
    const cases: [format: string, options: string][] = [
      ...["off", "metadata", "falloc", "full"].map((
        mode,
      ): [string, string] => ["qcow2", `preallocation=${mode}`]),
      ["qcow2", "preallocation=metadata,cluster_size=512,refcount_bits=1"],
      ["qcow2", "preallocation=full,compat=0.10"],
      ...["off", "falloc", "full"].map((
        mode,
      ): [string, string] => ["raw", `preallocation=${mode}`]),
    ];
    for (const [format, options] of cases) {
      const args = ["-f", format, "-o", options, path, "10M"];
      const left = () => {
        const { size, blocks } = Deno.statSync(path);
        return { size, isThere: blocks! * 512 >= 10 * MIB };
      };
      const theirs = await qemuImgOk("create", ...args);
      const expected = left();
      Deno.removeSync(path);
      assert.equal(ok("create", ...args), theirs);
      assert.equal(left().isThere, expected.isThere, options);
      if (format === "qcow2") await same("check", path);
      if (!/512|off/.test(options)) assert.equal(left().size, expected.size, options);
      {
        using image = new ImgImage(path, { format });
        for (const { bytes } of image.pieces(0, image.size)) {
          assert.ok(
            bytes.every((byte) => byte === 0),
          );
        }
      }
      Deno.removeSync(path);
    }
  },
);

oracleTest("img refuses in qemu-img's words", async (folder) => {
  const path = `${folder}/x`;
  for (
    const args of [
      ["create", "-f", "qcow2", path],
      ["create", "-f", "qcow2", "-o", "foo=3", path, "1M"],
      ["create", "-f", "qcow2", "-o", "cluster_size=3k", path, "1M"],
      ["create", "-f", "qcow2", "-o", "refcount_bits=3", path, "1M"],
      ["create", "-f", "qcow2", "-o", "preallocation=foo", path, "1M"],
      [
        "create",
        "-f",
        "qcow2",
        "-u",
        "-b",
        "b",
        "-F",
        "raw",
        "-o",
        "preallocation=full",
        path,
        "1M",
      ],
      ["info", path],
      // Theirs leaves a file.
      ["create", "-f", "raw", "-o", "preallocation=metadata", path, "1M"],
      ["create", "-f", "raw", "-o", "preallocation=foo", path, "1M"],
    ]
  ) {
    const ours = img(...args);
    const theirs = await qemuImg(...args);
    assert.equal(ours.code, 1, args.join(" "));
    assert.equal(theirs.code, 1, args.join(" "));
    // Theirs names the file before, for some.
    const reason = ours.text.trim().replace("denovo img: ", "").replace(`${path}: `, "");
    assert.ok(theirs.text.includes(reason), `${theirs.text} has not ${reason}`);
  }
});

oracleTest("img info, map, check and snapshot -l tell what qemu-img tells", async (folder) => {
  const [raw, base, path] = ["raw", "base.qcow2", "top.qcow2"].map((name) => `${folder}/${name}`);
  writeRaw(raw);
  await qemuImgOk("convert", "-f", "raw", "-O", "qcow2", raw, base);
  await qemuImgOk("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path, "5M");
  {
    using image = new OpenImage(path);
    assert.equal(image.write(MIB, new Uint8Array(MIB).fill(3)), 0);
    assert.equal(image.disk.writeZeroes(3 * MIB, MIB / 2, true), 0);
  }
  for (const file of [base, path]) {
    await same("info", file);
    await same("check", file);
    await same("map", file);
    await same("map", "--output=json", file);
  }
  await same("info", "--backing-chain", path);
  for (const args of [["info", path], ["info", "--backing-chain", path], ["check", path]]) {
    const json = [...args.slice(0, 1), "--output=json", ...args.slice(1)];
    const [ours, theirs] = [ok(...json), await qemuImgOk(...json)].map(withoutDiskSize);
    assert.deepEqual(JSON.parse(ours), JSON.parse(theirs));
  }
  await same("check", "-f", "raw", raw);
  await qemuImgOk("snapshot", "-c", "first one", base);
  await same("snapshot", "-l", base);
  await same("info", base);
});

oracleTest("img convert and compare: each finds the other's images the same", async (folder) => {
  const [raw, ours, theirs, back] = ["raw", "a", "b", "c"].map((name) => `${folder}/${name}`);
  writeRaw(raw);
  ok("convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k", raw, ours);
  await qemuImgOk("convert", "-c", "-f", "raw", "-O", "qcow2", raw, theirs);
  await same("compare", ours, theirs);
  await qemuImgOk("compare", "-f", "raw", raw, ours);
  await same("check", ours);
  ok("convert", theirs, back);
  assert.deepEqual(Deno.readFileSync(back), Deno.readFileSync(raw));
  assert.ok(Deno.statSync(ours).blocks! <= Deno.statSync(theirs).size / 512 + 9000);
  {
    using image = new OpenImage(ours);
    assert.equal(image.write(2 * MIB + 1024, new Uint8Array(512).fill(0x5a)), 0);
  }
  await same("compare", ours, theirs);
  // Over what is there, zeros as well.
  ok("convert", "-n", "-O", "qcow2", theirs, ours);
  await same("compare", ours, theirs);
  await qemuImgOk("resize", ours, "+1M");
  await same("compare", ours, theirs);
  await same("compare", "-s", ours, theirs);
});

for (
  const options of [
    "cluster_size=64k",
    "cluster_size=4k,compression_type=zstd",
    "cluster_size=512,refcount_bits=1",
  ]
) {
  oracleTest(`img convert -c writes clusters that qemu-img reads: ${options}`, async (folder) => {
    const [raw, ours, theirs, back] = ["raw", "a", "b", "c"].map((name) => `${folder}/${name}`);
    const model = writeRaw(raw);
    // Some cannot be compressed, and the last cluster is only begun.
    for (let at = MIB; at < MIB + (256 << 10); at += 65536) {
      crypto.getRandomValues(model.bytes.subarray(at, at + 65536));
    }
    model.bytes.fill(0, MIB + 5000, MIB + 70_000);
    const size = 4 * MIB - 512;
    Deno.writeFileSync(raw, model.bytes.subarray(0, size));
    const args = (
      target: string,
    ) => ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, target];
    ok(...args(ours));
    await qemuImgOk(...args(theirs));
    await same("check", ours);
    await same("compare", ours, theirs);
    await qemuImgOk("compare", "-f", "raw", "-F", "qcow2", raw, ours);
    await qemuImgOk("convert", "-O", "raw", ours, back);
    assert.deepEqual(Deno.readFileSync(back), Deno.readFileSync(raw));
    const compressed = async (path: string) =>
      JSON.parse(await qemuImgOk("check", "--output=json", path))["compressed-clusters"];
    assert.equal(await compressed(ours), await compressed(theirs));
    assert.ok(Deno.statSync(ours).size <= Deno.statSync(theirs).size * 1.1);
    // They are as good as others to who writes there, and to who writes them again.
    {
      using image = new OpenImage(ours);
      assert.equal(image.write(2 * MIB + 512, new Uint8Array(1024).fill(0x5a)), 0);
    }
    model.bytes.fill(0x5a, 2 * MIB + 512, 2 * MIB + 1536);
    Deno.writeFileSync(raw, model.bytes.subarray(0, size));
    await same("check", ours);
    await qemuImgOk("compare", "-f", "raw", "-F", "qcow2", raw, ours);
    ok("convert", "-n", "-c", "-f", "raw", "-O", "qcow2", raw, theirs);
    await same("check", theirs);
    await qemuImgOk("compare", "-f", "raw", "-F", "qcow2", raw, theirs);
  });
}

oracleTest("img convert -c refuses an image that has no compression", async (folder) => {
  const [raw, path] = [`${folder}/raw`, `${folder}/x`];
  writeRaw(raw);
  await same("convert", "-c", "-f", "raw", "-O", "raw", raw, path);
});

oracleTest("img resize and commit leave what qemu-img leaves", async (folder) => {
  const [raw, base, path] = ["raw", "base", "top"].map((name) => `${folder}/${name}`);
  const model = writeRaw(raw);
  await qemuImgOk("convert", "-f", "raw", "-O", "qcow2", raw, base);
  const created = img("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", path, "6M");
  assert.equal(created.code, 0, created.text);
  const grown = new Model(6 * MIB, 5);
  grown.bytes.set(model.bytes);
  {
    using image = new OpenImage(path);
    for (let i = 0; i < 30; i++) grown.step(image);
  }
  assert.equal(ok("commit", path), "Image committed.\n");
  Deno.writeFileSync(raw, grown.bytes);
  for (const file of [base, path]) {
    await same("check", file);
    await qemuImgOk("compare", "-f", "raw", "-F", "qcow2", raw, file);
  }
  assert.match(ok("info", path), /virtual size: 6 MiB/);
  assert.equal(ok("resize", path, "+10G"), "Image resized.\n");
  await same("info", path);
  assert.equal(img("resize", path, "1M").code, 1);
  assert.equal(ok("resize", "--shrink", path, "-9G"), "Image resized.\n");
  ok("resize", "--shrink", path, "512k");
  await same("info", path);
  await same("check", path);
  ok("resize", "-f", "raw", raw, "7M");
  assert.equal(Deno.statSync(raw).size, 7 * MIB);
});

oracleTest("img check finds and repairs what qemu-img finds", async (folder) => {
  const [raw, path, other] = ["raw", "a", "b"].map((name) => `${folder}/${name}`);
  writeRaw(raw);
  await qemuImgOk("convert", "-f", "raw", "-O", "qcow2", raw, path);
  // With room at the end for clusters that nobody uses.
  const good = new Uint8Array(64 << 16);
  good.set(Deno.readFileSync(path));
  const block = 2 << 16;
  const cases: [what: string, bytes: [at: number, value: number][], repair: string][] = [
    ["a leak", [[block + 2 * 60 + 1, 1]], "leaks"],
    ["a cluster that is not counted", [[block + 2 * 7 + 1, 0]], "all"],
    ["both, marked", [[block + 2 * 62 + 1, 3], [block + 2 * 8 + 1, 0], [79, 3]], "all"],
  ];
  for (const [what, bytes, repair] of cases) {
    const bad = good.slice();
    for (const [at, value] of bytes) bad[at] = value;
    Deno.writeFileSync(path, bad);
    Deno.writeFileSync(other, bad);
    const ours = img("check", path);
    const theirs = await qemuImg("check", path);
    assert.equal(ours.code, theirs.code, `${what}: ${ours.text} ${theirs.text}`);
    const counts = (text: string) => text.match(/^\d+ .* were found/gm);
    assert.deepEqual(counts(ours.text), counts(theirs.text), what);
    const repaired = img("check", "-r", repair, path);
    assert.equal(repaired.code, 0, `${what}: ${repaired.text}`);
    assert.match(repaired.text, /inconsistencies were found and repaired/);
    assert.equal((await qemuImg("check", path)).code, 0, what);
    await qemuImgOk("compare", "-f", "raw", "-F", "qcow2", raw, path);
    assert.equal(Deno.readFileSync(path)[79], 0, what);
  }
});

Deno.test("img without qemu-img: create, convert, compare, check", () =>
  withFolder((folder) => {
    const [raw, path, back] = ["raw", "a", "b"].map((name) => `${folder}/${name}`);
    const model = writeRaw(raw);
    ok("convert", "-f", "raw", "-O", "qcow2", raw, path);
    assert.match(ok("check", path), /^No errors were found on the image\.\n\d+\/64 = /);
    assert.equal(ok("compare", "-F", "raw", path, raw), "Images are identical.\n");
    ok("convert", "-O", "raw", path, back);
    assert.deepEqual(Deno.readFileSync(back), model.bytes);
    assert.match(ok("--help"), /usage: denovo img COMMAND/);
    assert.match(ok("create", "--help"), /usage: denovo img create \[-q\]/);
    assert.match(ok("--version"), /^denovo img version \d+\.\d+\.\d+\n$/);
    assert.equal(img().code, 1);
  }));

/** Fails unless a command is refused with a sentence. */
function refused(sentence: string, ...args: string[]): void {
  assert.deepEqual(img(...args), { code: 1, text: `denovo img: ${sentence}\n` });
}

Deno.test("img names the file that is no qcow2 image, the one behind an image as well", () =>
  withFolder((folder) => {
    const [raw, top] = [`${folder}/raw`, `${folder}/top`];
    writeRaw(raw);
    ok("create", "-q", "-f", "qcow2", "-u", "-b", raw, "-F", "qcow2", top, "1M");
    const reason = `Could not open '${raw}': Image is not in qcow2 format`;
    refused(reason, "info", "-f", "qcow2", raw);
    refused(`Could not open '${top}': ${reason}`, "commit", top);
    refused(`Could not open '${top}': ${reason}`, "map", top);
  }));

Deno.test("img says in a sentence what is wrong with its arguments, and makes nothing then", () =>
  withFolder((folder) => {
    const path = `${folder}/x`;
    const see = (name: string) => `: see 'denovo img ${name} --help'`;
    const suffixes =
      "You may use k, M, G, T, P or E suffixes for kilobytes, megabytes, gigabytes," +
      " terabytes, petabytes and exabytes";
    const bad = (text: string, what = "image size") =>
      `Invalid ${what} specified: '${text}'. ${suffixes}`;
    refused(`unrecognized option '-Z'${see("convert")}`, "convert", "-Z", path, path);
    refused(`unrecognized option '--nope'${see("info")}`, "info", "--nope", path);
    refused(`unrecognized option '--quiet'${see("create")}`, "create", "--quiet=1", path, "1M");
    refused(`missing argument for option '-f'${see("info")}`, "info", path, "-f");
    refused(bad("1Q"), "create", path, "1Q");
    refused(bad("abc"), "create", "-o", "size=abc", path);
    const cluster = ["-o", "cluster_size=abc", path, "1M"];
    refused(bad("abc", "cluster_size"), "create", "-f", "qcow2", ...cluster);
    refused(
      "Unknown file format 'qed': there are raw and qcow2",
      "create",
      "-f",
      "qed",
      path,
      "1M",
    );
    refused(
      `${path}: Backing file specified without backing format: say -F raw or -F qcow2`,
      ...["create", "-f", "qcow2", "-b", "base", path],
    );
    refused(
      "Command not found: foo: there are check, commit, compare, convert, create, info, map," +
        " resize, snapshot",
      "foo",
    );
    assert.deepEqual([...Deno.readDirSync(folder)], []);
    ok("create", "-q", path, "1M");
    refused(bad("1Q"), "resize", "-f", "raw", path, "+1Q");
    refused(
      `Could not open '${path}': Unknown driver 'qed': there are raw and qcow2`,
      ...["info", "-f", "qed", path],
    );
  }));

oracleTest("img -o help lists options in qemu-img's words, and makes nothing", async (folder) => {
  for (const format of ["raw", "qcow2"]) {
    const ours = ok("create", "-f", format, "-o", "help", `${folder}/x`, "1M").trimEnd().split(
      "\n",
    );
    const theirs = (await qemuImgOk("create", "-f", format, "-o", "help")).split("\n");
    assert.deepEqual(ours, theirs.filter((line) => ours.includes(line)));
    assert.equal(ours[0], `Supported ${format} options:`);
    assert.ok(ours.some((line) => line.startsWith("  size=<size> ")));
    assert.equal(ok("convert", "-O", format, "-o", "?").trimEnd(), ours.join("\n"));
  }
  assert.deepEqual([...Deno.readDirSync(folder)], []);
});

Deno.test("img convert -p shows how far it is", () =>
  withFolder(async (folder) => {
    const [raw, path] = [`${folder}/raw`, `${folder}/x`];
    writeRaw(raw);
    const { code, stdout } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "-A", "--no-check", "mod.ts", "img", "convert", "-p"],
        ...["-f", "raw", "-O", "qcow2", raw, path],
      ],
      stderr: "inherit",
    }).output();
    assert.equal(code, 0);
    const shown = new TextDecoder().decode(stdout).split("\r");
    assert.equal(shown.pop(), "");
    assert.ok(shown.every((text) => /^ {4}\(\d+\.\d\d\/100%\)$/.test(text)), shown.join());
    const parts = shown.map((text) => parseFloat(text.slice(5)));
    assert.deepEqual(parts, parts.toSorted((a, b) => a - b));
    assert.deepEqual([parts[0], parts.at(-1)], [0, 100]);
    assert.ok(parts.some((part) => part > 0 && part < 100));
    assert.equal(ok("compare", "-f", "raw", raw, path), "Images are identical.\n");
  }));

Deno.test("img create and convert leave an image alone that is in use", () =>
  withFolder((folder) => {
    const [raw, qcow2] = [`${folder}/raw`, `${folder}/qcow2`];
    writeRaw(raw);
    ok("convert", "-O", "qcow2", raw, qcow2);
    for (const path of [raw, qcow2]) {
      const before = Deno.readFileSync(path);
      const format = path === raw ? "raw" : "qcow2";
      for (const writable of [true, false]) {
        using _ = new ImgImage(path, { format, writable });
        const content = Deno.readFileSync(path);
        for (
          const args of [
            ["create", "-f", "raw", path, "1M"],
            ["create", "-f", "qcow2", path, "1M"],
            ["convert", "-O", "qcow2", raw, path],
            ["convert", "-O", "raw", qcow2, path],
            ["convert", "-U", "-O", format, path, path],
          ]
        ) {
          const { code, text } = img(...args);
          assert.equal(code, 1, args.join(" "));
          assert.match(text, /lock\nIs another process using the image \[/);
          assert.deepEqual(Deno.readFileSync(path), content);
        }
      }
      assert.equal(Deno.readFileSync(path).length, before.length);
    }
  }));
