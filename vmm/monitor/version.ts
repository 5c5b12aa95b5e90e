/**
 * Who answers on a monitor, and which version of QEMU's protocol it speaks.
 *
 * @module
 */

/** Denovo's version. */
export const denovoVersion = "0.1.0";

/**
 * The QEMU version whose commands and behaviour are modelled. Clients (libvirt, qemu.qmp) decide by
 * it which commands and arguments they may use, so it must be QEMU's number, not Denovo's.
 */
export const qemuVersion = { micro: 3, minor: 1, major: 11 } as const;

/** The `package` member of the version: the place where a distributor of QEMU puts its own name. */
export const packageName = `denovo-${denovoVersion}`;
