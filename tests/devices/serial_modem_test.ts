import assert from "node:assert/strict";
import {
  bytes,
  FCR,
  FCR_ENABLE_FIFO,
  IER,
  IER_MSI,
  IER_RDI,
  IER_RLSI,
  IIR,
  IIR_FIFOS,
  IIR_MSI,
  IIR_NO_INT,
  IIR_RDI,
  IIR_RLSI,
  LCR,
  LCR_8N1,
  LCR_SBC,
  LSR,
  LSR_BI,
  LSR_DR,
  LSR_FE,
  LSR_FIFOE,
  LSR_IDLE,
  LSR_OE,
  MCR,
  MCR_DTR,
  MCR_LOOP,
  MCR_OUT1,
  MCR_OUT2,
  MCR_RTS,
  MSR,
  MSR_CTS,
  MSR_DCD,
  MSR_DCTS,
  MSR_DDCD,
  MSR_DDSR,
  MSR_DSR,
  MSR_HOST,
  MSR_LINES,
  MSR_RI,
  MSR_TERI,
  RBR,
  readAll,
  serialTest,
  THR,
} from "./serial_driver.ts";

serialTest("`MCR` loopback returns bytes and cuts the host off", (rig) => {
  rig.write(FCR, FCR_ENABLE_FIFO);
  rig.write(MCR, MCR_LOOP);
  rig.write(IER, IER_RDI);
  for (const byte of bytes("loop")) rig.write(THR, byte);
  assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RDI);
  assert.deepEqual(rig.input(bytes("host")), bytes("host"));
  rig.call((device) => device.inputBreak!());
  assert.deepEqual(readAll(rig), bytes("loop"));
  assert.deepEqual(rig.sink.sent, []);
  const accepts = rig.sink.accepts;
  rig.write(MCR, 0);
  assert.equal(rig.sink.accepts, accepts + 1);
  assert.deepEqual(rig.input(bytes("host")), []);
  assert.deepEqual(readAll(rig), bytes("host"));
});

serialTest("`MCR` loopback connects DTR, RTS, OUT1 and OUT2 to the modem inputs", (rig) => {
  for (
    const [output, input] of [[MCR_DTR, MSR_DSR], [MCR_RTS, MSR_CTS], [MCR_OUT1, MSR_RI], [
      MCR_OUT2,
      MSR_DCD,
    ]]
  ) {
    rig.write(MCR, MCR_LOOP | output);
    assert.equal(rig.read(MSR) & MSR_LINES, input);
  }
  // What Linux's autoconfig looks for.
  rig.write(MCR, MCR_RTS | MCR_OUT2 | MCR_LOOP);
  assert.equal(rig.read(MSR) & MSR_LINES, MSR_CTS | MSR_DCD);
});

serialTest("`MSR` records changes of its lines until it is read", (rig) => {
  assert.equal(rig.read(MSR), MSR_HOST);
  // The same lines as the host's: nothing changes.
  rig.write(MCR, MCR_DTR | MCR_RTS | MCR_OUT2 | MCR_LOOP);
  assert.equal(rig.read(MSR), MSR_HOST);
  // RI rises: no TERI.
  rig.write(MCR, MCR_DTR | MCR_RTS | MCR_OUT1 | MCR_OUT2 | MCR_LOOP);
  assert.equal(rig.read(MSR), MSR_HOST | MSR_RI);
  rig.write(IER, IER_MSI);
  // RI falls: TERI.
  rig.write(MCR, MCR_DTR | MCR_RTS | MCR_OUT2 | MCR_LOOP);
  assert.equal(rig.read(IIR), IIR_MSI);
  assert.equal(rig.read(MSR), MSR_HOST | MSR_TERI);
  assert.equal(rig.read(IIR), IIR_NO_INT);
  rig.write(MCR, MCR_RTS | MCR_OUT2 | MCR_LOOP);
  assert.equal(rig.read(MSR), MSR_DDSR | MSR_CTS | MSR_DCD);
  rig.write(MCR, MCR_OUT2 | MCR_LOOP);
  assert.equal(rig.read(MSR), MSR_DCTS | MSR_DCD);
  rig.write(MCR, MCR_LOOP);
  assert.equal(rig.read(MSR), MSR_DDCD);
});

serialTest("`LCR` bit 6 sends one break to the host each time it is set", (rig) => {
  rig.write(LCR, LCR_8N1 | LCR_SBC);
  rig.write(LCR, LCR_8N1 | LCR_SBC);
  assert.equal(rig.sink.breaks, 1);
  rig.write(LCR, LCR_8N1);
  rig.write(LCR, LCR_8N1 | LCR_SBC);
  assert.equal(rig.sink.breaks, 2);
});

serialTest("`LCR` bit 6 does nothing in loopback, where SOUT is cut off", (rig) => {
  rig.write(MCR, MCR_LOOP);
  rig.write(LCR, LCR_8N1 | LCR_SBC);
  assert.equal(rig.sink.breaks, 0);
  assert.equal(rig.read(LSR), LSR_IDLE);
  rig.write(THR, 0x99);
  assert.equal(rig.read(LSR), LSR_IDLE | LSR_DR);
  assert.equal(rig.read(RBR), 0x99);
});

serialTest("`inputBreak()` shows BI and FE when its zero byte is next", (rig) => {
  rig.write(FCR, FCR_ENABLE_FIFO);
  rig.write(IER, IER_RDI | IER_RLSI);
  rig.input([0x41]);
  rig.call((device) => device.inputBreak!());
  rig.input([0x42]);
  // An error is in the FIFO, but not at its top.
  assert.equal(rig.read(LSR), LSR_IDLE | LSR_DR | LSR_FIFOE);
  assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RDI);
  assert.equal(rig.read(RBR), 0x41);
  assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RLSI);
  assert.equal(rig.read(LSR), LSR_IDLE | LSR_DR | LSR_FE | LSR_BI | LSR_FIFOE);
  assert.equal(rig.read(LSR), LSR_IDLE | LSR_DR);
  assert.equal(rig.read(RBR), 0);
  assert.equal(rig.read(LSR), LSR_IDLE | LSR_DR);
  assert.equal(rig.read(RBR), 0x42);
});

serialTest("`inputBreak()` counts as an overrun when the FIFO is full", (rig) => {
  rig.write(FCR, FCR_ENABLE_FIFO);
  rig.input(new Array(16).fill(0x41));
  rig.call((device) => device.inputBreak!());
  assert.equal(rig.read(LSR), LSR_IDLE | LSR_DR | LSR_OE);
  assert.deepEqual(readAll(rig), new Array(16).fill(0x41));
});

serialTest("interrupt line does not depend on OUT2", (rig) => {
  rig.write(IER, IER_RDI);
  rig.write(MCR, 0);
  rig.input([1]);
  assert.equal(rig.context.levels[0], true);
});
