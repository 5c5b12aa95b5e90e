/**
 * Every option of the command line: its name, its help and what it does.
 *
 * @module
 */
import { boot, firmwareFile } from "./boot.ts";
import { asksForChardevHelp, chardevHelp, parseChardev } from "./chardev.ts";
import {
  debugcon,
  escapeKey,
  gdb,
  mon,
  monitor,
  parallel,
  qmp,
  qmpPretty,
  serial,
} from "./console.ts";
import { rtc } from "./clock.ts";
import { device, deviceHelp, global } from "./device.ts";
import type { Draft } from "./draft.ts";
import { accel, accelHelp, cpu, machine, machineHelp } from "./machine.ts";
import { onlyNone, takeLacking } from "./lacking.ts";
import { memory, memPath } from "./memory.ts";
import { object, objectHelp } from "./memory_backend.ts";
import {
  action,
  debugItems,
  display,
  logItemsHelp,
  messages,
  name,
  noReboot,
  noShutdown,
  sandbox,
  uuid,
  vga,
  watchdogAction,
} from "./process.ts";
import { smp } from "./smp.ts";

/** Something to print instead of running a machine; whoever runs the program knows the text. */
export type Request =
  | { readonly kind: "help" | "version" | "cpu-help" }
  /** A list that the options themselves know. */
  | {
    readonly kind:
      | "machine-help"
      | "accel-help"
      | "device-help"
      | "object-help"
      | "chardev-help"
      | "log-help";
    readonly text: string;
  };

/** An option: either a flag or something with an argument. */
export type Option =
  & {
    /** Its names without the dash, the one in the help first. */
    readonly names: readonly string[];
    /** Its lines in `-help`. */
    readonly help: string;
  }
  & (
    | {
      readonly argument: true;
      /** Changes the draft, or asks for something to be printed. */
      run(argument: string, draft: Draft): Request | void;
    }
    | { readonly argument: false; run(draft: Draft): Request | void }
  );

type ListKind = Extract<Request, { text: string }>["kind"];

/** The request to print a list, if there is one. */
function list(kind: ListKind, text: string | undefined): Request | undefined {
  return text === undefined ? undefined : { kind, text };
}

/** A line of help: what is typed, then what it does, aligned as QEMU's. */
function line(usage: string, text: string): string {
  const indent = " ".repeat(16);
  const [first, ...rest] = text.split("\n").map((part) => indent + part);
  const head = usage.length < 16 ? usage.padEnd(16) + first.trimStart() : `${usage}\n${first}`;
  return [head, ...rest].join("\n");
}

/** An option whose argument goes into the configuration as it is. */
function text(
  key: "kernel" | "initrd" | "append" | "bios" | "pidfile" | "logfile",
  option: string,
  usage: string,
  help: string,
): Option {
  return {
    names: [option],
    help: line(usage, help),
    argument: true,
    run: (value, draft) => {
      draft.config[key] = value;
    },
  };
}

/** An option whose argument a function reads. */
function reads(
  names: string | readonly string[],
  help: string,
  run: (argument: string, draft: Draft) => Request | void,
): Option {
  return { names: [names].flat(), help, argument: true, run };
}

/** An option without an argument. */
function flag(
  names: string | readonly string[],
  help: string,
  run: (draft: Draft) => Request | void,
): Option {
  return { names: [names].flat(), help, argument: false, run };
}

