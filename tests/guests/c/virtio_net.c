/*
 * A network card: every frame of our kind comes back to who sent it. Frames carry numbers, each one more than the
 * last: none may be lost, come twice or in another order, and what follows the number must fit it.
 * Counts frames. `isa`, `one-ioapic`: interrupts of such a machine. `merge`: small receive buffers, several of
 * which a frame takes. `mq`: two pairs of queues, and frames of UDP over IPv4, which carry numbers of their own for
 * each source port; prints `pair N` when the first one comes by a pair.
 */
#include "virtio.h"

enum { MAC = 5, MRG_RXBUF = 15, CTRL_VQ = 17, MQ = 22 };
/* VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET (5.1.6.5.5). */
enum { CTRL_MQ = 4, PAIRS_SET = 0 };

#define HEADER 12
#define ETHERNET 14
#define BUFFERS 64
#define LARGE 2048
#define SMALL 400
#define RING 256
#define MAX_PAIRS 2
#define FLOWS 64
/* Headers of IPv4 and UDP. */
#define DATAGRAM 28

struct frame {
	unsigned count;
	unsigned buffer[MAX_BUFFERS];
	uint32_t length[MAX_BUFFERS];
};

struct pair {
	struct queue rx, tx;
	uint8_t memory[BUFFERS][LARGE];
	/* Which buffer a request for a frame has; which frame one that sends has; by its id. */
	unsigned receiving[MAX_SIZE];
	struct frame sending[MAX_SIZE];
	int in_use;
};

static struct device dev;
static struct queue control;
static struct pair pairs[MAX_PAIRS];
static unsigned pair_count;
static unsigned room;
/* Bytes of a frame before its number, and what comes next in each flow. */
static unsigned head;
static uint32_t expected[FLOWS];
static int begun[FLOWS];

static void give(struct pair *p, unsigned buffer)
{
	struct buffer one = { p->memory[buffer], room, 1 };
	memset(p->memory[buffer], 0xee, room);
	unsigned id = add_request(&p->rx, &one, 1, 0);
	if (id == NO_ID)
		fail("there is no room for a buffer", buffer, 0);
	p->receiving[id] = buffer;
}

static uint8_t byte_of(const struct pair *p, const struct frame *f, unsigned at)
{
	unsigned i = 0;
	for (; at >= f->length[i]; i++)
		at -= f->length[i];
	return p->memory[f->buffer[i]][at];
}

static void check(const struct pair *p, const struct frame *f, uint32_t length)
{
	uint32_t number = 0;
	unsigned flow = 0;
	if (length < HEADER + head + 4)
		fail("a frame is too short", length, HEADER + head + 4);
	if (pair_count > 1)
		flow = byte_of(p, f, HEADER + ETHERNET + 21) % FLOWS;
	for (unsigned i = 0; i < 4; i++)
		number |= (uint32_t)byte_of(p, f, HEADER + head + i) << 8 * i;
	if (begun[flow] && number != expected[flow])
		fail("a frame has another number", number, expected[flow]);
	begun[flow] = 1;
	expected[flow] = number + 1;
	for (unsigned at = HEADER + head + 4; at < length; at++)
		if (byte_of(p, f, at) != (uint8_t)(number + at - HEADER))
			fail("a frame has other bytes", byte_of(p, f, at), (uint8_t)(number + at - HEADER));
}

static void send_back(struct pair *p, struct frame *f)
{
	struct buffer parts[MAX_BUFFERS];
	memset(p->memory[f->buffer[0]], 0, HEADER);
	for (unsigned i = 0; i < f->count; i++)
		parts[i] = (struct buffer){ p->memory[f->buffer[i]], f->length[i], 0 };
	unsigned id = add_request(&p->tx, parts, f->count, f->count > 1);
	if (id == NO_ID)
		fail("there is no room to send", p->tx.free, f->count);
	p->sending[id] = *f;
	kick(&p->tx);
}

/* What was sent makes room for what comes. */
static void take_sent(struct pair *p)
{
	uint32_t written;
	unsigned id;
	while ((id = take_request(&p->tx, &written)) != NO_ID) {
		if (!p->sending[id].count)
			fail("a frame was sent twice", id, 0);
		for (unsigned i = 0; i < p->sending[id].count; i++)
			give(p, p->sending[id].buffer[i]);
		p->sending[id].count = 0;
		kick(&p->rx);
	}
}

