import assert from "node:assert/strict";
import type { ChardevConfig } from "../../devices/chardev/config.ts";
import type { MemoryBackendConfig } from "../../vmm/config.ts";
import { parseChardev, parseShortChardev } from "../../vmm/options/chardev.ts";
import { parseDevice } from "../../vmm/options/device.ts";
import { parseCpu } from "../../vmm/options/machine.ts";
import { parseObject } from "../../vmm/options/object.ts";
import { parseSmp } from "../../vmm/options/smp.ts";
import { assertOptionError, testDevices } from "./options_fixture.ts";

const BAD_ID =
  "Parameter 'id' expects an identifier of letters, digits, '-', '.', '_', starting with a letter";

/** A memory backend with the defaults of all that the test does not name. */
const backend = (config: Partial<MemoryBackendConfig>): MemoryBackendConfig => ({
  qomType: "memory-backend-memfd",
  id: "ram0",
  size: 2 ** 30,
  share: true,
  prealloc: false,
  hugetlb: false,
  readonly: false,
  seal: true,
  ...config,
});

Deno.test("parseObject() reads every kind of memory backend with QEMU's defaults", () => {
  const cases: [text: string, config: MemoryBackendConfig][] = [
    ["memory-backend-memfd,id=ram0,size=1G", backend({})],
    [
      "memory-backend-memfd,id=ram0,size=1G,share=off,seal=no",
      backend({ share: false, seal: false }),
    ],
    [
      "memory-backend-memfd,id=ram0,size=1G,hugetlb=on,hugetlbsize=2M,prealloc=yes",
      backend({ hugetlb: true, hugetlbsize: 2 ** 21, prealloc: true }),
    ],
    [
      "qom-type=memory-backend-ram,id=a,size=1.5M",
      backend({
        qomType: "memory-backend-ram",
        id: "a",
        size: 1.5 * 2 ** 20,
        share: false,
      }),
    ],
    ["memory-backend-shm,id=ram0,size=1G", backend({ qomType: "memory-backend-shm" })],
    [
      "memory-backend-file,id=ram0,size=1G,mem-path=/dev/shm/a,,b,offset=4k,align=2M,readonly=on",
      backend({
        qomType: "memory-backend-file",
        share: false,
        memPath: "/dev/shm/a,b",
        offset: 4096,
        align: 2 ** 21,
        readonly: true,
      }),
    ],
    [
      '{"qom-type":"memory-backend-memfd","id":"ram0","size":1073741824,"share":true}',
      backend({}),
    ],
  ];
  for (const [text, config] of cases) assert.deepEqual(parseObject(text), config, text);
});

Deno.test("parseObject() reads the arguments of object-add", () => {
  assert.deepEqual(
    parseObject({ "qom-type": "memory-backend-ram", id: "a", size: 4096, prealloc: true }),
    backend({ qomType: "memory-backend-ram", id: "a", size: 4096, share: false, prealloc: true }),
  );
});

