/*
 * A socket device: takes every connection, sends everything back that comes by it, and closes when the other end
 * does. Says when connections have ended by themselves. Counts packets with data. `isa`, `one-ioapic`: see virtio.h.
 */
#include "virtio.h"

enum { RX = 0, TX = 1, EVENT = 2 };
enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };
enum { TRANSPORT_RESET = 0 };

#define BUFFERS 32
#define ROOM 4096
#define RING 128
/* How much the other end may send before it hears more. */
#define CREDIT (1 << 20)

struct packet {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
	uint8_t data[ROOM - 44];
} __attribute__((packed));

static struct device dev;
static struct queue rx, tx, events;
static struct packet packets[BUFFERS] __attribute__((aligned(64)));
static uint32_t event;
/* Which packet a request has, by its id. */
static unsigned receiving[MAX_SIZE], sending[MAX_SIZE];
/* How much has come by the connection: there is one at a time. */
static uint32_t received;

static void give(unsigned packet)
{
	struct buffer one = { &packets[packet], ROOM, 1 };
	receiving[add_request(&rx, &one, 1, 0)] = packet;
}

static void give_event(void)
{
	struct buffer one = { &event, sizeof event, 1 };
	event = ~0u;
	add_request(&events, &one, 1, 0);
	kick(&events);
}

/* Answers a packet in its own memory. */
static void answer(unsigned packet, uint16_t op)
{
	struct packet *p = &packets[packet];
	uint64_t cid = p->src_cid;
	uint32_t port = p->src_port;
	p->src_cid = p->dst_cid;
	p->dst_cid = cid;
	p->src_port = p->dst_port;
	p->dst_port = port;
	p->op = op;
	p->flags = 0;
	p->buf_alloc = CREDIT;
	p->fwd_cnt = received;
	if (op != RW)
		p->len = 0;
	struct buffer one = { p, 44 + p->len, 0 };
	sending[add_request(&tx, &one, 1, 0)] = packet;
	kick(&tx);
}

static void receive(unsigned packet)
{
	struct packet *p = &packets[packet];
	switch (p->op) {
	case REQUEST:
		received = 0;
		answer(packet, RESPONSE);
		break;
	case RW:
		received += p->len;
		COUNTER++;
		answer(packet, RW);
		break;
	case SHUTDOWN:
		answer(packet, RST);
		break;
	case CREDIT_REQUEST:
		answer(packet, CREDIT_UPDATE);
		break;
	default:
		give(packet);
		kick(&rx);
	}
}

static int work(void)
{
	uint32_t written;
	unsigned id;
	int done = 0;
	while ((id = take_request(&tx, &written)) != NO_ID) {
		give(sending[id]);
		kick(&rx);
		done = 1;
	}
	while ((id = take_request(&rx, &written)) != NO_ID) {
		receive(receiving[id]);
		done = 1;
	}
	while ((id = take_request(&events, &written)) != NO_ID) {
		if (written != sizeof event || event != TRANSPORT_RESET)
			fail("there is no such event", event, TRANSPORT_RESET);
		print("connections have ended\n");
		give_event();
		done = 1;
	}
	return done;
}

void guest_main(void *start_info)
{
	find_device(&dev, 19, 0, transports_of(start_info));
	start_device(&dev, 1ull << F_EVENT_IDX | 1ull << F_INDIRECT);
	set_up_queue(&dev, &rx, RX, RING);
	set_up_queue(&dev, &tx, TX, RING);
	set_up_queue(&dev, &events, EVENT, RING);
	for (unsigned packet = 0; packet < BUFFERS; packet++)
		give(packet);
	driver_ok(&dev);
	kick(&rx);
	give_event();
	print("vsock ");
	print_number(get_register(&dev, CONFIG));
	print("\n");
	for (;;) {
		dev.causes = 0;
		if (work())
			continue;
		arm_queue(&rx);
		arm_queue(&tx);
		arm_queue(&events);
		if (!work())
			await_cause(&dev, USED_BUFFER);
	}
}