/* A host has frames of its own to say. */
static int is_ours(const struct pair *p, const struct frame *f, uint32_t length)
{
	unsigned at = HEADER + (pair_count > 1 ? ETHERNET + 22 : 12);
	return length > at + 1 && byte_of(p, f, at) == 0x88 && byte_of(p, f, at + 1) == 0xb5;
}

static void receive(struct pair *p, unsigned id, uint32_t written)
{
	struct frame f = { 0 };
	uint32_t length = written;
	const uint8_t *header = p->memory[p->receiving[id]];
	unsigned count = header[10] | header[11] << 8;
	if (count < 1 || count > MAX_BUFFERS || (count > 1 && room == LARGE))
		fail("a frame takes so many buffers", count, 1);
	for (;;) {
		f.buffer[f.count] = p->receiving[id];
		f.length[f.count++] = written;
		if (f.count == count)
			break;
		if (written != room)
			fail("a buffer is not full", written, room);
		id = take_request(&p->rx, &written);
		if (id == NO_ID)
			fail("the rest of a frame is not there", f.count, count);
		length += written;
	}
	if (!is_ours(p, &f, length)) {
		for (unsigned i = 0; i < f.count; i++)
			give(p, f.buffer[i]);
		kick(&p->rx);
		return;
	}
	check(p, &f, length);
	if (pair_count > 1 && !p->in_use) {
		p->in_use = 1;
		print("pair ");
		print_number(p - pairs);
		print("\n");
	}
	send_back(p, &f);
	COUNTER++;
}

/* Takes a frame that has come by any pair, after waiting for an interrupt where need be. */
static struct pair *await_frame(unsigned *id, uint32_t *written)
{
	static unsigned turn;
	for (;;) {
		cli();
		for (unsigned i = 0; i < pair_count; i++) {
			struct pair *p = &pairs[++turn % pair_count];
			arm_queue(&p->rx);
			*id = take_request(&p->rx, written);
			if (*id != NO_ID) {
				sti();
				return p;
			}
			/* What has gone may be the room that the next frame waits for. */
			arm_queue(&p->tx);
			take_sent(p);
		}
		sleep_for_interrupt();
	}
}

/* Tells the device how many pairs are used. */
static void use_pairs(void)
{
	static uint8_t command[4], answer;
	const struct buffer parts[] = { { command, 2, 0 }, { command + 2, 2, 0 }, { &answer, 1, 1 } };
	uint32_t written;
	command[0] = CTRL_MQ;
	command[1] = PAIRS_SET;
	command[2] = MAX_PAIRS;
	answer = 0xee;
	if (add_request(&control, parts, 3, 0) == NO_ID)
		fail("no room for a command", 0, 0);
	kick(&control);
	await_request(&control, &written);
	if (answer)
		fail("pairs are refused", answer, 0);
}

void guest_main(void *start_info)
{
	int merge = has_word(start_info, "merge");
	int mq = has_word(start_info, "mq");
	room = merge ? SMALL : LARGE;
	pair_count = mq ? MAX_PAIRS : 1;
	head = ETHERNET + (mq ? DATAGRAM : 0);
	find_device(&dev, 1, 0, transports_of(start_info));
	start_device(&dev, 1ull << MAC | (merge ? 1ull << MRG_RXBUF : 0) |
				   (mq ? 1ull << MQ | 1ull << CTRL_VQ : 0) | 1ull << F_INDIRECT |
				   1ull << F_EVENT_IDX | 1ull << F_PACKED);
	for (unsigned i = 0; i < pair_count; i++) {
		set_up_queue(&dev, &pairs[i].rx, 2 * i, RING);
		set_up_queue(&dev, &pairs[i].tx, 2 * i + 1, RING);
	}
	if (mq)
		set_up_queue(&dev, &control, 2 * (get_register(&dev, CONFIG + 8) & 0xffff), 64);
	for (unsigned i = 0; i < pair_count; i++)
		for (unsigned buffer = 0; buffer < BUFFERS; buffer++)
			give(&pairs[i], buffer);
	driver_ok(&dev);
	for (unsigned i = 0; i < pair_count; i++)
		kick(&pairs[i].rx);
	if (mq)
		use_pairs();
	print("net ");
	for (unsigned i = 0; i < 6; i++)
		print_hex(get_register(&dev, CONFIG + i) & 0xff);
	print(" at irq ");
	print_number(dev.irq);
	print("\n");
	for (;;) {
		uint32_t written;
		unsigned id;
		struct pair *p = await_frame(&id, &written);
		receive(p, id, written);
		take_sent(p);
	}
}