Deno.test("parseObject() fails in QEMU's words when a property is missing or wrong", () => {
  const cases: [text: string, message: string][] = [
    ["", "Parameter 'qom-type' is missing"],
    ["id=a", "Parameter 'qom-type' is missing"],
    ...["nope", "toString"].map((type): [string, string] => [
      `${type},id=a`,
      `Parameter 'qom-type' does not accept value '${type}': there are iothread,` +
      " memory-backend-file, memory-backend-memfd, memory-backend-ram, memory-backend-shm," +
      " rng-builtin, rng-random, throttle-group",
    ]),
    ["memory-backend-ram", "Parameter 'id' is missing"],
    ["memory-backend-ram,id=a", "Parameter 'size' is missing"],
    ["memory-backend-ram,id=1a,size=1M", BAD_ID],
    ["memory-backend-ram,id=a,size=x", "Parameter 'size' expects a size value"],
    [
      "memory-backend-ram,id=a,size=0",
      "property 'size' of memory-backend-ram doesn't take value '0'",
    ],
    ["memory-backend-ram,id=a,size=5k", "size 0x1400 must be multiples of page size 0x1000"],
    ["memory-backend-ram,id=a,size=1M,foo=1", "Invalid parameter 'foo'"],
    ["memory-backend-ram,id=a,size=1M,share=maybe", "Parameter 'share' expects 'on' or 'off'"],
    ["memory-backend-memfd,id=a,size=1M,mem-path=/x", "Invalid parameter 'mem-path'"],
    ["memory-backend-file,id=a,size=1M", "Parameter 'mem-path' is missing"],
    ["memory-backend-file,id=a,size=1M,mem-path=/x,seal=on", "Invalid parameter 'seal'"],
    [
      "memory-backend-file,id=a,size=1M,mem-path=/x,align=3",
      "alignment 0x3 must be multiples of page size 0x1000",
    ],
    [
      "memory-backend-memfd,id=a,size=1M,hugetlb=on,hugetlbsize=3M",
      "Hugepage size must be a power of 2",
    ],
    ["memory-backend-shm,id=a,size=1M,share=off", "can't create shm backend with `share=off`"],
    ['{"qom-type":"memory-backend-ram"}', "Parameter 'id' is missing"],
    [
      '{"qom-type":"memory-backend-ram","id":"a","size":4096,"foo":1}',
      "Parameter 'foo' is unexpected",
    ],
    [
      '{"qom-type":"memory-backend-ram","id":"a","size":"1M"}',
      "Parameter 'size' expects uint64",
    ],
    [
      '{"qom-type":"memory-backend-ram","id":"a","size":4096,"share":"on"}',
      "Invalid parameter type for 'share', expected: boolean",
    ],
    [
      '{"qom-type":"memory-backend-ram","id":5,"size":4096}',
      "Invalid parameter type for 'id', expected: string",
    ],
  ];
  for (const [text, message] of cases) assertOptionError(() => parseObject(text), message, text);
  assert.throws(() => parseObject('{"x"'), /^OptionError: JSON parse error, /);
});

Deno.test("parseDevice() converts properties to the types that the device declares", () => {
  assert.deepEqual(parseDevice("gadget", testDevices), { driver: "gadget", properties: {} });
  assert.deepEqual(
    parseDevice("gadget,id=g,small=0xff,middle=010,big=4294967295,flag=on,text=a,,b", testDevices),
    {
      driver: "gadget",
      id: "g",
      properties: { small: 255, middle: 8, big: 4294967295, flag: true, text: "a,b" },
    },
  );
  const json = { driver: "gadget", id: "g", small: 1, flag: false, text: "x" };
  const device = { driver: "gadget", id: "g", properties: { small: 1, flag: false, text: "x" } };
  assert.deepEqual(parseDevice(JSON.stringify(json), testDevices), device);
  assert.deepEqual(parseDevice(json, testDevices), device);
});

Deno.test("parseDevice() fails in QEMU's words when driver or property is wrong", () => {
  const cases: [text: string, message: string][] = [
    ["", "Parameter 'driver' is missing"],
    ["id=x", "Parameter 'driver' is missing"],
    ["nope", "'nope' is not a valid device model name"],
    [",foo=1", "'' is not a valid device model name"],
    ["board-chip", "Parameter 'driver' expects a pluggable device type"],
    ["gadget,foo=1", "Property 'gadget.foo' not found"],
    ["gadget,toString=1", "Property 'gadget.toString' not found"],
    ["gadget,id=1a", BAD_ID],
    ["gadget,small=zz", "Parameter 'small' expects integer"],
    ["gadget,small=", "Parameter 'small' expects integer"],
    ["gadget,small=256", "Parameter 'small' expects uint8_t"],
    ["gadget,middle=65536", "Parameter 'middle' expects uint16_t"],
    ["gadget,big=-1", "Parameter 'big' expects uint32_t"],
    ["gadget,flag=maybe", "Parameter 'flag' expects 'on' or 'off'"],
    ['{"foo":1}', "Parameter 'driver' is missing"],
    ['{"driver":"gadget","small":"x"}', "Parameter 'small' expects uint64"],
    ['{"driver":"gadget","small":256}', "Parameter 'small' expects uint8_t"],
    ['{"driver":"gadget","flag":"on"}', "Invalid parameter type for 'flag', expected: boolean"],
    ['{"driver":"gadget","text":{}}', "Invalid parameter type for 'text', expected: string"],
  ];
  for (const [text, message] of cases) {
    assertOptionError(() => parseDevice(text, testDevices), message, text);
  }
});

