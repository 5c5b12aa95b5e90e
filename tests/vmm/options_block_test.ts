import assert from "node:assert/strict";
import type { MachineConfig } from "../../vmm/config.ts";
import type { BlockNodeConfig, FileNodeConfig } from "../../devices/block/config.ts";
import type { DeviceType } from "../../devices/device.ts";
import { parseBlockdev } from "../../vmm/options/blockdev.ts";
import { parseCommandLine } from "../../vmm/options/command_line.ts";
import { assertOptionError, testDevices, words } from "./options_fixture.ts";

/** A device that has a disk. */
const types: readonly DeviceType[] = [
  ...testDevices,
  {
    ...testDevices.find(({ name }) => name === "gadget")!,
    name: "virtio-blk-device",
    properties: { drive: { type: "drive", help: "the disk" } },
  },
];

function parse(line: string): MachineConfig {
  const { config } = parseCommandLine(words(line), types);
  assert.ok(config, line);
  return config;
}

const common = {
  readOnly: false,
  autoReadOnly: false,
  cache: { direct: false, noFlush: false },
  discard: "ignore",
  detectZeroes: "off",
} as const;
const file: FileNodeConfig = {
  ...common,
  ...{ driver: "file", nodeName: "f", filename: "x", locking: "auto", aio: "threads" },
};
const raw = { ...common, driver: "raw", nodeName: "r", file: "f", offset: 0 } as const;

Deno.test("-blockdev: keys and values, and JSON, say the same", () => {
  const cases: [keyval: string, json: string, nodes: BlockNodeConfig[]][] = [
    [
      "file,node-name=f,filename=x",
      '{"driver":"file","node-name":"f","filename":"x"}',
      [file],
    ],
    [
      "driver=host_device,node-name=f,filename=x,read-only=on,auto-read-only=on,locking=off,cpr=off",
      '{"driver":"host_device","node-name":"f","filename":"x","read-only":true,' +
      '"auto-read-only":true,"locking":"off","cpr":false}',
      [{
        ...file,
        ...{
          driver: "host_device",
          readOnly: true,
          autoReadOnly: true,
          locking: "off",
          cpr: false,
        },
      }],
    ],
    [
      "file,node-name=f,filename=x,cache.direct=on,cache.no-flush=on,aio=native,discard=unmap," +
      "detect-zeroes=unmap",
      '{"driver":"file","node-name":"f","filename":"x","cache":{"direct":true,"no-flush":true},' +
      '"aio":"native","discard":"unmap","detect-zeroes":"unmap"}',
      [{
        ...file,
        cache: { direct: true, noFlush: true },
        ...{ aio: "native", discard: "unmap", detectZeroes: "unmap" },
      }],
    ],
    [
      "raw,node-name=r,file=f,offset=4096,size=8192",
      '{"driver":"raw","node-name":"r","file":"f","offset":4096,"size":8192}',
      [{ ...raw, offset: 4096, size: 8192 }],
    ],
    [
      "raw,node-name=r,read-only=on,cache.direct=on,file.driver=file,file.filename=x",
      '{"driver":"raw","node-name":"r","read-only":true,"cache":{"direct":true},' +
      '"file":{"driver":"file","filename":"x"}}',
      [
        {
          ...file,
          nodeName: "#r.file",
          cache: { direct: true, noFlush: false },
          ...{ readOnly: true, discard: "unmap" },
        },
        {
          ...raw,
          readOnly: true,
          cache: { direct: true, noFlush: false },
          file: "#r.file",
        },
      ],
    ],
    [
      "raw,node-name=r,file.driver=raw,file.node-name=m,file.file.driver=file,file.file.filename=x",
      '{"driver":"raw","node-name":"r","file":{"driver":"raw","node-name":"m",' +
      '"file":{"driver":"file","filename":"x"}}}',
      [
        { ...file, nodeName: "#m.file", discard: "unmap" },
        { ...raw, nodeName: "m", file: "#m.file", discard: "unmap" },
        { ...raw, file: "m" },
      ],
    ],
    [
      "null-co,node-name=n,size=512,read-zeroes=on",
      '{"driver":"null-co","node-name":"n","size":512,"read-zeroes":true}',
      [{ ...common, driver: "null-co", nodeName: "n", size: 512, readZeroes: true }],
    ],
    [
      "null-co,node-name=n",
      '{"driver":"null-co","node-name":"n"}',
      [{ ...common, driver: "null-co", nodeName: "n", size: 1 << 30, readZeroes: false }],
    ],
  ];
  for (const [keyval, json, nodes] of cases) {
    assert.deepEqual(parseBlockdev(keyval), nodes, keyval);
    assert.deepEqual(parseBlockdev(json), nodes, json);
    assert.deepEqual(parseBlockdev(JSON.parse(json)), nodes, json);
  }
});

