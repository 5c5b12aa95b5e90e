// What comes from outside between two instructions: interrupts, NMIs, a request to leave `run`.
import { CURRENT_OP } from "./derived";
import { debuggerSteps, raiseDebug, SHADOW_SS } from "./debug";
import { deliverException, deliverInterrupt } from "./interrupt";
import { VECTOR_DB, VECTOR_NMI, VECTOR_PF } from "./fault";
import {
  ATTENTION, ATTENTION_INTERRUPT, ATTENTION_KICK, ATTENTION_NMI, ATTENTION_STATE, CR2, DEBUG_PENDING,
  EXCEPTION_ERROR_CODE, EXCEPTION_HAS_ERROR_CODE, EXCEPTION_HAS_PAYLOAD, EXCEPTION_INJECTED,
  EXCEPTION_PAYLOAD, EXCEPTION_PENDING, EXCEPTION_VECTOR, INTERRUPT_INJECTED, INTERRUPT_SHADOW,
  INTERRUPT_VECTOR, MP_STATE, NMI_INJECTED, NMI_MASKED, NMI_PENDING, SIPI_VECTOR, STOP_ATTENTION, STOP_BUDGET,
  STOP_HALT, STOP_SHUTDOWN, TRIPLE_FAULT_PENDING,
} from "./layout";
import { modeChanged } from "./memory";
import { FLAG_IF, readFlags } from "./registers";
import { startUp } from "./reset";

@external("env", "interruptVector")
declare function interruptVector(): i32;

// KVM_MP_STATE_*
const RUNNABLE: u32 = 0;
const INIT_RECEIVED: u32 = 2;
const HALTED: u32 = 3;
const SIPI_RECEIVED: u32 = 4;

/**
 * Does what `attention` asks for, between two instructions; rip is the next one's.
 *
 * @returns STOP_BUDGET to go on at rip, else what `run` returns
 */
export function serviceAttention(): u32 {
  store<u32>(CURRENT_OP, 0);
  const attention = atomic.load<u32>(ATTENTION);
  if (attention & ATTENTION_STATE) {
    const stop = serviceState();
    if (stop != STOP_BUDGET) return stop;
  }
  if (attention & ATTENTION_KICK) return STOP_ATTENTION;
  // A trap comes before interrupts (SDM volume 3, table 6-2).
  const shadow = load<u32>(INTERRUPT_SHADOW);
  if (load<u64>(DEBUG_PENDING) && !(shadow & SHADOW_SS)) raiseDebug(load<u64>(DEBUG_PENDING));
  // A debugger's step does not end in a handler; but a halted CPU waits for nothing else.
  const held = debuggerSteps() && load<u32>(MP_STATE) == RUNNABLE;
  if (attention & ATTENTION_NMI && !shadow && !held) serviceNmi();
  if (attention & ATTENTION_INTERRUPT && !load<u32>(INTERRUPT_SHADOW) && !held) serviceInterrupt();
  return load<u32>(MP_STATE) == RUNNABLE ? STOP_BUDGET : STOP_HALT;
}

/** Events that were on their way when the state was saved, and what keeps the CPU from running. */
function serviceState(): u32 {
  if (load<u32>(TRIPLE_FAULT_PENDING)) {
    store<u32>(TRIPLE_FAULT_PENDING, 0);
    return STOP_SHUTDOWN;
  }
  if (load<u32>(MP_STATE) == SIPI_RECEIVED) {
    store<u32>(MP_STATE, INIT_RECEIVED);
    startUp(load<u32>(SIPI_VECTOR));
  }
  const state = load<u32>(MP_STATE);
  // Waiting for INIT or SIPI, which the host brings.
  if (state != RUNNABLE && state != HALTED) return STOP_HALT;
  if (load<u32>(EXCEPTION_INJECTED) || load<u32>(EXCEPTION_PENDING)) serviceException();
  if (load<u32>(NMI_INJECTED)) {
    store<u32>(NMI_INJECTED, 0);
    deliverInterrupt(VECTOR_NMI);
  }
  if (load<u32>(INTERRUPT_INJECTED)) {
    store<u32>(INTERRUPT_INJECTED, 0);
    deliverInterrupt(load<u32>(INTERRUPT_VECTOR));
  }
  if (state == RUNNABLE) atomic.and<u32>(ATTENTION, ~ATTENTION_STATE);
  return STOP_BUDGET;
}

function serviceException(): void {
  const vector = load<u32>(EXCEPTION_VECTOR);
  const payload = load<u64>(EXCEPTION_PAYLOAD);
  const hasPayload = load<u32>(EXCEPTION_HAS_PAYLOAD) != 0;
  store<u32>(EXCEPTION_INJECTED, 0);
  store<u32>(EXCEPTION_PENDING, 0);
  store<u32>(EXCEPTION_HAS_PAYLOAD, 0);
  if (hasPayload && vector == VECTOR_PF) store<u64>(CR2, payload);
  if (hasPayload && vector == VECTOR_DB) raiseDebug(payload);
  deliverException(vector, load<u32>(EXCEPTION_HAS_ERROR_CODE) != 0, load<u32>(EXCEPTION_ERROR_CODE));
}

function serviceNmi(): void {
  atomic.and<u32>(ATTENTION, ~ATTENTION_NMI);
  if (!load<u32>(NMI_PENDING)) return;
  if (load<u32>(NMI_MASKED)) {
    // Another stays pending; IRET lets it come.
    atomic.or<u32>(ATTENTION, ATTENTION_NMI);
    return;
  }
  atomic.sub<u32>(NMI_PENDING, 1);
  if (load<u32>(NMI_PENDING)) atomic.or<u32>(ATTENTION, ATTENTION_NMI);
  wake();
  store<u32>(NMI_MASKED, 1);
  deliverInterrupt(VECTOR_NMI);
}

function serviceInterrupt(): void {
  if (!(readFlags() & FLAG_IF)) return;
  // Before asking: what comes meanwhile sets it again.
  atomic.and<u32>(ATTENTION, ~ATTENTION_INTERRUPT);
  const vector = interruptVector();
  if (vector < 0) return;
  // There may be more.
  atomic.or<u32>(ATTENTION, ATTENTION_INTERRUPT);
  wake();
  deliverInterrupt(vector);
}

function wake(): void {
  if (load<u32>(MP_STATE) != HALTED) return;
  store<u32>(MP_STATE, RUNNABLE);
  modeChanged();
}
