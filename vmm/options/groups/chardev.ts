/**
 * Character devices.
 *
 * @module
 */
import { chardevHelp, parseChardev } from "../chardev.ts";
import { list, type Option, reads } from "../option.ts";

/** The options, in the order of `-help`. */
export const chardevOptions: readonly Option[] = [
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
    (argument, draft) =>
      list("chardev-help", chardevHelp(argument)) ?? draft.addChardev(parseChardev(argument)),
  ),
];