Deno.test("-blockdev fails in QEMU's words", () => {
  const cases: [text: string, message: string][] = [
    ["node-name=x", "Parameter 'driver' is missing"],
    ["foo,node-name=x", "Parameter 'driver' does not accept value 'foo'"],
    ["__proto__,node-name=x", "Parameter 'driver' does not accept value '__proto__'"],
    ["file,node-name=x", "Parameter 'filename' is missing"],
    ["file,filename=x", "'node-name' must be specified for the root node"],
    ["file,filename=x,node-name=x,foo=bar", "Parameter 'foo' is unexpected"],
    ["file,filename=x,node-name=x,toString=bar", "Parameter 'toString' is unexpected"],
    ["file,filename=x,node-name=x,size=1", "Parameter 'size' is unexpected"],
    ["file,filename=x,node-name=x,cache.foo=on", "Parameter 'cache.foo' is unexpected"],
    ["file,filename=x,node-name=x,read-only=maybe", "Parameter 'read-only' expects 'on' or 'off'"],
    ["file,filename=x,node-name=x,aio=foo", "Parameter 'aio' does not accept value 'foo'"],
    ["file,filename=x,node-name=x,locking=foo", "Parameter 'locking' does not accept value 'foo'"],
    ["file,filename=x,node-name=#x", "Invalid node-name: '#x'"],
    ["file,filename=x,node-name=1x", "Invalid node-name: '1x'"],
    [`file,filename=x,node-name=${"x".repeat(32)}`, "Node name too long"],
    ["raw,node-name=x", "Parameter 'file' is missing"],
    ["raw,node-name=x,file.filename=x", "Parameter 'file.driver' is missing"],
    ["raw,node-name=x,file.driver=file", "Parameter 'file.filename' is missing"],
    [
      "raw,node-name=x,file.driver=file,file.filename=x,file.foo=y",
      "Parameter 'file.foo' is unexpected",
    ],
    ["null-co,node-name=x,size=foo", "Parameter 'size' expects integer"],
    [
      "file,filename=x,node-name=x,aio=native",
      "aio=native was specified, but it requires cache.direct=on, which was not specified.",
    ],
    [
      "file,filename=x,node-name=x,detect-zeroes=unmap",
      "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
    ],
    [
      '{"driver":"file","filename":"x","node-name":"x","read-only":"on"}',
      "Invalid parameter type for 'read-only', expected: boolean",
    ],
    [
      '{"driver":"file","filename":"x","node-name":"x","cache":{"direct":1}}',
      "Invalid parameter type for 'cache.direct', expected: boolean",
    ],
    [
      '{"driver":"file","filename":["x"],"node-name":"x"}',
      "Invalid parameter type for 'filename', expected: string",
    ],
    ['{"driver":1}', "Invalid parameter type for 'driver', expected: string"],
  ];
  for (const [text, message] of cases) assertOptionError(() => parseBlockdev(text), message, text);
  assert.throws(() => parseBlockdev('{"driver":'), { message: /^JSON parse error, / });
  let deep = '"x"';
  for (let i = 0; i < 10_000; i++) deep = `{"file":${deep}}`;
  assert.throws(() => parseBlockdev(deep), { message: "Parameter 'driver' is missing" });
});

Deno.test("-drive makes nodes, a drive and, with if=virtio, a device", () => {
  const image: FileNodeConfig = {
    ...file,
    nodeName: "#d.file",
    autoReadOnly: true,
    discard: "unmap",
    eitherDriver: true,
  };
  const { eitherDriver: _, ...plain } = image;
  const disk = { ...raw, nodeName: "#d", file: "#d.file", autoReadOnly: true };
  const drive = { id: "d", nodeName: "#d", writeCache: true };
  const cases: [options: string, nodes: BlockNodeConfig[], drive: object][] = [
    ["file=x,format=raw,if=none,id=d", [image, disk], drive],
    ["file=x,format=raw,id=d,media=disk,index=3", [image, disk], drive],
    ["file=x,driver=raw,id=d,snapshot=off,copy-on-read=no", [image, disk], drive],
    ["file=x,format=raw,id=d,readonly", [
      { ...image, readOnly: true },
      { ...disk, readOnly: true },
    ], drive],
    ["file=x,format=raw,id=d,media=cdrom", [
      { ...image, readOnly: true },
      { ...disk, readOnly: true },
    ], drive],
    ["file=x,format=raw,id=d,cache=none,aio=native,locking=off,cpr=on", [
      {
        ...image,
        cache: { direct: true, noFlush: false },
        ...{ aio: "native", locking: "off", cpr: true },
      },
      { ...disk, cache: { direct: true, noFlush: false } },
    ], drive],
    ["file=x,format=raw,id=d,cache=unsafe", [
      { ...image, cache: { direct: false, noFlush: true } },
      { ...disk, cache: { direct: false, noFlush: true } },
    ], drive],
    ["file=x,format=raw,id=d,cache=writethrough", [image, disk], { ...drive, writeCache: false }],
    ["file=x,format=raw,id=d,werror=stop,rerror=ignore", [image, disk], {
      ...drive,
      writeError: "stop",
      readError: "ignore",
    }],
    ["file=x,format=raw,id=d,offset=512,size=1024,discard=unmap,detect-zeroes=on", [
      image,
      { ...disk, offset: 512, size: 1024, discard: "unmap", detectZeroes: "on" },
    ], drive],
    ["file=x,format=raw,id=d,node-name=named", [
      { ...image, nodeName: "#named.file" },
      { ...disk, nodeName: "named", file: "#named.file" },
    ], { ...drive, nodeName: "named" }],
    ["driver=null-co,size=1024,id=d", [{
      ...{ ...common, driver: "null-co", nodeName: "#d", size: 1024, readZeroes: false },
      autoReadOnly: true,
    }], drive],
    ["driver=file,file=x,id=d", [{ ...plain, nodeName: "#d", discard: "ignore" }], drive],
    ["if=none,id=d", [], { id: "d", writeCache: true }],
  ];
  for (const [options, nodes, added] of cases) {
    const { blockdevs, drives } = parse(`-drive ${options}`);
    assert.deepEqual([...blockdevs], nodes, options);
    assert.deepEqual([...drives], [added], options);
  }
  const { drives, devices } = parse(
    "-drive file=x,format=raw,if=virtio -drive file=y,format=raw -drive file=z,format=raw,if=virtio",
  );
  assert.deepEqual(drives.map(({ id }) => id), ["virtio0", "none0", "virtio1"]);
  assert.deepEqual(devices, [
    { driver: "virtio-blk-device", properties: { drive: "virtio0" } },
    { driver: "virtio-blk-device", properties: { drive: "virtio1" } },
  ]);
});

