/**
 * Schemas of the commands about the network (QAPI net.json).
 *
 * @module
 */
import { z } from "zod";
import { socketAddress } from "./events.ts";

/** `set_link` */
export const setLink = { args: z.strictObject({ name: z.string(), up: z.boolean() }) };

const id = z.string();

/** The throttle group that frames count in. */
const limits = { "throttle-group": z.string().optional() };

/** QAPI Netdev, as far as there are such backends. */
const netdev = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("tap"),
    id,
    ...limits,
    ifname: z.string().optional(),
    fd: z.string().optional(),
    script: z.string().optional(),
    downscript: z.string().optional(),
    vnet_hdr: z.boolean().optional(),
  }),
  z.strictObject({
    type: z.literal("stream"),
    id,
    ...limits,
    addr: socketAddress,
    server: z.boolean().optional(),
    "reconnect-ms": z.int().min(0).optional(),
  }),
  z.strictObject({
    type: z.literal("dgram"),
    id,
    ...limits,
    local: socketAddress.optional(),
    remote: socketAddress.optional(),
  }),
  z.strictObject({ type: z.literal("user"), id, ...limits }),
]);

/** `netdev_add` */
export const netdevAdd = { args: netdev };

/** `netdev_del` */
export const netdevDel = { args: z.strictObject({ id: z.string() }) };
