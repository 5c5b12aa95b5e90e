/**
 * The kernel's half of a socket device, as all threads see it.
 *
 * @module
 */
import { VhostVsock } from "../../ffi/vhost.ts";
import { DescriptorSlot } from "../descriptor_slot.ts";

/** As plain data, for any thread. */
export interface VsockPortDescription {
  /** The {@linkcode DescriptorSlot} of its descriptor, which is there while the guest's number is this VMM's. */
  readonly slot: SharedArrayBuffer;
  /** Feature bits that the kernel has. */
  readonly features: bigint;
  /** Eventfds: the driver wants to know of what has come, or has gone. */
  readonly calls: readonly [received: number, sent: number];
  /** What all threads share about it. */
  readonly words: SharedArrayBuffer;
}

/** On this thread. */
export interface VsockPort extends Omit<VsockPortDescription, "slot"> {
  /** Undefined while this VMM has not the guest's number. */
  readonly device: VhostVsock | undefined;
}

/** Opens it on this thread. */
export function openVsockPort({ slot, ...rest }: VsockPortDescription): VsockPort {
  const place = new DescriptorSlot(slot);
  return {
    ...rest,
    get device() {
      return place.fd === undefined ? undefined : new VhostVsock(place.fd);
    },
  };
}
