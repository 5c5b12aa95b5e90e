/**
 * The machine itself: what it consists of, its CPUs, memory and devices.
 *
 * @module
 */
import { rtc } from "../clock.ts";
import { device, deviceHelp, global } from "../device.ts";
import { accel, accelHelp, cpu, machine, machineHelp } from "../machine.ts";
import { memory, memPath, numa } from "../memory.ts";
import { flag, line, list, type Option, reads } from "../option.ts";
import { name, uuid } from "../process.ts";
import { smp } from "../smp.ts";

/** The options, in the order of `-help`. */
export const standardOptions: readonly Option[] = [
  flag(["h", "help"], line("-h or -help", "display this help and exit"), () => ({
    kind: "help",
  })),
  flag("version", line("-version", "display version information and exit"), () => ({
    kind: "version",
  })),
  reads(
    ["machine", "M"],
    line(
      "-machine [type=]name[,prop[=value][,...]]",
      "selects emulated machine ('-machine help' for list,\n" +
        "'-machine microvm,help' for its properties)",
    ),
    (argument, draft) => list("machine-help", machineHelp(argument)) ?? machine(argument, draft),
  ),
  reads(
    "cpu",
    line("-cpu cpu", "select CPU ('-cpu help' for list)"),
    (argument, draft) =>
      argument === "help" || argument === "?" ? { kind: "cpu-help" } : cpu(argument, draft),
  ),
  reads(
    "accel",
    line(
      "-accel [accel=]kvm|tcg",
      "select accelerator (kvm, or tcg: the software CPU); the first that is there counts\n" +
        "[default=kvm where /dev/kvm is, else tcg]",
    ),
    (argument, draft) => list("accel-help", accelHelp(argument)) ?? accel(argument, draft),
  ),
  reads(
    "smp",
    line(
      "-smp [[cpus=]n][,maxcpus=maxcpus][,sockets=sockets][,cores=cores][,threads=threads]",
      "set the number of initial CPUs to 'n' [default=1]",
    ),
    smp,
  ),
  reads(
    "m",
    line(
      "-m [size=]megs[,slots=n,maxmem=size]",
      "configure guest RAM [default=128]; suffixes k, M, G, T\n" +
        "memory cannot be plugged in later: slots stay empty",
    ),
    memory,
  ),
  reads(
    "numa",
    line("-numa ...", "refused: all CPUs and all memory are one node"),
    numa,
  ),
  reads(
    "mem-path",
    line("-mem-path FILE", "provide backing storage for guest RAM"),
    memPath,
  ),
  flag("mem-prealloc", line("-mem-prealloc", "preallocate guest memory"), (draft) => {
    draft.config.memPrealloc = true;
  }),
  reads(
    "k",
    line("-k language", "accepted: there is no display whose keys had a layout"),
    () => {},
  ),
  reads(
    "name",
    line(
      "-name string1[,process=string2][,debug-threads=on|off]",
      "set the name of the guest, the process's name, and\n" +
        "whether threads get names of their own",
    ),
    name,
  ),
  reads(
    "rtc",
    line(
      "-rtc [base=utc|localtime|<datetime>][,clock=host][,driftfix=none]",
      "set what the clock (-machine rtc=on) shows at the start",
    ),
    rtc,
  ),
  reads("uuid", line("-uuid %08x-%04x-%04x-%04x-%012x", "specify machine UUID"), uuid),
  reads(
    "device",
    line(
      "-device driver[,prop[=value][,...]]",
      "add device (based on driver)\n" +
        "prop=value,... sets driver properties\n" +
        "use '-device help' to print all possible drivers\n" +
        "use '-device driver,help' to print all possible properties",
    ),
    (argument, draft) =>
      list("device-help", deviceHelp(argument, draft.types)) ?? device(argument, draft),
  ),
  reads(
    "global",
    line(
      "-global driver.property=value",
      "set a global default for a driver property, or one of\nmigration's settings",
    ),
    global,
  ),
];
