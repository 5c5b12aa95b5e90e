/**
 * A program that is part of a relay and cannot take the guest: it becomes the one before it.
 *
 * @module
 */
import { Relay } from "../../cpr/modes/relay.ts";

Relay.fromEnvironment()!.goBack("it was Monday");
