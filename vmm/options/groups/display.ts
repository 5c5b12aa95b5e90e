/**
 * Displays, of which there are none.
 *
 * @module
 */
import { onlyNone } from "../lacking.ts";
import { flag, line, type Option, reads } from "../option.ts";
import { display, vga } from "../process.ts";

/** The options, in the order of `-help`. */
export const displayOptions: readonly Option[] = [
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
];
