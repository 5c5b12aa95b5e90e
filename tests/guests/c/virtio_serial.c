/*
 * A virtio-serial device: says on COM1 what the device tells of its ports, opens the first three of them
 * and gives back on each what comes in there. Counts the buffers that came in. `single`: port 0 alone,
 * without control messages. `isa`, `one-ioapic`: see virtio.h.
 */
#include "virtio.h"

enum { DEVICE_READY, DEVICE_ADD, DEVICE_REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME };

#define F_MULTIPORT 1
#define PORTS 3
#define BUFFERS 4
#define ROOM 100
#define CONTROL_BUFFERS 4

struct message {
	uint32_t id;
	uint16_t event, value;
	char name[56];
};

static struct device dev;
static struct queue control_rx, control_tx, rx[PORTS], tx[PORTS];
static struct message incoming[CONTROL_BUFFERS];
/* Messages to the device, each until it is done. */
static struct message outgoing[8];
static uint8_t buffers[PORTS][BUFFERS][ROOM];
/* Which buffer a request has, by its id. */
static uint8_t control_of[MAX_SIZE], rx_of[PORTS][MAX_SIZE], tx_of[PORTS][MAX_SIZE];

static void receive_control(unsigned i)
{
	struct buffer b = { &incoming[i], sizeof incoming[i], 1 };
	control_of[add_request(&control_rx, &b, 1, 0)] = i;
}

static void tell(uint32_t id, uint16_t event, uint16_t value)
{
	static unsigned next;
	uint32_t written;
	struct message *m = &outgoing[next++ % 8];
	struct buffer b = { m, 8, 0 };
	*m = (struct message){ .id = id, .event = event, .value = value };
	while (take_request(&control_tx, &written) != NO_ID)
		;
	if (add_request(&control_tx, &b, 1, 0) == NO_ID)
		fail("the control queue is full", id, event);
	kick(&control_tx);
}

static void receive(unsigned port, unsigned i)
{
	struct buffer b = { buffers[port][i], ROOM, 1 };
	unsigned id = add_request(&rx[port], &b, 1, 0);
	if (id == NO_ID)
		fail("there is no room to receive", port, i);
	rx_of[port][id] = i;
}

static void open_port(unsigned port)
{
	for (unsigned i = 0; i < BUFFERS; i++)
		receive(port, i);
	kick(&rx[port]);
}

static void say(const struct message *m, const char *what)
{
	print("port ");
	print_number(m->id);
	print(what);
}

static void obey(struct message *m, uint32_t length)
{
	switch (m->event) {
	case DEVICE_ADD:
		say(m, " is there\n");
		tell(m->id, PORT_READY, 1);
		if (m->id < PORTS) {
			open_port(m->id);
			tell(m->id, PORT_OPEN, 1);
		}
		break;
	case CONSOLE_PORT:
		say(m, " is a console\n");
		break;
	case PORT_OPEN:
		say(m, m->value ? " is open\n" : " is closed\n");
		break;
	case PORT_NAME:
		m->name[length - 8] = 0;
		say(m, " is ");
		print(m->name);
		print("\n");
		break;
	default:
		fail("an event that there is not", m->event, 0);
	}
}

static int serve_control(void)
{
	uint32_t length;
	unsigned id = take_request(&control_rx, &length);
	if (id == NO_ID)
		return 0;
	obey(&incoming[control_of[id]], length);
	receive_control(control_of[id]);
	kick(&control_rx);
	return 1;
}

static int serve_port(unsigned port)
{
	uint32_t length;
	unsigned id = take_request(&tx[port], &length);
	if (id != NO_ID) {
		receive(port, tx_of[port][id]);
		kick(&rx[port]);
		return 1;
	}
	id = take_request(&rx[port], &length);
	if (id == NO_ID)
		return 0;
	unsigned i = rx_of[port][id];
	if (length == 0 || length > ROOM)
		fail("a buffer came with another length", length, ROOM);
	struct buffer b = { buffers[port][i], length, 0 };
	tx_of[port][add_request(&tx[port], &b, 1, 0)] = i;
	kick(&tx[port]);
	COUNTER++;
	return 1;
}

static int serve(void)
{
	int done = has_feature(&dev, F_MULTIPORT) ? serve_control() : 0;
	for (unsigned port = 0; port < PORTS; port++)
		if (rx[port].size)
			done |= serve_port(port);
	return done;
}

static void arm_all(void)
{
	if (has_feature(&dev, F_MULTIPORT))
		arm_queue(&control_rx);
	for (unsigned port = 0; port < PORTS; port++) {
		if (!rx[port].size)
			continue;
		arm_queue(&rx[port]);
		arm_queue(&tx[port]);
	}
}

void guest_main(void *info)
{
	int single = has_word(info, "single");
	find_device(&dev, 3, 0, transports_of(info));
	start_device(&dev, single ? ~(1ull << F_MULTIPORT) : ~0ull);
	for (unsigned port = 0; port < (single ? 1 : PORTS); port++) {
		set_up_queue(&dev, &rx[port], port ? 2 * port + 2 : 0, 8);
		set_up_queue(&dev, &tx[port], port ? 2 * port + 3 : 1, 8);
	}
	if (!single) {
		set_up_queue(&dev, &control_rx, 2, 8);
		set_up_queue(&dev, &control_tx, 3, 8);
	}
	driver_ok(&dev);
	print("serial\n");
	if (single) {
		open_port(0);
	} else {
		for (unsigned i = 0; i < CONTROL_BUFFERS; i++)
			receive_control(i);
		kick(&control_rx);
		tell(0, DEVICE_READY, 1);
	}
	for (;;) {
		arm_all();
		if (!serve())
			sleep_for_interrupt();
	}
}