/** Options under their headings in `-help`. */
export const optionGroups: readonly { readonly title: string; readonly options: Option[] }[] = [
  {
    title: "Standard options",
    options: [
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
        (argument, draft) =>
          list("machine-help", machineHelp(argument)) ?? machine(argument, draft),
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
    ],
  },
  {
    title: "Display options",
    options: [
      reads("display", line("-display none", "there is no display"), display),
      flag(
        "nographic",
        line("-nographic", "redirect serial port and monitor to the terminal"),
        (draft) => {
          draft.config.nographic = true;
        },
      ),
      reads("vnc", line("-vnc none", "there is no VNC server"), onlyNone("VNC server")),
      reads("vga", line("-vga none", "there is no VGA card"), vga),
    ],
  },
  {
    title: "Network options",
    options: [
      reads("nic", line("-nic none", "there is no network"), onlyNone("network")),
      reads("net", line("-net none", "there is no network"), onlyNone("network")),
    ],
  },
  {
    title: "Character device options",
    options: [
      reads(
        "chardev",
        [
          "-chardev help",
          "-chardev null,id=id",
          "-chardev stdio,id=id[,signal=on|off]",
          "-chardev file,id=id,path=path[,append=on|off]",
          "-chardev pipe,id=id,path=path",
          "-chardev pty,id=id[,path=path]",
          "-chardev socket,id=id,path=path[,server=on|off][,wait=on|off][,reconnect-ms=ms] (unix)",
          "-chardev socket,id=id[,host=host],port=port[,server=on|off][,wait=on|off]\n" +
          "         [,telnet=on|off][,websocket=on|off][,reconnect-ms=ms] (tcp)",
          "-chardev fd,id=id,fd=fd",
          "         [,mux=on|off][,logfile=PATH][,logappend=on|off][,cpr=on|off] (all)",
        ].join("\n"),
        (argument, draft) => {
          if (asksForChardevHelp(argument)) return { kind: "chardev-help", text: chardevHelp() };
          draft.addChardev(parseChardev(argument));
        },
      ),
    ],
  },
  {
    title: "Boot Image or Kernel specific",
    options: [
      text("bios", "bios", "-bios file", "set the filename for the BIOS"),
      text("kernel", "kernel", "-kernel bzImage", "use 'bzImage' as kernel image"),
      reads(
        "boot",
        line(
          "-boot [order=drives][,once=drives][,menu=on|off][,splash-time=ms]\n" +
            "      [,reboot-timeout=ms][,strict=on|off]",
          "what firmware is told; there are no drives",
        ),
        boot,
      ),
      reads(
        "fw_cfg",
        [
          "-fw_cfg [name=]<name>,file=<file>",
          line("-fw_cfg [name=]<name>,string=<str>", "add named fw_cfg entry from file or string"),
        ].join("\n"),
        firmwareFile,
      ),
      text("append", "append", "-append cmdline", "use 'cmdline' as kernel command line"),
      text("initrd", "initrd", "-initrd file", "use 'file' as initial ram disk"),
    ],
  },
  {
    title: "Debug/Expert options",
    options: [
      reads("serial", line("-serial dev", "redirect the serial port to char device 'dev'"), serial),
      reads("parallel", line("-parallel none", "there is no parallel port"), parallel),
      reads("monitor", line("-monitor dev", "redirect the monitor to char device 'dev'"), monitor),
      reads("qmp", line("-qmp dev", "like -monitor but opens in 'control' mode"), qmp),
      reads(
        "qmp-pretty",
        line("-qmp-pretty dev", "like -qmp but uses pretty JSON formatting"),
        qmpPretty,
      ),
      reads("mon", "-mon [chardev=]name[,mode=readline|control][,pretty[=on|off]]", mon),
      reads(
        "debugcon",
        line("-debugcon dev", "redirect the debug console to char device 'dev'"),
        debugcon,
      ),
      reads(
        "echr",
        line("-echr chr", "set terminal escape character instead of ctrl-a"),
        escapeKey,
      ),
      reads(
        "gdb",
        line("-gdb dev", "accept gdb connection on 'dev'; the guest starts without waiting for it"),
        gdb,
      ),
      flag("s", line("-s", "shorthand for -gdb tcp::1234"), (draft) => gdb("tcp::1234", draft)),
      text("pidfile", "pidfile", "-pidfile file", "write PID to 'file'"),
      flag(
        "S",
        line("-S", "freeze CPU at startup (use 'c' to start execution)"),
        (draft) => {
          draft.config.startPaused = true;
        },
      ),
      reads(
        "d",
        line(
          "-d item1,...",
          "enable logging of specified items (use '-d help' for a list of log items)",
        ),
        (argument, draft) =>
          argument === "help" || argument === "?"
            ? { kind: "log-help", text: logItemsHelp() }
            : debugItems(argument, draft),
      ),
      text("logfile", "D", "-D logfile", "output log to logfile (default stderr)"),
      flag("enable-kvm", line("-enable-kvm", "same as -accel kvm"), (draft) => accel("kvm", draft)),
      flag("no-reboot", line("-no-reboot", "exit instead of rebooting"), noReboot),
      flag("no-shutdown", line("-no-shutdown", "stop before shutdown"), noShutdown),
      reads(
        "action",
        [
          line("-action reboot=reset|shutdown", "action when guest reboots [default=reset]"),
          line(
            "-action shutdown=poweroff|pause",
            "action when guest shuts down [default=poweroff]",
          ),
          line(
            "-action panic=pause|shutdown|exit-failure|none",
            "action when guest panics [default=shutdown]",
          ),
          line(
            "-action watchdog=reset|shutdown|poweroff|inject-nmi|pause|debug|none",
            "action when watchdog fires [default=reset]",
          ),
        ].join("\n"),
        action,
      ),
      flag(
        "daemonize",
        line("-daemonize", "daemonize after initializing"),
        (draft) => {
          draft.config.daemonize = true;
        },
      ),
      reads(
        "incoming",
        [
          "-incoming tcp:[host]:port",
          line("-incoming unix:socketpath", "listen on the address for an incoming migration"),
          "-incoming file:path[,offset=offset]",
          "-incoming fd:fd",
          line(
            "-incoming exec:cmdline",
            "accept incoming migration from a file, an open\n" +
              "descriptor or a command's output",
          ),
          line("-incoming defer", "wait for the URI to be specified via migrate_incoming"),
          line(
            "-incoming <channel>",
            "a channel as JSON or as dotted keys; channel-type=cpr is\n" +
              "the channel that brings memory and descriptors",
          ),
        ].join("\n"),
        (argument, draft) => {
          draft.config.incoming = [...draft.config.incoming, argument];
        },
      ),
      reads(
        "msg",
        line(
          "-msg [timestamp=on|off][,guest-name=on|off]",
          "begin messages with the time, and the guest's name",
        ),
        messages,
      ),
      reads(
        "watchdog-action",
        line("-watchdog-action action", "the same as -action watchdog=action"),
        watchdogAction,
      ),
      reads(
        "overcommit",
        line("-overcommit [mem-lock=off][,cpu-pm=off]", "accepted: that is what is done"),
        (argument) => takeLacking("overcommit", argument),
      ),
      reads(
        "run-with",
        line(
          "-run-with [async-teardown=off][,exit-with-parent=off]",
          "accepted: that is what is done",
        ),
        (argument) => takeLacking("run-with", argument),
      ),
      reads(
        "compat",
        line(
          "-compat [deprecated-input=accept][,deprecated-output=accept]",
          "accepted: that is what is done",
        ),
        (argument) => takeLacking("compat", argument),
      ),
      flag(
        "only-migratable",
        line("-only-migratable", "accepted: all devices can be migrated"),
        () => {},
      ),
      flag("nodefaults", line("-nodefaults", "don't create default devices"), (draft) => {
        draft.defaultSerial = false;
        draft.defaultMonitor = false;
      }),
      reads(
        "sandbox",
        line(
          "-sandbox on[,spawn=allow|deny][,resourcecontrol=allow|deny]\n" +
            "         [,obsolete=allow|deny][,elevateprivileges=allow|deny|children]",
          "forbid system calls (default 'off');\n'spawn' allows or denies to start other programs,\n" +
            "'resourcecontrol' to choose the processors of threads",
        ),
        sandbox,
      ),
      flag(
        "no-user-config",
        line("-no-user-config", "accepted: there are no user-provided config files"),
        () => {},
      ),
    ],
  },
  {
    title: "Generic object creation",
    options: [
      reads(
        "object",
        line(
          "-object TYPENAME[,PROP1=VALUE1,...]",
          "create a memory backend of type TYPENAME; the 'id' property must\n" +
            "be set ('-object help' for list, '-object TYPENAME,help' for properties)",
        ),
        (argument, draft) => list("object-help", objectHelp(argument)) ?? object(argument, draft),
      ),
    ],
  },
];

/** What `-help` prints after the version. */
export function optionsHelp(): string {
  const groups = optionGroups.map(({ title, options }) =>
    [`${title}:`, ...options.map(({ help }) => help)].join("\n")
  );
  const usage = "usage: denovo [options]\n       denovo update -qmp socket [options]" +
    "    replace the VMM of a running guest, see 'update -help'" +
    "\n       denovo state FILE    print a saved state as JSON";
  return [usage, ...groups].join("\n\n");
}