Deno.test("parseChardev() reads every backend", () => {
  const cases: [text: string, config: ChardevConfig][] = [
    ["null,id=a", { backend: "null", id: "a" }],
    ["backend=null,id=a,cpr=off", { backend: "null", id: "a", cpr: false }],
    ["stdio,id=a", { backend: "stdio", id: "a", signal: true }],
    ["stdio,id=a,mux=on,signal=off", { backend: "stdio", id: "a", mux: true, signal: false }],
    ["file,id=a,path=x", { backend: "file", id: "a", path: "x", append: false }],
    ["file,id=a,path=x,append=on", { backend: "file", id: "a", path: "x", append: true }],
    ["pipe,id=a,path=x", { backend: "pipe", id: "a", path: "x" }],
    ["pty,id=a", { backend: "pty", id: "a" }],
    ["pty,id=a,path=/run/tty", { backend: "pty", id: "a", path: "/run/tty" }],
    ["fd,id=a,fd=7", { backend: "fd", id: "a", fd: 7 }],
    [
      "null,id=a,logfile=log,logappend=on",
      { backend: "null", id: "a", logfile: "log", logappend: true },
    ],
    [
      "socket,id=a,path=/run/a,,b",
      { backend: "socket", id: "a", family: "unix", path: "/run/a,b", server: false, wait: false },
    ],
    [
      "socket,id=a,path=x,server=on",
      { backend: "socket", id: "a", family: "unix", path: "x", server: true, wait: true },
    ],
    [
      "socket,id=a,path=x,server,nowait",
      { backend: "socket", id: "a", family: "unix", path: "x", server: true, wait: false },
    ],
    ...(["reconnect=5", "reconnect-ms=5000"] as const).map((option): [string, ChardevConfig] => [
      `socket,id=a,path=x,${option}`,
      {
        backend: "socket",
        id: "a",
        family: "unix",
        path: "x",
        server: false,
        wait: false,
        reconnectMs: 5000,
      },
    ]),
    [
      "socket,id=a,path=x,reconnect=0,server=off",
      { backend: "socket", id: "a", family: "unix", path: "x", server: false, wait: false },
    ],
    ["socket,id=a,fd=7,server=on", { backend: "fd", id: "a", fd: 7, wait: true }],
    ["socket,id=a,fd=7,server=on,wait=off", { backend: "fd", id: "a", fd: 7, wait: false }],
    ["socket,id=a,fd=7", { backend: "fd", id: "a", fd: 7, wait: false }],
    [
      "socket,id=a,host=::1,port=4444,server=on,wait=off,telnet=off",
      {
        backend: "socket",
        id: "a",
        family: "tcp",
        host: "::1",
        port: 4444,
        server: true,
        wait: false,
      },
    ],
  ];
  for (const [text, config] of cases) assert.deepEqual(parseChardev(text), config, text);
});

Deno.test("parseChardev() fails in QEMU's words when a parameter is missing or wrong", () => {
  const cases: [text: string, message: string][] = [
    ["", "chardev: no id specified"],
    ["null", "chardev: no id specified"],
    ["id=a", 'chardev: "a" missing backend'],
    ["nope,id=a", "'nope' is not a valid char driver name"],
    ["constructor,id=a", "'constructor' is not a valid char driver name"],
    ["null,id=1a", BAD_ID],
    ["null,id=a,foo=1", "Invalid parameter 'foo'"],
    ["null,id=a,path=x", "Invalid parameter 'path'"],
    ["null,id=a,mux=maybe", "Parameter 'mux' expects 'on' or 'off'"],
    ["file,id=a", "chardev: file: no filename given"],
    ["file,id=a,path=", "chardev: file: no filename given"],
    ["pipe,id=a", "chardev: pipe: no device path given"],
    ["fd,id=a", "chardev: fd: no file descriptor given"],
    ["fd,id=a,fd=-1", "Parameter 'fd' expects uint32_t"],
    ["socket,id=a", "chardev: socket: no path given"],
    ["socket,id=a,path=", "chardev: socket: no path given"],
    ["socket,id=a,host=h", "chardev: socket: no port given"],
    ["socket,id=a,port=65536", "Parameter 'port' expects a port number, not '65536'"],
    ["socket,id=a,port=http", "Parameter 'port' expects integer"],
    ["socket,id=a,path=x,host=h", "None or one of 'path', 'fd' or 'host' option required."],
    [
      "socket,id=a,path=x,wait=on",
      "'wait' option is incompatible with socket in client connect mode",
    ],
    [
      "socket,id=a,path=x,tn3270=on",
      "'tn3270' option is not supported: there is no such terminal",
    ],
    [
      "socket,id=a,path=x,server=on,telnet=on,websocket=on",
      "'telnet' and 'websocket' cannot be used together",
    ],
    ["socket,id=a,path=x,websocket=on", "Websocket client is not implemented"],
    [
      "socket,id=a,fd=3,server=on,telnet=on",
      "'telnet' and 'websocket' are incompatible with 'fd' address type",
    ],
    ["socket,id=a,path=x,fd=3", "None or one of 'path', 'fd' or 'host' option required."],
    [
      "socket,id=a,path=x,reconnect=5,reconnect-ms=5",
      "'reconnect' and 'reconnect-ms' are mutually exclusive",
    ],
    [
      "socket,id=a,path=x,server=on,reconnect=5",
      "'reconnect' option is incompatible with socket in server listen mode",
    ],
    [
      "socket,id=a,path=x,server=on,reconnect-ms=5",
      "'reconnect-ms' option is incompatible with socket in server listen mode",
    ],
    ["socket,id=a,fd=5,reconnect=5", "'reconnect' option is incompatible with 'fd' address type"],
    [
      "socket,id=a,path=x,reconnect-ms=3000000000",
      "Parameter 'reconnect-ms' expects at most 24 days",
    ],
  ];
  for (const [text, message] of cases) assertOptionError(() => parseChardev(text), message, text);
});

