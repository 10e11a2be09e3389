/* load: applications that send mail, as many as you like, from one thread.
 *
 *   load --port N (--messages N | --seconds S) [--host IP] [--clients N] [--size OCTETS]
 *        [--new-connections] [--pipelining] [--rate PER_SECOND] [--first-serial N] [--timeout S] [--latencies FILE]
 *
 * Each client speaks plain SMTP in lock step, as the libraries of old applications do: MAIL, RCPT, DATA, content, and
 * the next message on the same connection, or after QUIT on a new one. --pipelining puts MAIL, RCPT and DATA into one
 * flight (RFC 2920).
 *
 * Without --rate each client sends its next message as soon as the last was answered (closed loop). With --rate messages
 * fall due at even distances whether or not anyone is free to send them, and a message's latency counts from the moment
 * it was due: a relay that stalls pays for everything that had to wait.
 *
 * --latencies FILE gets a line for each message that was accepted, in that order: when it was due or begun, and how many
 * milliseconds later it was answered.
 *
 * One line of JSON on standard output. "accepted" were answered 250 after the final dot; "refused" were answered
 * otherwise, at any phase; "broken" lost their connection; "unanswered" were under way when the timeout struck.
 */
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <math.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

#define LINE_LENGTH 78     /* of the body, with its CRLF */
#define TEXT_SIZE 65536    /* what of a body is more is as an attachment is */
#define HEADER_SIZE 512
#define INPUT_SIZE 4096    /* the longest reply line taken */
#define MOST_FAILURES 50   /* then something is wrong that more messages will not tell us */

#define MAIL_LINE "MAIL FROM:<sender@example.com>\r\n"
#define RCPT_LINE "RCPT TO:<user@dest.example>\r\n"
#define DATA_LINE "DATA\r\n"

/* What a client waits for: the reply to this command. IDLE waits for nothing. */
enum phase { IDLE, GREETING, EHLO, MAIL, RCPT, DATA, DOT, QUIT };

static const struct {
    const char *name, *command;    /* no command: the greeting comes unasked, and the content is no constant */
    int expected;
} phases[] = {
    [GREETING] = {"greeting", NULL, 220},
    [EHLO] = {"EHLO", "EHLO load.example\r\n", 250},
    [MAIL] = {"MAIL", MAIL_LINE, 250},
    [RCPT] = {"RCPT", RCPT_LINE, 250},
    [DATA] = {"DATA", DATA_LINE, 354},
    [DOT] = {"final dot", NULL, 250},
    [QUIT] = {"QUIT", "QUIT\r\n", 221},
};

struct client {
    int fd;                        /* -1: not connected */
    enum phase phase;
    bool has_message;
    double began;                  /* when the message was due, or else begun */
    uint32_t watched;
    struct iovec pending[3];       /* what is still to be written */
    size_t pending_count, input_length;
    char header[HEADER_SIZE], input[INPUT_SIZE];
};

static struct {
    struct sockaddr_in relay;
    unsigned clients, first_serial;
    unsigned long messages;        /* how many at most */
    double seconds, rate, timeout; /* 0: no limit, closed loop */
    size_t size;
    bool new_connections, pipelining;
    FILE *latencies;
} plan = {
    .relay = {.sin_family = AF_INET}, .clients = 1, .messages = SERIALS, .timeout = 60, .size = 2000,
};

static struct {
    unsigned long begun, accepted, refused, broken, unanswered;
    double started, ended;
    char last_failure[256];
    uint32_t *latencies;           /* microseconds, one for each accepted message */
    size_t latencies_room;
} result;

static char *body;
static size_t body_length;
static int epoll, timer;

/* ---- Messages ---------------------------------------------------------------------------------------------------- */

/* Writes the header section of one message; its length does not depend on the serial number. */
static size_t write_header(char *header, unsigned long serial)
{
    return (size_t)snprintf(header, HEADER_SIZE,
        SERIAL_HEADER "%08lu\r\n"
        "Date: Mon, 23 Nov 2026 07:00:00 +0000\r\n"
        "From: Bench Sender <sender@example.com>\r\n"
        "To: <user@dest.example>\r\n"
        "Subject: Invoice %08lu\r\n"
        "Message-ID: <bench.%08lu@example.com>\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=us-ascii\r\n"
        "\r\n", serial, serial, serial);
}

/*
 * Makes the body that all messages share: lines of 76 letters, some with a leading dot, dot-stuffed as on the wire.
 * Large messages are large by what they carry in base64, which has no dots.
 */
