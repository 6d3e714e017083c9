/* touch PROGRAM: touches memory in one way, and says after each phase what it cost.
 *
 * A line is "PHASE MINOR MAJOR PAGES": page faults of the phase (getrusage), and how many pages more are resident after
 * it than after the one before (Rss of /proc/self/smaps_rollup, which is counted, not estimated). Where a thing is
 * refused the line is "PHASE refused ERROR". The program works on a stack of its own and at fixed addresses, so that
 * neither where the kernel puts things nor what it left on the stack counts. Source: getrusage(2), proc(5).
 */
#include "calls.h"

enum {
    SYS_open = 2, SYS_lseek = 8, SYS_mprotect = 10, SYS_madvise = 28, SYS_unlink = 87,
    SYS_getrusage = 98
};
enum { PROT_NONE = 0, PROT_READ = 1, PROT_WRITE = 2 };
enum { MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_FIXED = 0x10, MAP_ANONYMOUS = 0x20 };
enum { MADV_DONTNEED = 4 };
enum { PAGE = 4096, PLACE = 0x10000000, STACK_PAGES = 8 };

static char own_stack[STACK_PAGES * PAGE] __attribute__((aligned(4096)));
static char report[PAGE] __attribute__((aligned(4096)));
static long usage[18];
static long before[3], now[3];
static char *first_stack;
static const char *program;

static int same(const char *one, const char *other) {
    while (*one && *one == *other) one++, other++;
    return *one == *other;
}

/* Calls `body` with another stack. */
void call_on(void *top, void (*body)(void));
asm(".globl call_on\ncall_on:\n push %rbp\n mov %rsp, %rbp\n mov %rdi, %rsp\n call *%rsi\n mov %rbp, %rsp\n"
    " pop %rbp\n ret\n");

/* Returns the pages that are resident: the number behind "Rss:", in KiB. */
static long resident(void) {
    long fd = call3(SYS_open, (long)"/proc/self/smaps_rollup", 0, 0), size, at = 0;
    if (fd < 0) return fd;
    size = call3(SYS_read, fd, (long)report, PAGE - 1);
    call1(SYS_close, fd);
    while (at < size - 4 && !(report[at] == 'R' && report[at + 1] == 's' && report[at + 3] == ':')) at++;
    for (at += 4; at < size && report[at] == ' '; at++) continue;
    return number_of(report + at) / 4;
}

static void look(long *into) {
    into[2] = resident();
    call2(SYS_getrusage, 0, (long)usage);
    into[0] = usage[8];
    into[1] = usage[9];
}

/* Begins to count here. What counting itself needs is touched before, so that it costs nothing later. */
static void begin(void) {
    long at;
    for (at = 0; at < STACK_PAGES * PAGE - 2 * PAGE; at += PAGE) *(volatile char *)(own_stack + at) = 0;
    look(before);
    text_buffer[0] = 0;
    now[0] = 0;
    call3(SYS_write, 1, (long)text_buffer, 0);
    look(now);
    look(before);
}

static char number_text[24];

static long put_number(long at, long value) {
    long end = 23;
    unsigned long rest = value < 0 ? -(unsigned long)value : (unsigned long)value;
    number_text[end] = 0;
    do number_text[--end] = (char)('0' + rest % 10); while (rest /= 10);
    if (value < 0) number_text[--end] = '-';
    return put(put(at, " "), number_text + end);
}

/* Ends a phase: says what it cost, and begins the next. */
static void phase(const char *name) {
    long at, i;
    look(now);
    at = put(0, name);
    for (i = 0; i < 3; i++) at = put_number(at, now[i] - before[i]);
    call3(SYS_write, 1, (long)text_buffer, put(at, "\n"));
    look(before);
}

static void refused(const char *name, long error) {
    call3(SYS_write, 1, (long)text_buffer, put(put_number(put(put(0, name), " refused"), -error), "\n"));
}

static char *map_at(long pages_up, long pages, long protection, long flags, long fd) {
    return (char *)syscall6(SYS_mmap, PLACE + pages_up * PAGE, pages * PAGE, protection, flags | MAP_FIXED, fd, 0);
}

