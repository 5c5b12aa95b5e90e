/**
 * Disks, as the host has them.
 *
 * @module
 */
import { blockdev, blockdevHelp } from "../blockdev.ts";
import { drive } from "../drive.ts";
import { line, list, type Option, reads } from "../option.ts";

/** The options, in the order of `-help`. */
export const blockOptions: readonly Option[] = [
  reads(
    "blockdev",
    [
      "-blockdev help",
      "-blockdev [driver=]file,node-name=N,filename=path[,locking=on|off|auto]\n" +
      "          [,aio=threads|native|io_uring][,cpr=on|off]",
      "-blockdev [driver=]host_device,node-name=N,filename=path (the same)",
      "-blockdev [driver=]raw,node-name=N,file=N[,offset=bytes][,size=bytes]",
      "-blockdev [driver=]qcow2,node-name=N,file=N[,backing=N]",
      "-blockdev [driver=]throttle,node-name=N,file=N,throttle-group=id (see -object)",
      "-blockdev [driver=]null-co,node-name=N[,size=bytes][,read-zeroes=on|off]",
      line(
        "          [,read-only=on|off][,auto-read-only=on|off][,cache.direct=on|off]\n" +
          "          [,cache.no-flush=on|off][,discard=ignore|unmap]\n" +
          "          [,detect-zeroes=on|off|unmap] (all)",
        "configure a block backend",
      ),
    ].join("\n"),
    (argument, draft) => list("blockdev-help", blockdevHelp(argument)) ?? blockdev(argument, draft),
  ),
  reads(
    "drive",
    line(
      "-drive [file=file][,format=raw|qcow2][,if=none|virtio][,id=name][,index=i][,media=disk|cdrom]\n" +
        "       [,cache=writeback|writethrough|none|directsync|unsafe][,readonly=on|off]\n" +
        "       [,auto-read-only=on|off][,aio=threads|native|io_uring][,locking=on|off|auto]\n" +
        "       [,cpr=on|off][,discard=ignore|unmap][,detect-zeroes=on|off|unmap]\n" +
        "       [,werror=ignore|stop|report|enospc][,rerror=ignore|stop|report]\n" +
        "       [,throttling.{bps,iops}-{total,read,write}[-max[-length]]=n]\n" +
        "       [,throttling.iops-size=bytes][,throttling.group=name]",
      "use 'file' as a drive image; if=virtio makes a virtio-blk-device of it",
    ),
    drive,
  ),
];