static void write_body(void)
{
    char header[HEADER_SIZE];
    size_t header_length = write_header(header, 0);
    if (plan.size < header_length + 2) {
        fprintf(stderr, "--size %zu: the header section alone takes %zu octets\n", plan.size, header_length + 2);
        exit(EX_USAGE);
    }
    body_length = plan.size - header_length;
    body = malloc(body_length);
    if (body == NULL)
        die("malloc");
    for (size_t i = 0; i < body_length; i++)
        body[i] = (char)('a' + i % 26);
    for (size_t line = 0; line + LINE_LENGTH + 4 <= body_length; line += LINE_LENGTH) {
        memcpy(body + line + LINE_LENGTH - 2, "\r\n", 2);
        if (line < TEXT_SIZE && line / LINE_LENGTH % 40 == 7)
            memcpy(body + line, "..", 2);
    }
    memcpy(body + body_length - 2, "\r\n", 2);
}

static void record_latency(double seconds)
{
    if (result.accepted == result.latencies_room) {
        result.latencies_room = result.latencies_room ? result.latencies_room * 2 : 4096;
        result.latencies = realloc(result.latencies, result.latencies_room * sizeof *result.latencies);
        if (result.latencies == NULL)
            die("realloc");
    }
    result.latencies[result.accepted] = (uint32_t)(seconds * 1e6);
}

/* ---- One client -------------------------------------------------------------------------------------------------- */

static void watch(struct client *c, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (c->watched != events && epoll_ctl(epoll, c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("epoll_ctl");
    c->watched = events;
}

static void disconnect(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);              /* which also takes it out of epoll */
    c->fd = -1;
    c->phase = IDLE;
    c->watched = 0;
    c->pending_count = c->input_length = 0;
}

/* Notes a failure in words fit for JSON, gives the message up if there was one, and ends the connection. */
static void fail(struct client *c, unsigned long *count, const char *words)
{
    if (c->has_message) {
        (*count)++;
        int length = snprintf(result.last_failure, sizeof result.last_failure, "%s: %s", phases[c->phase].name, words);
        for (int i = 0; i < length && result.last_failure[i] != '\0'; i++)
            if (result.last_failure[i] < ' ' || result.last_failure[i] > '~' || strchr("\"\\", result.last_failure[i]))
                result.last_failure[i] = '?';
    }
    c->has_message = false;
    disconnect(c);
}

/* Writes what is pending, and asks for a further turn if the socket will not take all of it. */
static void write_pending(struct client *c)
{
    while (c->pending_count > 0) {
        struct msghdr message = {.msg_iov = c->pending, .msg_iovlen = c->pending_count};
        ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            watch(c, EPOLLIN | EPOLLOUT);
            return;
        }
        if (sent < 0) {
            fail(c, &result.broken, strerror(errno));
            return;
        }
        size_t gone = 0, left = (size_t)sent;
        while (gone < c->pending_count && left >= c->pending[gone].iov_len)
            left -= c->pending[gone++].iov_len;
        c->pending_count -= gone;
        memmove(c->pending, c->pending + gone, c->pending_count * sizeof *c->pending);
        if (c->pending_count > 0) {
            c->pending[0].iov_base = (char *)c->pending[0].iov_base + left;
            c->pending[0].iov_len -= left;
        }
    }
    watch(c, EPOLLIN);
}

static void add_pending(struct client *c, const char *octets, size_t length)
{
    c->pending[c->pending_count++] = (struct iovec){.iov_base = (char *)octets, .iov_len = length};
}

/* Sends the command of a phase (or the content) and goes on to wait for its reply. */
static void enter(struct client *c, enum phase phase)
{
    static const char flight[] = MAIL_LINE RCPT_LINE DATA_LINE;
    c->phase = phase;
    if (phase == DOT) {
        add_pending(c, c->header, strlen(c->header));
        add_pending(c, body, body_length);
        add_pending(c, ".\r\n", 3);
    } else if (plan.pipelining && phase == MAIL) {
        add_pending(c, flight, sizeof flight - 1);
    } else if (plan.pipelining && (phase == RCPT || phase == DATA)) {
        return;                    /* sent together with MAIL */
    } else if (phases[phase].command != NULL) {
        add_pending(c, phases[phase].command, strlen(phases[phase].command));
    }
    write_pending(c);
}

static void connect_to_relay(struct client *c)
{
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->phase = GREETING;
    if (connect(c->fd, (struct sockaddr *)&plan.relay, sizeof plan.relay) < 0 && errno != EINPROGRESS)
        fail(c, &result.broken, strerror(errno));
    else
        watch(c, EPOLLIN);         /* a connection that fails becomes readable too */
}

