import assert from "node:assert/strict";
import {
  carriedOptions,
  machineOf,
  optionsOf,
  parseSocket,
  qmpServersOf,
  sharedRamFile,
} from "../../cpr/update/command_line.ts";

Deno.test("`optionsOf()` finds the options after the program, whatever Deno's own flags are", () => {
  const options = ["-kernel", "x.js", "-S"];
  for (
    const program of [
      ["deno", "run", "-A", "mod.ts"],
      ["/usr/bin/deno", "run", "-A", "--no-config", "dist/denovo.js"],
      ["deno", "run", "--config", "deno.json", "--allow-all", "/src/mod.ts"],
      ["deno", "-A", "jsr:@denovo/vmm"],
    ]
  ) assert.deepEqual(optionsOf([...program, ...options]), options);
  assert.throws(() => optionsOf(["qemu-system-x86_64", "-m", "1G"]), /does not show its options/);
});

Deno.test("`carriedOptions()` leaves out how a VMM began, and nothing else", () => {
  const given = [
    ...["-m", "64", "-S", "-append", "-S", "--incoming", "defer", "-daemonize", "-qmp", "unix:q"],
    ...["-incoming", '{"channel-type": "cpr"}', "-no-reboot"],
  ];
  assert.deepEqual(
    carriedOptions(given),
    ["-m", "64", "-append", "-S", "-qmp", "unix:q", "-no-reboot"],
  );
});

Deno.test("`machineOf()` says whose options are wrong", () => {
  assert.throws(() => machineOf(["-m"], "The new options"), {
    message: "The new options: -m: requires an argument",
  });
  assert.throws(() => machineOf(["-version"], "The new options"), /ask for help or the version/);
});

Deno.test("`parseSocket()` takes paths, and what a VMM's own `-qmp` has", () => {
  const unix = (path: string) => ({ family: "unix", path });
  assert.deepEqual(parseSocket("run/q"), unix("run/q"));
  assert.deepEqual(parseSocket("unix:run/q,server=on,wait=off"), unix("run/q"));
  assert.deepEqual(parseSocket("tcp::4444"), { family: "tcp", host: "127.0.0.1", port: 4444 });
  assert.deepEqual(parseSocket("tcp:[::1]:1,server=on"), { family: "tcp", host: "::1", port: 1 });
  assert.throws(() => parseSocket("unix:"), /does not name a socket/);
});

Deno.test("QMP's sockets are those of monitors in control mode that listen", () => {
  const config = machineOf([
    ...["-qmp", "unix:a,server=on", "-monitor", "unix:b,server=on", "-serial", "unix:c,server=on"],
    ...["-chardev", "socket,id=d,path=d", "-mon", "d,mode=control"],
  ], "");
  assert.deepEqual(qmpServersOf(config).map(({ id }) => id), ["compat_monitor0"]);
});

Deno.test("RAM stays in a file only if that is shared and the machine's", () => {
  const ram = (share: string, id: string) =>
    machineOf([
      ...["-m", "64", "-machine", `memory-backend=${id}`],
      ...["-object", "memory-backend-memfd,id=anonymous,size=64M"],
      ...["-object", `memory-backend-file,id=file,size=64M,mem-path=ram,share=${share}`],
    ], "");
  assert.equal(sharedRamFile(ram("on", "file")), "ram");
  assert.equal(sharedRamFile(ram("off", "file")), undefined);
  assert.equal(sharedRamFile(ram("on", "anonymous")), undefined);
});