Deno.test("parseShortChardev() reads what -serial and -monitor take", () => {
  const socket = { backend: "socket", id: "s" } as const;
  const cases: [text: string, config: ChardevConfig][] = [
    ["null", { backend: "null", id: "s" }],
    ["pty", { backend: "pty", id: "s" }],
    ["stdio", { backend: "stdio", id: "s", signal: true }],
    ["mon:stdio", { backend: "stdio", id: "s", mux: true, signal: false }],
    ["mon:null", { backend: "null", id: "s", mux: true }],
    ["file:a,b", { backend: "file", id: "s", path: "a,b", append: false }],
    ["pipe:p", { backend: "pipe", id: "s", path: "p" }],
    ["unix:p", { ...socket, family: "unix", path: "p", server: false, wait: false }],
    ...(["telnet", "websocket"] as const).map((protocol): [string, ChardevConfig] => [
      `${protocol}:127.0.0.1:4444,server,nowait`,
      {
        ...socket,
        family: "tcp",
        host: "127.0.0.1",
        port: 4444,
        server: true,
        wait: false,
        protocol,
      },
    ]),
    [
      "telnet::4444",
      {
        ...socket,
        family: "tcp",
        host: "",
        port: 4444,
        server: false,
        wait: false,
        protocol: "telnet",
      },
    ],
    [
      "unix:p,server=on,wait=off",
      { ...socket, family: "unix", path: "p", server: true, wait: false },
    ],
    ["unix:p,server,nowait", { ...socket, family: "unix", path: "p", server: true, wait: false }],
    [
      "tcp:localhost:4444",
      { ...socket, family: "tcp", host: "localhost", port: 4444, server: false, wait: false },
    ],
    [
      "tcp::4444,server=on,wait=off",
      { ...socket, family: "tcp", host: "", port: 4444, server: true, wait: false },
    ],
    [
      "tcp:[::1]:4444,server",
      { ...socket, family: "tcp", host: "::1", port: 4444, server: true, wait: true },
    ],
  ];
  for (const [text, config] of cases) assert.deepEqual(parseShortChardev(text, "s"), config, text);
});

Deno.test("parseShortChardev() fails when the text is none of them", () => {
  for (const text of ["", "nope", "none", "tcp", "unix", "file", "stdio:x", "null,foo=1", "fd:3"]) {
    assertOptionError(
      () => parseShortChardev(text, "s"),
      `'${text}' is not a valid char driver`,
      text,
    );
  }
  const cases: [text: string, message: string][] = [
    ["mon:nope", "'nope' is not a valid char driver"],
    ["file:", "chardev: file: no filename given"],
    ["unix:", "chardev: socket: no path given"],
    ["unix:p,foo=1", "Invalid parameter 'foo'"],
    ["unix:p,server=maybe", "Parameter 'server' expects 'on' or 'off'"],
    ["tcp:foo", "address 'foo' does not have the form HOST:PORT"],
    ["tcp:foo:bar", "Parameter 'port' expects integer"],
  ];
  for (const [text, message] of cases) {
    assertOptionError(() => parseShortChardev(text, "s"), message, text);
  }
});

