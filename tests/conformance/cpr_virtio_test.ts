/** Virtio devices over live updates: no request is lost, and none is done twice. */
import { kvmTest, Laboratory } from "./program.ts";
import {
  assertUnharmed,
  Chain,
  EchoTypist,
  endUnharmed,
  FifoConsole,
  goThrough,
  modes,
} from "./updates.ts";

for (const packed of ["off", "on"]) {
  kvmTest(`requests to the entropy device go on through each mode, packed: ${packed}`, async () => {
    await using lab = await Laboratory.open();
    const options = ["-device", `virtio-rng-device,packed=${packed}`];
    const chain = await Chain.start(lab, { guest: "virtio_rng", options });
    await lab.printed("rng at irq 47\n");
    await goThrough(chain, modes);
    await endUnharmed(chain);
  });
}

for (const packed of ["off", "on"]) {
  kvmTest(`virtio-serial ports lose no byte through each mode, packed: ${packed}`, async () => {
    await using lab = await Laboratory.open();
    using console = await FifoConsole.open(lab.path("console"));
    using agent = await FifoConsole.open(lab.path("agent"));
    const options = [
      ...["-device", `virtio-serial-device,packed=${packed}`],
      ...["-chardev", `pipe,id=console,path=${console.path}`],
      ...["-chardev", `pipe,id=agent,path=${agent.path}`],
      ...["-device", "virtconsole,chardev=console"],
      ...["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"],
    ];
    const chain = await Chain.start(lab, { guest: "virtio_serial", options });
    await lab.printed("port 1 is org.qemu.guest_agent.0\n");
    await lab.printed("port 0 is a console\n");
    using one = new EchoTypist(console);
    using other = new EchoTypist(agent);
    for (const mode of modes) {
      await one.echoes();
      await other.echoes();
      await chain.update(mode);
    }
    await one.finish();
    await other.finish();
    await assertUnharmed(chain.qmp);
  });
}