/* When the next message falls due; INFINITY when there are to be no more. */
static double next_due(void)
{
    double now = monotonic(), due = plan.rate > 0 ? result.started + (double)result.begun / plan.rate : now;
    if (result.begun >= plan.messages || (plan.seconds > 0 && due >= result.started + plan.seconds))
        return INFINITY;
    if (result.refused + result.broken >= MOST_FAILURES)
        return INFINITY;
    return due;
}

/* Gives an idle client its next message, if one is due. */
static void begin_message(struct client *c)
{
    double due = next_due();
    if (due > monotonic())
        return;
    write_header(c->header, plan.first_serial + result.begun++);
    c->has_message = true;
    c->began = due;
    if (c->fd < 0)
        connect_to_relay(c);
    else
        enter(c, MAIL);
}

static void on_accepted(struct client *c)
{
    result.ended = monotonic();
    record_latency(result.ended - c->began);
    if (plan.latencies != NULL)
        fprintf(plan.latencies, "%.6f %.3f\n", c->began, (result.ended - c->began) * 1000);
    result.accepted++;
    c->has_message = false;
    if (plan.new_connections)
        enter(c, QUIT);
    else
        c->phase = IDLE;
}

/* Acts on a whole reply, of which `line` is the last line. */
static void on_reply(struct client *c, const char *line)
{
    if (c->phase == IDLE || c->phase == QUIT)
        disconnect(c);             /* 221, or the relay's own 421 to a client that says nothing */
    else if (atoi(line) != phases[c->phase].expected)
        fail(c, &result.refused, line);
    else if (c->phase == DOT)
        on_accepted(c);
    else
        enter(c, c->phase + 1);    /* the phases stand in the order of the dialogue */
}

/* Takes whole lines from the input buffer; all but the last of a reply have a hyphen after the code. */
static void take_lines(struct client *c)
{
    char *line = c->input, *end;
    size_t left = c->input_length;
    while (c->fd >= 0 && (end = memchr(line, '\n', left)) != NULL) {
        *end = '\0';
        left -= (size_t)(end + 1 - line);
        if (end - line < 4 || line[3] != '-')
            on_reply(c, line);
        line = end + 1;
    }
    if (c->fd < 0)
        return;
    memmove(c->input, line, left);
    c->input_length = left;
    if (left == INPUT_SIZE)
        fail(c, &result.broken, "reply line without end");
}

static void on_readable(struct client *c)
{
    ssize_t received = recv(c->fd, c->input + c->input_length, INPUT_SIZE - c->input_length, 0);
    if (received > 0) {
        c->input_length += (size_t)received;
        take_lines(c);
    } else if (received == 0) {
        fail(c, &result.broken, "connection closed");
    } else if (errno != EAGAIN) {
        fail(c, &result.broken, strerror(errno));
    }
}

/* ---- All of them ------------------------------------------------------------------------------------------------- */

/* Starts what is due on idle clients. Returns whether anything is left to do or to wait for. */
static bool give_work(struct client *clients)
{
    bool busy = false;
    for (struct client *c = clients; c < clients + plan.clients; c++) {
        if (c->phase == IDLE)
            begin_message(c);
        busy |= c->phase != IDLE;
    }
    double due = next_due();
    if (plan.rate > 0 && due > monotonic() && due < INFINITY) {
        struct itimerspec wake = {.it_value = {.tv_sec = (time_t)due}};
        wake.it_value.tv_nsec = (long)((due - (double)wake.it_value.tv_sec) * 1e9);
        if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &wake, NULL) < 0)
            die("timerfd_settime");
        return true;
    }
    return busy || due <= monotonic();
}

static void run(struct client *clients)
{
    struct epoll_event events[64];
    uint64_t expirations;
    result.started = result.ended = monotonic();
    double deadline = result.started + plan.seconds + plan.timeout;
    while (give_work(clients) && monotonic() < deadline) {
        int count = epoll_wait(epoll, events, sizeof events / sizeof *events, 100);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct client *c = events[i].data.ptr;
            if (c == NULL) {
                if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN)
                    die("read from timer");
                continue;
            }
            if (events[i].events & EPOLLOUT)
                write_pending(c);
            if (c->fd >= 0 && events[i].events & ~(uint32_t)EPOLLOUT)
                on_readable(c);
        }
    }
}