Deno.test("-drive, and devices without a disk, fail in QEMU's words", () => {
  const noFile =
    "Must specify either driver or file: say file=FILE,format=raw or file=FILE,format=qcow2";
  const image = "file=x,format=raw";
  const cases: [options: string, message: string][] = [
    ["foo=bar", noFile],
    ["format=raw", noFile],
    [
      "file=x",
      "Image format was not specified for 'x': it is not guessed, add format=raw or " +
      "format=qcow2",
    ],
    ["file=x,serial=abc", "Block format 'raw' does not support the option 'serial'"],
    [
      "file=x,format=qed",
      "Format 'qed' is not supported: 'qemu-img convert -O raw' makes a raw image of it",
    ],
    ["file=x,format=xyz", "Unknown driver 'xyz'"],
    [`${image},if=ide`, "machine type does not support if=ide: if=virtio is a disk"],
    [`${image},if=foo`, "unsupported bus type 'foo'"],
    [`${image},cache=foo`, "invalid cache option"],
    [`${image},media=foo`, "'foo' invalid media"],
    [`${image},werror=foo`, "'foo' invalid write error action"],
    [`${image},rerror=enospc`, "'enospc' invalid read error action"],
    [`${image},serial=abc`, "Block format 'raw' does not support the option 'serial'"],
    [
      `${image},aio=native`,
      "aio=native was specified, but it requires cache.direct=on, which was not specified.",
    ],
    [
      `${image},readonly=on,read-only=on`,
      "'read-only' and its alias 'readonly' can't be used at the same time",
    ],
    [
      `${image},snapshot=on`,
      "Parameter 'snapshot' does not accept value 'on': images have no layers",
    ],
  ];
  for (const [options, message] of cases) {
    const line = `-drive ${options}`;
    assertOptionError(() => parse(line), `${line}: ${message}`, line);
  }
  const disk = "-device virtio-blk-device";
  const lines: [line: string, message: string][] = [
    [
      `-drive ${image},id=x -drive ${image},id=x`,
      `-drive ${image},id=x: Duplicate ID 'x' for drive`,
    ],
    [
      `-drive ${image},if=virtio -drive ${image},if=virtio,index=0`,
      `-drive ${image},if=virtio,index=0: drive with bus=0, unit=0 (index=0) exists`,
    ],
    [
      "-blockdev null-co,node-name=x -blockdev null-co,node-name=x",
      "-blockdev null-co,node-name=x: Duplicate nodes with node-name='x'",
    ],
    [disk, `${disk}: drive property not set`],
    [`${disk},drive=`, `${disk},drive=: drive property not set`],
    [
      `${disk},drive=x`,
      `${disk},drive=x: Property 'virtio-blk-device.drive' can't find value 'x'`,
    ],
    [
      `-drive if=none,id=x ${disk},drive=x`,
      `${disk},drive=x: Device needs media, but drive is empty`,
    ],
    [
      `-drive ${image},id=x ${disk},drive=x,id=a ${disk},drive=x,id=b`,
      `${disk},drive=x,id=b: Drive 'x' is already in use by another device`,
    ],
  ];
  for (const [line, message] of lines) assertOptionError(() => parse(line), message, line);
  // A device may come before its drive.
  parse(`${disk},drive=x -blockdev null-co,node-name=x`);
});