static char *anonymous(long pages_up, long pages) {
    return map_at(pages_up, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void write_pages(char *from, long pages, long step) {
    for (long page = 0; page < pages; page += step) *(volatile char *)(from + page * PAGE) = (char)page + 1;
}

static long read_pages(char *from, long pages, long step) {
    long sum = 0;
    for (long page = 0; page < pages; page += step) sum += *(volatile char *)(from + page * PAGE);
    return sum;
}

/* Forks, has the child do its part and waits for it; the parent goes on counting from here. */
static void with_child(void (*part)(void)) {
    long child = call0(SYS_fork);
    if (child == 0) {
        begin();
        part();
        call1(SYS_exit_group, 0);
    }
    call4(SYS_wait4, child, 0, 0, 0);
    begin();
}

static void sequential(void) {
    char *memory = anonymous(0, 128);
    phase("map");
    write_pages(memory, 128, 1);
    phase("write");
    read_pages(memory, 128, 1);
    phase("read");
}

static void random_order(void) {
    char *memory = anonymous(0, 1024);
    unsigned long state = 20;
    for (long i = 0; i < 300; i++) {
        state = state * 6364136223846793005UL + 1442695040888963407UL;
        *(volatile char *)(memory + (state >> 33) % 1024 * PAGE) = 1;
    }
    phase("write");
}

static void strided(void) {
    char *memory = anonymous(0, 1200);
    write_pages(memory, 1200, 7);
    phase("write");
    write_pages(memory, 1200, 5);
    phase("again");
}

static void read_first(void) {
    char *memory = anonymous(0, 32);
    read_pages(memory, 32, 1);
    phase("read");
    write_pages(memory, 32, 1);
    phase("write");
}

static void child_copies(void) {
    char *memory = (char *)PLACE;
    phase("child-begins");
    read_pages(memory, 64, 1);
    phase("child-reads");
    write_pages(memory, 64, 2);
    phase("child-writes");
}

static void forking(void) {
    char *memory = anonymous(0, 64);
    write_pages(memory, 64, 1);
    phase("write");
    with_child(child_copies);
    read_pages(memory, 64, 1);
    phase("parent-reads");
    write_pages(memory, 64, 1);
    phase("parent-writes");
    write_pages(memory, 64, 1);
    phase("again");
}

static void child_waits(void) {
    write_pages((char *)PLACE, 32, 1);
    phase("child-writes");
    with_child(child_copies);
    phase("grandchild-ended");
}

static void generations(void) {
    write_pages(anonymous(0, 64), 64, 1);
    phase("write");
    with_child(child_waits);
    write_pages((char *)PLACE, 64, 1);
    phase("parent-writes");
}

static void child_shares(void) {
    phase("child-begins");
    read_pages((char *)PLACE, 64, 1);
    phase("child-reads");
    write_pages((char *)PLACE, 64, 1);
    phase("child-writes");
    write_pages((char *)PLACE + 64 * PAGE, 32, 1);
    phase("child-first");
}

static void sharing(void) {
    char *memory = map_at(0, 96, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
    write_pages(memory, 64, 1);
    phase("write");
    with_child(child_shares);
    read_pages(memory, 96, 1);
    phase("parent-reads");
}

static long to_read;

/* Returns a descriptor of a new file that has no name any more; `to_read` is one that cannot write. */
static long make_file(long pages) {
    long fd = call3(SYS_open, (long)"touched", 01102, 0600);
    if (fd < 0) return fd;
    for (long page = 0; page < pages; page++) call3(SYS_write, fd, (long)report, PAGE);
    to_read = call3(SYS_open, (long)"touched", 0, 0);
    call1(SYS_unlink, (long)"touched");
    return fd;
}

static void child_reads_file(void) {
    phase("child-begins");
    read_pages((char *)PLACE, 64, 1);
    phase("child-reads");
    read_pages((char *)PLACE + 64 * PAGE, 64, 1);
    phase("child-reads-copied");
}

static void file(void) {
    long fd = make_file(64);
    char *clean, *private, *shared;
    begin();
    clean = map_at(0, 64, PROT_READ, MAP_PRIVATE, fd);
    read_pages(clean, 64, 1);
    phase("private-reads");
    private = map_at(64, 64, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
    write_pages(private, 64, 2);
    phase("private-writes");
    read_pages(private, 64, 1);
    phase("reads-between");
    write_pages(private, 64, 1);
    phase("writes-rest");
    with_child(child_reads_file);
    shared = map_at(128, 64, PROT_READ, MAP_SHARED, to_read);
    read_pages(shared, 64, 20);
    phase("shared-reads");
}

static void shared_file(void) {
    long fd = make_file(64);
    char *memory;
    begin();
    memory = map_at(0, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    if ((unsigned long)memory > -4096UL) {
        refused("map", (long)memory);
        return;
    }
    write_pages(memory, 64, 1);
    phase("write");
}

static void heap(void) {
    char *start = (char *)((call1(SYS_brk, 0) + PAGE - 1) & -PAGE);
    call1(SYS_brk, (long)start + 48 * PAGE);
    write_pages(start, 48, 1);
    phase("grow");
    call1(SYS_brk, (long)start + 16 * PAGE);
    phase("shrink");
    call1(SYS_brk, (long)start + 48 * PAGE);
    write_pages(start, 48, 1);
    phase("grow-again");
}

static void dropping(void) {
    char *memory = anonymous(0, 64);
    write_pages(memory, 64, 1);
    phase("write");
    call3(SYS_madvise, (long)memory, 32 * PAGE, MADV_DONTNEED);
    phase("dont-need");
    write_pages(memory, 64, 1);
    phase("write-again");
    call2(SYS_munmap, (long)memory + 16 * PAGE, 16 * PAGE);
    phase("unmap-middle");
    anonymous(16, 16);
    write_pages(memory, 64, 1);
    phase("map-again");
    call2(SYS_munmap, (long)memory, 64 * PAGE);
    phase("unmap");
}

static void protecting(void) {
    char *memory = anonymous(0, 32);
    write_pages(memory, 32, 1);
    phase("write");
    call3(SYS_mprotect, (long)memory, 32 * PAGE, PROT_READ);
    read_pages(memory, 32, 1);
    phase("read-only");
    call3(SYS_mprotect, (long)memory, 32 * PAGE, PROT_READ | PROT_WRITE);
    write_pages(memory, 32, 1);
    phase("write-again");
    call3(SYS_mprotect, (long)memory, 32 * PAGE, PROT_NONE);
    phase("none");
    call3(SYS_mprotect, (long)memory, 16 * PAGE, PROT_READ | PROT_WRITE);
    write_pages(memory, 16, 1);
    phase("half-again");
}

/* The first pages below the stack's top may have been used; from the eighth on they are new. */
static void growing_stack(void) {
    char *page = (char *)((long)first_stack & -PAGE) - 8 * PAGE;
    for (long done = 0; done < 200; done++, page -= PAGE) *(volatile char *)page = 1;
    phase("grow");
}

static void kernel_touches(void) {
    long fd = make_file(16);
    char *memory = anonymous(0, 16);
    begin();
    call3(SYS_lseek, fd, 0, 0);
    phase("seek");
    call3(SYS_read, fd, (long)memory, 16 * PAGE);
    phase("read-into");
    call3(SYS_write, fd, (long)memory, 16 * PAGE);
    phase("write-from");
}

static void run(void) {
    begin();
    if (same(program, "sequential")) sequential();
    if (same(program, "random")) random_order();
    if (same(program, "strided")) strided();
    if (same(program, "read-first")) read_first();
    if (same(program, "fork")) forking();
    if (same(program, "generations")) generations();
    if (same(program, "shared")) sharing();
    if (same(program, "file")) file();
    if (same(program, "shared-file")) shared_file();
    if (same(program, "heap")) heap();
    if (same(program, "dropping")) dropping();
    if (same(program, "protecting")) protecting();
    if (same(program, "stack")) growing_stack();
    if (same(program, "kernel")) kernel_touches();
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    program = argv[1];
    first_stack = (char *)&argc;
    call_on(own_stack + STACK_PAGES * PAGE, run);
    return 0;
}
