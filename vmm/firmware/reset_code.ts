/**
 * What stands in for a firmware's reset vector where a kernel is started directly.
 *
 * @module
 */
import type { BytesSegment } from "../boot/image.ts";

/**
 * Real mode's reset vector, FFFF:0000, is how old software restarts a PC, and a Linux that has found
 * hardware-reduced ACPI and no EFI. The code there pulses the processor's reset line by the keyboard
 * controller.
 */
export const resetCode: BytesSegment = {
  name: "reset vector",
  gpa: 0xffff0,
  bytes: Uint8Array.of(
    ...[0xfa], //       cli
    ...[0xb0, 0xfe], // mov $0xfe, %al
    ...[0xe6, 0x64], // out %al, $0x64
    ...[0xf4], //       hlt
    ...[0xeb, 0xfd], // jmp to hlt
  ),
};