Deno.test("parseCpu() orders features as QEMU applies them", () => {
  assert.deepEqual(parseCpu("host"), { model: "host", features: [] });
  assert.deepEqual(parseCpu("qemu64,-cx16,+xsaveerptr,kvm_pv_eoi=off,level=13,+cx16,pdpe1gb"), {
    model: "qemu64",
    features: [
      ["kvm-pv-eoi", false],
      ["level", "13"],
      ["pdpe1gb", true],
      ["xsaveerptr", true],
      ["cx16", true],
      ["cx16", false],
    ],
  });
  assertOptionError(() => parseCpu(""), "-cpu option cannot be empty", "");
  assertOptionError(() => parseCpu("qemu64,+"), "Property 'qemu64-x86_64-cpu.' not found", "+");
});

Deno.test("parseSmp() derives what is left out", () => {
  const cases: [text: string, cpus: number, maxcpus: number, s: number, c: number, t: number][] = [
    ["", 1, 1, 1, 1, 1],
    ["1", 1, 1, 1, 1, 1],
    ["4", 4, 4, 1, 4, 1],
    ["cpus=4", 4, 4, 1, 4, 1],
    ["cores=2,threads=2", 4, 4, 1, 2, 2],
    ["sockets=2", 2, 2, 2, 1, 1],
    ["4,sockets=2", 4, 4, 2, 2, 1],
    ["8,cores=2", 8, 8, 4, 2, 1],
    ["8,cores=2,threads=2", 8, 8, 2, 2, 2],
    ["8,sockets=1,cores=4", 8, 8, 1, 4, 2],
    ["2,maxcpus=4", 2, 4, 1, 4, 1],
    ["maxcpus=6,threads=2", 6, 6, 1, 3, 2],
    ["2,dies=1,clusters=1", 2, 2, 1, 2, 1],
    ["288", 288, 288, 1, 288, 1],
  ];
  for (const [text, cpus, maxcpus, sockets, cores, threads] of cases) {
    assert.deepEqual(parseSmp(text), { cpus, maxcpus, sockets, dies: 1, cores, threads }, text);
  }
});

Deno.test("parseSmp() fails in QEMU's words when the numbers contradict each other", () => {
  const product = "Invalid CPU topology: product of the hierarchy must match maxcpus: ";
  const limit = "The max CPUs supported by machine 'microvm' is 288";
  const cases: [text: string, message: string][] = [
    ["0", "Invalid CPU topology: CPU topology parameters must be greater than zero"],
    ["2,cores=0", "Invalid CPU topology: CPU topology parameters must be greater than zero"],
    ["-1", `Invalid SMP CPUs -1. ${limit}`],
    ["289", `Invalid SMP CPUs 289. ${limit}`],
    ["sockets=200,cores=2", `Invalid SMP CPUs 400. ${limit}`],
    ["abc", "Parameter 'smp.cpus' expects integer"],
    ["cpus=", "Parameter 'smp.cpus' expects integer"],
    ["2,foo=1", "Parameter 'smp.foo' is unexpected"],
    ["2,dies=2", "dies > 1 not supported by this machine's CPU topology"],
    ["2,clusters=2", "clusters > 1 not supported by this machine's CPU topology"],
    ["2,cores", "Expected '=' after parameter 'cores'"],
    ["2,cores=3", `${product}sockets (0) * cores (3) * threads (1) != maxcpus (2)`],
    [
      "2,sockets=1,cores=2,threads=2",
      `${product}sockets (1) * cores (2) * threads (2) != maxcpus (2)`,
    ],
    [
      "2,maxcpus=3,sockets=2",
      `${product}sockets (2) * cores (1) * threads (1) != maxcpus (3)`,
    ],
    [
      "cpus=4,maxcpus=2",
      "Invalid CPU topology: maxcpus must be equal to or greater than smp: " +
      "sockets (1) * cores (2) * threads (1) == maxcpus (2) < smp_cpus (4)",
    ],
  ];
  for (const [text, message] of cases) assertOptionError(() => parseSmp(text), message, text);
});
