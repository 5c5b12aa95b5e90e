/**
 * A TCP connection of the guest's to the other end of its network: numbered blocks go there and come
 * back, and each end compares every byte.
 *
 * @module
 */

/** Where the two ends are. */
export const addresses = { guest: "10.88.0.2", server: "10.88.0.1", port: 7000 } as const;

/** How often a block's number is repeated in it. */
const TIMES = 512;
const DIGITS = 8;
/** Bytes of a block. */
export const BLOCK_SIZE = DIGITS * TIMES;
/** Of so many blocks, either end tells of one. */
export const TOLD_EVERY = 16;
/** Blocks under way at most; less than the buffers of a connection hold. */
const WINDOW = 8;

/** A block: the first has the number 1. */
export function block(number: number): string {
  return String(number).padStart(DIGITS, "0").repeat(TIMES);
}

/** Where the guest tells how many blocks have come back. */
export const STREAM_COUNT = "/run/stream";

/** The guest's end, in Perl: until it is told to end, and then what is under way. */
export const CLIENT = `#!/usr/bin/perl
use IO::Socket::INET;
my ($socket, $stop);
my ($sent, $back) = (0, 0);
$SIG{TERM} = sub { $stop = 1 };
sub block { sprintf("%0${DIGITS}d", shift) x ${TIMES} }
sub count {
  open(my $file, ">", "${STREAM_COUNT}") or die $!;
  print $file "@_\\n";
}
until ($socket = IO::Socket::INET->new("${addresses.server}:${addresses.port}")) { sleep 1 }
until ($stop && $back == $sent) {
  if (!$stop && $sent - $back < ${WINDOW}) {
    print $socket block(++$sent) or die "block $sent: $!";
    next;
  }
  my $n = read($socket, my $data, ${BLOCK_SIZE});
  die "block " . ($back + 1) . ": $!" unless defined $n;
  die "block " . ($back + 1) . " is another" unless $data eq block(++$back);
  count($back) unless $back % ${TOLD_EVERY};
}
count($back);
`;
