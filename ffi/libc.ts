/**
 * The C library: every function that Denovo calls, in one typed table.
 *
 * Addresses and lengths travel as `usize`, byte buffers as `buffer`. What is hot takes 64 bits as BigInt
 * only: V8's optimized calls know nothing else, and where they meet a number they are thrown away and
 * compiled again, for ever. Counts that stay below 2 GiB come back as `i32`, because 64-bit results
 * would be BigInt on every call.
 *
 * @module
 */
import { encodeText } from "./text.ts";

const table = {
  // int open(const char *path, int flags, mode_t mode)
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  // int close(int fd)
  close: { parameters: ["i32"], result: "i32" },
  // int unlink(const char *path)
  unlink: { parameters: ["buffer"], result: "i32" },
  // int symlink(const char *target, const char *path)
  symlink: { parameters: ["buffer", "buffer"], result: "i32" },
  // ssize_t read(int fd, void *buf, size_t count)
  read: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  // ssize_t write(int fd, const void *buf, size_t count)
  write: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  // ssize_t pread(int fd, void *buf, size_t count, off_t offset), into a buffer and to an address
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "i32" },
  pread_at: { name: "pread", parameters: ["i32", "usize", "usize", "i64"], result: "i32" },
  // ssize_t pwrite(int fd, const void *buf, size_t count, off_t offset)
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "i32" },
  pwrite_at: { name: "pwrite", parameters: ["i32", "usize", "usize", "i64"], result: "i32" },
  // ssize_t readv(int fd, const struct iovec *iov, int count), and from an offset
  readv: { parameters: ["i32", "usize", "i32"], result: "i32" },
  preadv: { parameters: ["i32", "usize", "i32", "i64"], result: "i32" },
  // ssize_t writev(int fd, const struct iovec *iov, int count), and to an offset
  writev: { parameters: ["i32", "usize", "i32"], result: "i32" },
  pwritev: { parameters: ["i32", "usize", "i32", "i64"], result: "i32" },
  // off_t lseek(int fd, off_t offset, int whence)
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  // int ftruncate(int fd, off_t length)
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  // int fallocate(int fd, int mode, off_t offset, off_t len)
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  // int fdatasync(int fd)
  fdatasync: { parameters: ["i32"], result: "i32" },
  // int fstat(int fd, struct stat *st)
  fstat: { parameters: ["i32", "buffer"], result: "i32" },
  // int fstatfs(int fd, struct statfs *buf)
  fstatfs: { parameters: ["i32", "buffer"], result: "i32" },
  // int fcntl(int fd, int cmd, int arg)
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // the same with a struct
  fcntl_buffer: { name: "fcntl", parameters: ["i32", "i32", "buffer"], result: "i32" },
  // int dup3(int from, int to, int flags)
  dup3: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int pipe2(int fds[2], int flags)
  pipe2: { parameters: ["buffer", "i32"], result: "i32" },
  // int poll(struct pollfd *fds, nfds_t n, int timeout_ms)
  poll: { parameters: ["buffer", "usize", "i32"], result: "i32" },

  // int ioctl(int fd, unsigned long request, ...), by kind of argument
  ioctl: { parameters: ["i32", "u32", "usize"], result: "i32" },
  ioctl_buffer: { name: "ioctl", parameters: ["i32", "u32", "buffer"], result: "i32" },

  // void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
  mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "usize" },
  // int munmap(void *addr, size_t len)
  munmap: { parameters: ["usize", "usize"], result: "i32" },
  // int mprotect(void *addr, size_t len, int prot)
  mprotect: { parameters: ["usize", "usize", "i32"], result: "i32" },
  // int madvise(void *addr, size_t len, int advice)
  madvise: { parameters: ["usize", "usize", "i32"], result: "i32" },
  // ssize_t process_vm_readv(pid_t pid, const struct iovec *local, unsigned long locals,
  //                          const struct iovec *remote, unsigned long remotes, unsigned long flags)
  process_vm_readv: {
    parameters: ["i32", "usize", "usize", "usize", "usize", "usize"],
    result: "i32",
  },
  // the same for process_vm_writev
  process_vm_writev: {
    parameters: ["i32", "usize", "usize", "usize", "usize", "usize"],
    result: "i32",
  },
  // int memcmp(const void *a, const void *b, size_t n)
  memcmp: { parameters: ["usize", "usize", "usize"], result: "i32" },
  // void *bsearch(const void *key, const void *base, size_t n, size_t size, int (*compare)(...)):
  // the result is not used
  bsearch: { parameters: ["buffer", "usize", "usize", "usize", "usize"], result: "void" },
  // int memfd_create(const char *name, unsigned flags)
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },

  // int eventfd(unsigned count, int flags)
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  // int timerfd_create(int clock, int flags)
  timerfd_create: { parameters: ["i32", "i32"], result: "i32" },
  // int timerfd_settime(int fd, int flags, const struct itimerspec *new, struct itimerspec *old)
  timerfd_settime: { parameters: ["i32", "i32", "buffer", "usize"], result: "i32" },
  // int epoll_create1(int flags)
  epoll_create1: { parameters: ["i32"], result: "i32" },
  // int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  // int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout_ms)
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  epoll_wait_async: {
    name: "epoll_wait",
    parameters: ["i32", "buffer", "i32", "i32"],
    result: "i32",
    nonblocking: true,
  },

  // int malloc_trim(size_t pad)
  malloc_trim_async: {
    name: "malloc_trim",
    parameters: ["usize"],
    result: "i32",
    nonblocking: true,
  },

  // int socket(int domain, int type, int protocol)
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int socketpair(int domain, int type, int protocol, int fds[2])
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  // int bind(int fd, const struct sockaddr *addr, socklen_t len)
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  // int listen(int fd, int backlog)
  listen: { parameters: ["i32", "i32"], result: "i32" },
  // int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
  accept4: { parameters: ["i32", "usize", "usize", "i32"], result: "i32" },
  // int connect(int fd, const struct sockaddr *addr, socklen_t len)
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  // int shutdown(int fd, int how)
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  // int getsockname(int fd, struct sockaddr *addr, socklen_t *len)
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // int getpeername(int fd, struct sockaddr *addr, socklen_t *len)
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // int inet_pton(int family, const char *text, void *addr)
  inet_pton: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // const char *inet_ntop(int family, const void *addr, char *text, socklen_t size)
  inet_ntop: { parameters: ["i32", "buffer", "buffer", "u32"], result: "pointer" },
  // int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  // int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  // ssize_t send(int fd, const void *buf, size_t count, int flags)
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  // ssize_t recv(int fd, void *buf, size_t count, int flags)
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  // ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  // recv() and sendmsg() for each frame of a network, by address
  recv_at: { name: "recv", parameters: ["i32", "usize", "usize", "i32"], result: "i32" },
  sendmsg_at: { name: "sendmsg", parameters: ["i32", "usize", "i32"], result: "i32" },
  // ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },

  // int clock_gettime(clockid_t clock, struct timespec *ts)
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
  // int getrusage(int who, struct rusage *usage)
  getrusage: { parameters: ["i32", "buffer"], result: "i32" },
  // int sched_getaffinity(pid_t tid, size_t size, cpu_set_t *set)
  sched_getaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  // int sched_setaffinity(pid_t tid, size_t size, const cpu_set_t *set)
  sched_setaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  // pid_t gettid(void)
  gettid: { parameters: [], result: "i32" },
  // pid_t getpid(void)
  getpid: { parameters: [], result: "i32" },
  // int tgkill(pid_t tgid, pid_t tid, int signal)
  tgkill: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int kill(pid_t pid, int signal)
  kill: { parameters: ["i32", "i32"], result: "i32" },
  // int sigaction(int signal, const struct sigaction *act, struct sigaction *old)
  sigaction: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  // int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
  pthread_sigmask: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  // int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
  prctl: { parameters: ["i32", "usize", "usize", "usize", "usize"], result: "i32" },
  // int execve(const char *path, char *const argv[], char *const envp[])
  execve: { parameters: ["buffer", "buffer", "buffer"], result: "i32" },
  // long syscall(long number, long a, long b), for pidfd_open and io_uring_setup
  syscall2: { name: "syscall", parameters: ["isize", "isize", "isize"], result: "i32" },
  // int io_uring_enter(unsigned fd, unsigned to_submit, unsigned min_complete, unsigned flags,
  //                    const void *arg, size_t size), for which the C library has no function
  io_uring_enter: {
    name: "syscall",
    parameters: ["isize", "i32", "u32", "u32", "u32", "usize", "usize"],
    result: "i32",
  },
  // the same for futex: long syscall(SYS_futex, uint32_t *word, int op, uint32_t value,
  //                                  const struct timespec *timeout)
  futex: { name: "syscall", parameters: ["isize", "usize", "i32", "u32", "buffer"], result: "i32" },
  // int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
  waitid: { parameters: ["i32", "u32", "buffer", "i32"], result: "i32" },
  // int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
  //                 const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
  posix_spawn: {
    parameters: ["buffer", "buffer", "buffer", "buffer", "buffer", "buffer"],
    result: "i32",
  },
  posix_spawn_file_actions_init: { parameters: ["buffer"], result: "i32" },
  posix_spawn_file_actions_destroy: { parameters: ["buffer"], result: "i32" },
  posix_spawn_file_actions_adddup2: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  // int posix_spawn_file_actions_addchdir_np(posix_spawn_file_actions_t *actions, const char *path)
  posix_spawn_file_actions_addchdir_np: { parameters: ["buffer", "buffer"], result: "i32" },
  posix_spawnattr_init: { parameters: ["buffer"], result: "i32" },
  posix_spawnattr_setflags: { parameters: ["buffer", "i32"], result: "i32" },
  posix_spawnattr_destroy: { parameters: ["buffer"], result: "i32" },

  // int tcgetattr(int fd, struct termios *t); int tcsetattr(int fd, int when, struct termios *t)
  tcgetattr: { parameters: ["i32", "buffer"], result: "i32" },
  tcsetattr: { parameters: ["i32", "i32", "buffer"], result: "i32" },
  // pid_t tcgetpgrp(int fd); pid_t getpgrp(void)
  tcgetpgrp: { parameters: ["i32"], result: "i32" },
  getpgrp: { parameters: [], result: "i32" },
  // int tcsendbreak(int fd, int duration)
  tcsendbreak: { parameters: ["i32", "i32"], result: "i32" },
  // int isatty(int fd)
  isatty: { parameters: ["i32"], result: "i32" },
  // int posix_openpt(int flags); int grantpt(int fd); int unlockpt(int fd)
  posix_openpt: { parameters: ["i32"], result: "i32" },
  grantpt: { parameters: ["i32"], result: "i32" },
  unlockpt: { parameters: ["i32"], result: "i32" },
  // int ptsname_r(int fd, char *buf, size_t len)
  ptsname_r: { parameters: ["i32", "buffer", "usize"], result: "i32" },

  // int *__errno_location(void)
  __errno_location: { parameters: [], result: "pointer" },
  // char *strerror(int errnum)
  strerror: { parameters: ["i32"], result: "pointer" },
  // const char *strerrorname_np(int errnum)
  strerrorname_np: { parameters: ["i32"], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

type Symbols = Deno.DynamicLibrary<typeof table>["symbols"];

/** Parameters as the runtime takes them: 64-bit integers as BigInt or as a safe number. */
type Loose<A extends readonly unknown[]> = {
  [I in keyof A]: A[I] extends bigint ? bigint | number : A[I];
};

/**
 * What is called in the vCPU loop, within the pause, for each page of RAM, request or event. The
 * runtime compiles a trampoline for such a function, which takes most of a millisecond, and then calls
 * it in a fraction of a microsecond; all others are called by their address, which takes two.
 */
const hot = [
  "read",
  "write",
  "readv",
  "preadv",
  "writev",
  "pwritev",
  "io_uring_enter",
  "process_vm_readv",
  "process_vm_writev",
  "recv_at",
  "sendmsg_at",
  "poll",
  "ioctl",
  "ioctl_buffer",
  "epoll_wait",
  "epoll_wait_async",
  "clock_gettime",
  "getrusage",
  "bsearch",
  "tgkill",
] as const satisfies readonly (keyof Symbols)[];

const isHot: ReadonlySet<keyof Symbols> = new Set(hot);

/** The functions of {@linkcode libc}. */
export type Libc = {
  readonly [K in keyof Symbols]: K extends (typeof hot)[number] ? Symbols[K]
    : Symbols[K] extends (...args: infer A) => infer R ? (...args: Loose<A>) => R
    : never;
};

let dlsym: ((handle: null, name: Uint8Array<ArrayBuffer>) => Deno.PointerValue) | undefined;

/** The address of a function of the C library. @throws {TypeError} if it has no such function */
function symbolAddress(name: string): Deno.PointerObject {
  // void *dlsym(void *handle, const char *symbol); NULL is RTLD_DEFAULT
  const parameters = ["pointer", "buffer"] as const;
  dlsym ??= Deno.dlopen("libc.so.6", { dlsym: { parameters, result: "pointer" } }).symbols.dlsym;
  const address = dlsym(null, cstring(name));
  if (address === null) throw new TypeError(`No symbol ${name}`);
  return address;
}

function open<K extends keyof Symbols>(name: K): unknown {
  try {
    if (isHot.has(name)) return Deno.dlopen("libc.so.6", { [name]: table[name] }).symbols[name];
    const definition: Deno.ForeignFunction & { readonly name?: string } = table[name];
    const address = symbolAddress(definition.name ?? name) as Deno.PointerObject<typeof definition>;
    const pointer = new Deno.UnsafeFnPointer(address, definition);
    return pointer.call.bind(pointer);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    throw new Error(
      `Cannot load ${name} from libc.so.6: Denovo needs Linux with glibc 2.35 or newer`,
      {
        cause,
      },
    );
  }
}

/** Each function is loaded when it is first used: a vCPU thread needs only a handful of them. */
function lazily(): Libc {
  const functions = {};
  for (const name of Object.keys(table) as (keyof Symbols)[]) {
    Object.defineProperty(functions, name, {
      configurable: true,
      enumerable: true,
      get() {
        const value = open(name);
        Object.defineProperty(functions, name, { value, enumerable: true });
        return value;
      },
    });
  }
  return functions as Libc;
}

/** The functions; where a call is hot, take it out of here into a constant first. */
export const libc: Libc = lazily();

/**
 * A C string: the text's bytes and a final NUL.
 *
 * @throws {TypeError} if the text holds a NUL itself
 */
export function cstring(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) throw new TypeError(`String ${JSON.stringify(text)} holds a NUL byte`);
  return encodeText(text + "\0");
}