/* Kept connections end politely, but nobody waits for the answer. */
static void end_clients(struct client *clients)
{
    for (struct client *c = clients; c < clients + plan.clients; c++) {
        result.unanswered += c->has_message;
        if (c->fd >= 0 && c->phase == IDLE)
            enter(c, QUIT);
        disconnect(c);
    }
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The latency, in milliseconds, that this share of the messages did not exceed. */
static double percentile(double share)
{
    if (result.accepted == 0)
        return 0;
    return result.latencies[(size_t)((double)(result.accepted - 1) * share)] / 1000.0;
}

static void print_result(void)
{
    if (result.accepted > 0)
        qsort(result.latencies, result.accepted, sizeof *result.latencies, ascending);
    printf("{\"started\": %.6f, \"ended\": %.6f, \"cpu_seconds\": %.6f, \"accepted\": %lu, \"refused\": %lu, "
           "\"broken\": %lu, \"unanswered\": %lu, \"p50_ms\": %.3f, \"p90_ms\": %.3f, \"p99_ms\": %.3f, "
           "\"max_ms\": %.3f, \"last_failure\": \"%s\"}\n",
           result.started, result.ended, cpu_seconds(), result.accepted, result.refused,
           result.broken, result.unanswered, percentile(0.5), percentile(0.9), percentile(0.99),
           percentile(1), result.last_failure);
}

static void read_plan(int argc, char **argv)
{
    static const struct option options[] = {
        {"host", required_argument, NULL, 'h'}, {"port", required_argument, NULL, 'p'},
        {"messages", required_argument, NULL, 'm'}, {"seconds", required_argument, NULL, 's'},
        {"clients", required_argument, NULL, 'c'}, {"size", required_argument, NULL, 'l'},
        {"new-connections", no_argument, NULL, 'n'}, {"pipelining", no_argument, NULL, 'P'},
        {"rate", required_argument, NULL, 'r'}, {"first-serial", required_argument, NULL, 'f'},
        {"timeout", required_argument, NULL, 't'},
        {"latencies", required_argument, NULL, 'L'}, {0},
    };
    const char *host = "127.0.0.1";
    bool limited = false;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (option) {
        case 'h': host = optarg; break;
        case 'p': plan.relay.sin_port = htons((uint16_t)number("port", optarg, 1, 65535)); break;
        case 'm': plan.messages = (unsigned long)number("messages", optarg, 1, SERIALS); limited = true; break;
        case 's': plan.seconds = number("seconds", optarg, 0.01, 86400); limited = true; break;
        case 'c': plan.clients = (unsigned)number("clients", optarg, 1, 1000); break;
        case 'l': plan.size = (size_t)number("size", optarg, 1, 1e9); break;
        case 'n': plan.new_connections = true; break;
        case 'P': plan.pipelining = true; break;
        case 'r': plan.rate = number("rate", optarg, 0.01, 1e6); break;
        case 'f': plan.first_serial = (unsigned)number("first-serial", optarg, 0, SERIALS - 1); break;
        case 't': plan.timeout = number("timeout", optarg, 0.1, 86400); break;
        case 'L':
            plan.latencies = fopen(optarg, "we");
            if (plan.latencies == NULL)
                die(optarg);
            break;
        default: exit(EX_USAGE);
        }
    if (inet_pton(AF_INET, host, &plan.relay.sin_addr) != 1) {
        fprintf(stderr, "--host %s: give an IPv4 address\n", host);
        exit(EX_USAGE);
    }
    if (plan.relay.sin_port == 0 || !limited || optind < argc) {
        fprintf(stderr, "usage: load --port N (--messages N | --seconds S) [--host IP] [--clients N] [--size OCTETS]\n"
                        "            [--new-connections] [--pipelining] [--rate PER_SECOND] [--first-serial N]"
                        " [--timeout S]\n            [--latencies FILE]\n");
        exit(EX_USAGE);
    }
    if (plan.messages > SERIALS - plan.first_serial)
        plan.messages = SERIALS - plan.first_serial;
}

int main(int argc, char **argv)
{
    read_plan(argc, argv);
    write_body();
    struct client *clients = calloc(plan.clients, sizeof *clients);
    struct epoll_event tick = {.events = EPOLLIN, .data.ptr = NULL};
    epoll = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (clients == NULL || epoll < 0 || timer < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &tick) < 0)
        die("load: cannot start");
    for (struct client *c = clients; c < clients + plan.clients; c++)
        c->fd = -1;
    run(clients);
    end_clients(clients);
    free(clients);
    if (plan.latencies != NULL && fclose(plan.latencies) != 0)
        die("load: latencies");
    print_result();
    return EXIT_SUCCESS;
}
