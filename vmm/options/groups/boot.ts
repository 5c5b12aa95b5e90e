/**
 * What the guest boots from.
 *
 * @module
 */
import { boot, firmwareFile } from "../boot.ts";
import { line, type Option, reads, text } from "../option.ts";

/** The options, in the order of `-help`. */
export const bootOptions: readonly Option[] = [
  text("bios", "bios", "-bios file", "set the filename for the BIOS"),
  text("kernel", "kernel", "-kernel bzImage", "use 'bzImage' as kernel image"),
  reads(
    "boot",
    line(
      "-boot [order=drives][,once=drives][,menu=on|off][,splash-time=ms]\n" +
        "      [,reboot-timeout=ms][,strict=on|off]",
      "what firmware is told",
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
];
