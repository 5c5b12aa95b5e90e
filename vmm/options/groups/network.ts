/**
 * Networks.
 *
 * @module
 */
import { onlyNone } from "../lacking.ts";
import { netdevHelp, parseNetdev } from "../netdev.ts";
import { line, list, type Option, reads } from "../option.ts";

const noCard = onlyNone(
  "network card by this option",
  "say -netdev ...,id=n -device virtio-net-device,netdev=n",
);

/** The options, in the order of `-help`. */
export const networkOptions: readonly Option[] = [
  reads(
    "netdev",
    [
      "-netdev help",
      "-netdev tap,id=id[,ifname=name|,fd=fd][,vnet_hdr=on|off][,script=no][,downscript=no]",
      "-netdev stream,id=id,addr.type=inet|unix|fd,addr...[,server=on|off][,reconnect-ms=ms]",
      "-netdev dgram,id=id,local.type=inet|unix|fd,local...[,remote.type=inet|unix,remote...]",
      "-netdev user,id=id[,hostfwd=tcp|udp:[hostaddr]:port-:port]",
      line(
        "        [,cpr=on|off][,throttle-group=id] (all)",
        "configure a network backend; user runs passt",
      ),
    ].join("\n"),
    (argument, draft) =>
      list("netdev-help", netdevHelp(argument)) ?? draft.addNetdev(parseNetdev(argument)),
  ),
  reads("nic", line("-nic none", "no network card by default, as it is"), noCard),
  reads("net", line("-net none", "no network card by default, as it is"), noCard),
];
