/* A driver's side of virtio 1.2 over mmio and PCI: split and packed rings, indirect descriptors, event index. */
#pragma once
#include "guest.h"

/* Registers by their offsets over mmio (4.2.2); over PCI they are elsewhere (4.1.4.3). */
enum {
	DEVICE_ID = 0x008,
	DEVICE_FEATURES = 0x010,
	DEVICE_FEATURES_SEL = 0x014,
	DRIVER_FEATURES = 0x020,
	DRIVER_FEATURES_SEL = 0x024,
	QUEUE_SEL = 0x030,
	QUEUE_NUM_MAX = 0x034,
	QUEUE_NUM = 0x038,
	QUEUE_READY = 0x044,
	QUEUE_NOTIFY = 0x050,
	INTERRUPT_STATUS = 0x060,
	INTERRUPT_ACK = 0x064,
	STATUS = 0x070,
	QUEUE_DESC = 0x080,
	QUEUE_DRIVER = 0x090,
	QUEUE_DEVICE = 0x0a0,
	QUEUE_RESET = 0x0c0,
	CONFIG = 0x100,
};

enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64 };
enum { USED_BUFFER = 1, CONFIG_CHANGE = 2 };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4, AVAIL = 1 << 7, USED = 1 << 15 };
enum {
	F_INDIRECT = 28,
	F_EVENT_IDX = 29,
	F_VERSION_1 = 32,
	F_PACKED = 34,
	F_RING_RESET = 40,
};

#define MAX_SIZE 256
#define MAX_BUFFERS 8
#define NO_ID 0xffff

struct desc {
	uint64_t addr;
	uint32_t len;
	/* Split: flags, next. Packed: id, flags. */
	uint16_t a, b;
};

struct buffer {
	void *at;
	uint32_t length;
	int writable;
};

struct queue {
	struct desc desc[MAX_SIZE] __attribute__((aligned(16)));
	/* Flags, index, ring, event; or of a packed ring offset and flags. */
	uint16_t driver[MAX_SIZE + 3] __attribute__((aligned(4)));
	uint16_t device[4 * MAX_SIZE + 3] __attribute__((aligned(4)));
	struct desc tables[MAX_SIZE][MAX_BUFFERS] __attribute__((aligned(16)));
	/* Descriptors that each chain takes, by id; 0 for none. */
	uint16_t taken[MAX_SIZE];
	uint16_t next[MAX_SIZE];
	struct device *owner;
	unsigned index, size, free;
	/* Next free descriptor (split) or id (packed). */
	uint16_t free_head;
	/* Split: counters. Packed: indices and wrap counters. */
	uint16_t avail, used, avail_wrap, used_wrap;
	/* What became available since the last kick. */
	uint16_t added;
};

struct device {
	/* Of its registers over mmio; over PCI of its configuration space. */
	uintptr_t base;
	unsigned irq;
	/* Of its structures over PCI; 0 over mmio. */
	uintptr_t common, isr, notify, config;
	/* Whether it interrupts by messages. */
	unsigned messages;
	/* The capability of the port before it that has its slot; 0 without a port. */
	uintptr_t slot;
	uint64_t offered, features;
	/* Why there were interrupts; the driver clears it. */
	volatile uint32_t causes;
	volatile uint64_t interrupts;
};

/* How the machine tells of its transports: how many there are, and what interrupts they have. */
enum transports { ACPI, ACPI_ONE_IOAPIC, ISA, PCI, PCI_LINE, PCI_PORT };
/* By the words `isa`, `one-ioapic`, `pci`, `pci-line` and `pci-port` of the command line. */
enum transports transports_of(const void *start_info);

/* Reads and writes registers of 4 bytes over mmio, and of their own sizes over PCI. */
uint32_t get_register(const struct device *dev, unsigned reg);
void set_register(const struct device *dev, unsigned reg, uint32_t value);
/* Finds the function of a kind, gives it addresses and switches it on; see virtio_pci.c. */
void find_function(struct device *dev, unsigned kind, unsigned number, enum transports how);
/* Whether somebody has pressed the button of its slot; gives the device up by switching the slot off. */
int is_wanted_back(const struct device *dev);
void give_up(struct device *dev);
uint32_t get_pci_register(const struct device *dev, unsigned reg);
void set_pci_register(const struct device *dev, unsigned reg, uint32_t value);
/* Says which messages the device interrupts by: after a reset of the device, and for each queue. */
void choose_messages(struct device *dev);
void choose_queue_message(struct device *dev);

/* Finds the device of a kind; stops where there is none. `number` is its interrupt's: 0 to 3. */
void find_device(struct device *dev, unsigned kind, unsigned number, enum transports how);
/* Resets it and accepts what it offers of `wanted`. */
void start_device(struct device *dev, uint64_t wanted);
void set_up_queue(struct device *dev, struct queue *queue, unsigned index, unsigned size);
void driver_ok(struct device *dev);
int has_feature(const struct device *dev, unsigned bit);

/* Makes a request available; returns its id, or NO_ID where there is no room. */
unsigned add_request(struct queue *queue, const struct buffer *buffers, unsigned count, int indirect);
/* Tells the device, if it wants that. */
void kick(struct queue *queue);
/* Takes a request that is done; returns its id, or NO_ID. */
unsigned take_request(struct queue *queue, uint32_t *written);
/* Asks for an interrupt with the next request that is done. */
void arm_queue(struct queue *queue);
/* Takes a request that is done, after waiting for an interrupt where need be. */
unsigned await_request(struct queue *queue, uint32_t *written);
/* Sleeps until the device interrupts for a cause, and forgets the cause. */
void await_cause(struct device *dev, uint32_t cause);
