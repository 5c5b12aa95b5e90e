/**
 * The program as a later version might be: the state of `isa-serial` is in its second version, with
 * a counter that the first has not, and a subsection.
 *
 * The environment variable `DENOVO_TEST_NEWER` says which of the new features the guest uses from
 * its power-on: `nothing`, `counter` or `subsection`.
 *
 * @module
 */
import type { DeviceType } from "../../devices/device.ts";
import { deviceTypes } from "../../devices/registry.ts";
import { isaSerial } from "../../devices/isa/serial.ts";
import { copyFields, type Fields, struct, u32, type View } from "../../ffi/struct.ts";
import { main } from "../../mod.ts";

/** Names the features in use to newer programs. */
export const NEWER = "DENOVO_TEST_NEWER";

const part = struct("isa-serial/part", { value: u32 });

/** `isa-serial` in its second version. */
export const newerSerial: DeviceType = {
  ...isaSerial,
  version: 2,
  state: struct<Fields>("isa-serial", { ...isaSerial.state.fields, counter: u32, part }),
  older: [{
    state: isaSerial.state,
    upgrade: copyFields,
    downgrade: (newer, older) => {
      copyFields(newer, older);
      return newer.counter === 0;
    },
  }],
  subsections: [{
    field: "part",
    version: 1,
    state: part,
    needed: (state) => partOf(state).value !== 0,
  }],
  create: (state, context, properties) => {
    const device = isaSerial.create(state, context, properties);
    const reset = device.reset.bind(device);
    device.reset = () => {
      reset();
      const used = Deno.env.get(NEWER);
      if (used === "counter") state.counter = 7;
      if (used === "subsection") partOf(state).value = 9;
    };
    return device;
  },
};

function partOf(state: View<Fields>): View<typeof part.fields> {
  return state.part as View<typeof part.fields>;
}

if (import.meta.main) {
  const types = deviceTypes as DeviceType[];
  types[types.indexOf(isaSerial)] = newerSerial;
  Deno.exit(await main(Deno.args));
}
