/**
 * Objects that devices and the machine refer to.
 *
 * @module
 */
import { object, objectHelp } from "../object.ts";
import { line, list, type Option, reads } from "../option.ts";

/** The options, in the order of `-help`. */
export const objectOptions: readonly Option[] = [
  reads(
    "object",
    line(
      "-object TYPENAME[,PROP1=VALUE1,...]",
      "create an object of type TYPENAME: a memory backend, a throttle group,\n" +
        "an I/O thread or a source of random numbers; the 'id' property must\n" +
        "be set ('-object help' for list, '-object TYPENAME,help' for properties)",
    ),
    (argument, draft) => list("object-help", objectHelp(argument)) ?? object(argument, draft),
  ),
];
