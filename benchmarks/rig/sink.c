/* sink: the smarthost at the far end of a benchmark.
 *
 * It asks of a relay what SparkPost asks (STARTTLS before AUTH, AUTH LOGIN before mail; any user name and key will do),
 * offers PIPELINING and 8BITMIME, takes every message and forgets it at once. What it keeps are counters.
 *
 *   sink --certificate FILE --key FILE [--address IP] [--ports COUNT] [--reply-delay MILLISECONDS]
 *        [--round-trip MILLISECONDS] [--refuse PASSWORD]
 *
 * The first line on standard output is {"ports": [N, ...]}. SIGUSR1 prints the counters as one line of JSON; SIGTERM and SIGINT
 * print them and end the program. SIGUSR2 blocks the first port, as a firewall would: its connections are reset,
 * whatever they were doing, and new ones are taken and never greeted. The next SIGUSR2 opens it again. Each is
 * answered by {"blocked": BOOLEAN}.
 *
 * --reply-delay holds each batch of replies back, and reads nothing more on that connection meanwhile: a cheap stand-in
 * for a distant server, paid once per round trip. (TCP and TLS handshakes do not pay it.)
 *
 * --round-trip says how far away the client is. A flight that arrives in several pieces is then one: replies that leave
 * less than half a round trip after the last ones are no further flight.
 *
 * --refuse answers 535 to one password, given as it is on the line (in base64). Logins and messages are counted for each
 * password, in the order of their first use; only its digest (FNV-1a, of the base64) is shown.
 *
 * One thread: the messages it can take per second are those of one core, and whoever runs it must check that this core
 * was not the limit (cpu_seconds is among the counters).
 */
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#define INPUT_SIZE 65536   /* also the longest command line; RFC 4954 section 4.2 wants 12288 for AUTH */
#define OUTPUT_SIZE 8192
#define REPLY_SIZE 256     /* the longest reply: the EHLO lines */
#define HEAD_SIZE 2048     /* as much of a message as is searched for its serial number */
#define MOST_PORTS 4
#define MOST_KEYS 16       /* further passwords are counted with the last */

/* In the clear; 220 to STARTTLS still to be sent; TLS handshake; TLS. */
enum channel { CLEAR, UPGRADE, HANDSHAKE, SECURE };

/* What the next line from the client is. */
enum dialogue { COMMAND, AUTH_USER, AUTH_PASSWORD, CONTENT };

/* What came of trying to move octets. */
enum progress { DONE, WOULD_BLOCK, BROKEN };

struct port {
    int listener;
    unsigned number;
    bool blocked;
    unsigned long messages;
};

/* One password, and what was done with it. */
struct key {
    uint64_t digest;
    unsigned long logins, refused, messages;
};

struct connection {
    int fd;
    uint32_t watched;                /* epoll events asked for now */
    SSL *tls;
    enum channel channel;
    enum dialogue dialogue;
    bool authenticated, has_sender, has_recipient;
    bool logged_in;                  /* the replies to the login have left: what comes now is mail ... */
    bool worked;                     /* ... or QUIT; since the last flight there was something else */
    bool closing;                    /* nothing more is read; ends once the replies have left */
    double due;                      /* with --reply-delay: when the replies may leave */
    struct connection *next_held;
    double last_flight_at;
    struct key *key;
    struct port *port;
    struct connection *next, **link; /* in the list of all connections */
    unsigned long content_octets;
    size_t head_length, input_length, output_length, output_sent;
    char head[HEAD_SIZE], input[INPUT_SIZE], output[OUTPUT_SIZE];
};

static struct {
    unsigned long messages, distinct, octets, connections, open, max_open, handshakes, auths, commands, flights,
        mail_flights, refusals;
    double last_message_at;
    struct key keys[MOST_KEYS];
    size_t key_count;
} counters;

static uint8_t seen[SERIALS / 8];    /* one bit per serial number: a duplicate must not hide a loss */
static struct { struct connection *first, **last; } held = {NULL, &held.first};
static struct connection *all_connections;
static double reply_delay, round_trip;
static const char *refused_password = "";
static struct port ports[MOST_PORTS];
static int port_count = 1;
static SSL_CTX *tls_context;
static int epoll;

/* ---- Counting ---------------------------------------------------------------------------------------------------- */

static void print_counters(void)
{
    printf("{\"at\": %.6f, \"cpu_seconds\": %.6f, \"messages\": %lu, \"distinct\": %lu, \"octets\": %lu, "
           "\"connections\": %lu, \"max_open\": %lu, \"handshakes\": %lu, \"auths\": %lu, \"commands\": %lu, "
           "\"flights\": %lu, \"mail_flights\": %lu, \"refusals\": %lu, \"last_message_at\": %.6f, \"ports\": [",
           monotonic(), cpu_seconds(), counters.messages, counters.distinct, counters.octets,
           counters.connections, counters.max_open, counters.handshakes, counters.auths, counters.commands,
           counters.flights, counters.mail_flights, counters.refusals, counters.last_message_at);
    for (const struct port *port = ports; port < ports + port_count; port++)
        printf("%s%lu", port > ports ? ", " : "", port->messages);
    printf("], \"keys\": {");
    for (const struct key *key = counters.keys; key < counters.keys + counters.key_count; key++)
        printf("%s\"%016llx\": {\"logins\": %lu, \"refused\": %lu, \"messages\": %lu}", key > counters.keys ? ", " : "",
               (unsigned long long)key->digest, key->logins, key->refused, key->messages);
    printf("}}\n");
    fflush(stdout);
}

/* The account of a password, a new one at its first use. */
static struct key *key_of(const char *password)
{
    uint64_t digest = 0xcbf29ce484222325u;
    for (const char *octet = password; *octet != '\0'; octet++)
        digest = (digest ^ (uint8_t)*octet) * 0x100000001b3u;
    for (struct key *key = counters.keys; key < counters.keys + counters.key_count; key++)
        if (key->digest == digest)
            return key;
    if (counters.key_count == MOST_KEYS)
        return &counters.keys[MOST_KEYS - 1];
    struct key *key = &counters.keys[counters.key_count++];
    key->digest = digest;
    return key;
}

/* Counts a whole message, and its serial number if it has not been seen before. */
static void count_message(struct connection *c)
{
    counters.messages++;
    c->key->messages++;
    c->port->messages++;
    counters.octets += c->content_octets - 2;            /* less the CRLF of DATA itself, see take_stretch() */
    counters.last_message_at = monotonic();
    const size_t name_length = strlen(SERIAL_HEADER);
    const char *end = c->head + c->head_length;
    const char *header = memmem(c->head, c->head_length, SERIAL_HEADER, name_length);
    if (header == NULL)
        return;
    uint32_t serial = 0;
    for (const char *digit = header + name_length; digit < end && *digit >= '0' && *digit <= '9'; digit++)
        serial = serial * 10 + (uint32_t)(*digit - '0');
    if (serial < SERIALS && !(seen[serial / 8] & 1 << serial % 8)) {
        seen[serial / 8] |= (uint8_t)(1 << serial % 8);
        counters.distinct++;
    }
}

/* ---- The SMTP dialogue ------------------------------------------------------------------------------------------- */

/* Queues one reply; consume() sees to it that there is room. */
static void reply(struct connection *c, const char *text)
{
    size_t length = strlen(text);
    memcpy(c->output + c->output_length, text, length);
    c->output_length += length;
}

static void refuse(struct connection *c, const char *text)
{
    counters.refusals++;
    reply(c, text);
}

static void forget_transaction(struct connection *c)
{
    c->has_sender = c->has_recipient = false;
}

static void on_ehlo(struct connection *c, const char *argument)
{
    (void)argument;
    forget_transaction(c);
    reply(c, c->channel == SECURE
             ? "250-sink.example\r\n250-ENHANCEDSTATUSCODES\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 AUTH LOGIN\r\n"
             : "250-sink.example\r\n250-ENHANCEDSTATUSCODES\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 STARTTLS\r\n");
}

static void on_starttls(struct connection *c, const char *argument)
{
    (void)argument;
    if (c->channel != CLEAR) {
        refuse(c, "503 5.5.1 TLS is already active\r\n");
        return;
    }
    reply(c, "220 2.0.0 continue\r\n");
    c->channel = UPGRADE;
}

static void ask_for_password(struct connection *c)
{
    reply(c, "334 UGFzc3dvcmQ6\r\n");
    c->dialogue = AUTH_PASSWORD;
}

static void on_auth(struct connection *c, const char *argument)
{
    if (c->channel != SECURE)
        refuse(c, "530 5.7.0 STARTTLS first\r\n");
    else if (strncasecmp(argument, "LOGIN", 5) != 0 || (argument[5] != '\0' && argument[5] != ' '))
        refuse(c, "504 5.5.4 only AUTH LOGIN is offered\r\n");
    else if (argument[5] == ' ')     /* the user name came as an initial response, RFC 4954 section 4 */
        ask_for_password(c);
    else {
        reply(c, "334 VXNlcm5hbWU6\r\n");
        c->dialogue = AUTH_USER;
    }
}

static void on_password(struct connection *c, const char *password)
{
    c->dialogue = COMMAND;
    c->key = key_of(password);
    c->key->logins++;
    if (strcmp(password, refused_password) == 0) {
        c->key->refused++;
        refuse(c, "535 5.7.8 Sorry.\r\n");
        return;
    }
    c->authenticated = true;
    counters.auths++;
    reply(c, "235 2.0.0 Authed. Go on.\r\n");
}

static void on_mail(struct connection *c, const char *argument)
{
    (void)argument;
    if (!c->authenticated) {
        refuse(c, "530 5.7.0 STARTTLS and AUTH first\r\n");
        return;
    }
    c->has_sender = true;
    reply(c, "250 2.0.0 MAIL FROM accepted\r\n");
}

static void on_rcpt(struct connection *c, const char *argument)
{
    (void)argument;
    if (!c->has_sender) {
        refuse(c, "503 5.5.1 MAIL first\r\n");
        return;
    }
    c->has_recipient = true;
    reply(c, "250 2.0.0 RCPT TO accepted\r\n");
}

static void on_data(struct connection *c, const char *argument)
{
    (void)argument;
    if (!c->has_recipient) {
        refuse(c, "503 5.5.1 RCPT first\r\n");
        return;
    }
    c->dialogue = CONTENT;
    c->content_octets = c->head_length = 0;
    reply(c, "354 3.0.0 continue.  finished with \"\\r\\n.\\r\\n\"\r\n");
}

static void on_end_of_data(struct connection *c)
{
    char text[REPLY_SIZE];
    c->worked = true;
    count_message(c);
    forget_transaction(c);
    c->dialogue = COMMAND;
    snprintf(text, sizeof text, "250 2.0.0 OK 01/00-00001-%08lX\r\n", counters.messages);
    reply(c, text);
}

static void on_rset(struct connection *c, const char *argument)
{
    (void)argument;
    forget_transaction(c);
    reply(c, "250 2.0.0 OK\r\n");
}

static void on_noop(struct connection *c, const char *argument)
{
    (void)argument;
    reply(c, "250 2.0.0 OK\r\n");
}

static void on_quit(struct connection *c, const char *argument)
{
    (void)argument;
    reply(c, "221 2.3.0 sink.example closing connection\r\n");
    c->closing = true;
}

static const struct {
    const char *verb;
    void (*handle)(struct connection *, const char *argument);
} commands[] = {
    {"MAIL", on_mail}, {"RCPT", on_rcpt}, {"DATA", on_data}, {"EHLO", on_ehlo},
    {"STARTTLS", on_starttls}, {"AUTH", on_auth}, {"RSET", on_rset}, {"NOOP", on_noop}, {"QUIT", on_quit},
};

static void on_command(struct connection *c, const char *line)
{
    counters.commands++;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        size_t length = strlen(commands[i].verb);
        if (strncasecmp(line, commands[i].verb, length) == 0 && (line[length] == ' ' || line[length] == '\0')) {
            c->worked |= commands[i].handle != on_quit;
            commands[i].handle(c, line[length] ? line + length + 1 : line + length);
            return;
        }
    }
    refuse(c, "502 5.5.1 command not known\r\n");
}

/* Takes octets of content: counts them and keeps the head. */
static void take_content(struct connection *c, const char *content, size_t length)
{
    size_t room = HEAD_SIZE - c->head_length, kept = length < room ? length : room;
    memcpy(c->head + c->head_length, content, kept);
    c->head_length += kept;
    c->content_octets += length;
}

/* Takes a stretch of content from the front of `input`, up to the end of data where that is in sight. Returns its length.
 *
 * The CRLF that ends the DATA command is looked at again as the first of the content, so that CRLF.CRLF ends an empty
 * message too (RFC 5321 section 4.1.1.4 sees it the same way).
 */
static size_t take_stretch(struct connection *c, const char *input, size_t length)
{
    static const char end_of_data[] = {'\r', '\n', '.', '\r', '\n'};
    const char *end = memmem(input, length, end_of_data, sizeof end_of_data);
    if (end != NULL) {
        take_content(c, input, (size_t)(end - input) + 2);
        on_end_of_data(c);
        return (size_t)(end - input) + sizeof end_of_data;
    }
    if (length < sizeof end_of_data)
        return 0;
    size_t safe = length - (sizeof end_of_data - 1);     /* the rest may be the first part of the end of data */
    take_content(c, input, safe);
    return safe;
}

/* Takes one line from the front of `input` and answers it. Returns its length; 0 when the line is not all there. */
static size_t take_line(struct connection *c, char *input, size_t length)
{
    char *end = memmem(input, length, "\r\n", 2);
    if (end == NULL)
        return 0;
    *end = '\0';
    switch (c->dialogue) {
    case AUTH_USER: ask_for_password(c); break;
    case AUTH_PASSWORD: on_password(c, input); break;
    default: on_command(c, input);
    }
    *end = '\r';
    return (size_t)(end - input) + (c->dialogue == CONTENT ? 0 : 2);
}

static size_t take_piece(struct connection *c, char *input, size_t length)
{
    return c->dialogue == CONTENT ? take_stretch(c, input, length) : take_line(c, input, length);
}

static bool has_room_for_reply(const struct connection *c)
{
    return OUTPUT_SIZE - c->output_length >= REPLY_SIZE;
}

/* Answers everything in the input buffer that is complete, as long as there is room for the answers. */
static void consume(struct connection *c)
{
    size_t taken = 0, piece;
    while (c->channel != UPGRADE && !c->closing && has_room_for_reply(c)
           && (piece = take_piece(c, c->input + taken, c->input_length - taken)) > 0)
        taken += piece;
    c->input_length -= taken;
    memmove(c->input, c->input + taken, c->input_length);
    if (c->channel == UPGRADE && c->input_length > 0)
        c->closing = true;           /* octets in the clear behind STARTTLS: RFC 3207 section 4.2's attack, or a bug */
    if (c->input_length == INPUT_SIZE && has_room_for_reply(c))
        c->closing = true;           /* a line without end */
}

/* ---- Moving octets ----------------------------------------------------------------------------------------------- */

static void watch(struct connection *c, uint32_t events)
{
    if (c->watched == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = c};
    int operation = c->watched == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    if (epoll_ctl(epoll, operation, c->fd, &event) < 0)
        die("epoll_ctl");
    c->watched = events;
}

static enum progress tls_progress(struct connection *c, int result)
{
    int error = SSL_get_error(c->tls, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? WOULD_BLOCK : BROKEN;
}

static enum progress flush_output(struct connection *c)
{
    while (c->output_sent < c->output_length) {
        const char *rest = c->output + c->output_sent;
        size_t length = c->output_length - c->output_sent;
        ssize_t sent;
        if (c->channel == SECURE) {
            ERR_clear_error();
            sent = SSL_write(c->tls, rest, (int)length);
            if (sent <= 0)
                return tls_progress(c, (int)sent);
        } else {
            sent = send(c->fd, rest, length, MSG_NOSIGNAL);
            if (sent < 0)
                return errno == EAGAIN ? WOULD_BLOCK : BROKEN;
        }
        c->output_sent += (size_t)sent;
    }
    c->output_sent = c->output_length = 0;
    return DONE;
}

/* Appends what has arrived to the input buffer. The end of the stream counts as broken. */
static enum progress receive(struct connection *c)
{
    char *room = c->input + c->input_length;
    size_t length = INPUT_SIZE - c->input_length;
    ssize_t received;
    if (c->channel == SECURE) {
        ERR_clear_error();
        received = SSL_read(c->tls, room, (int)length);
        if (received <= 0)
            return tls_progress(c, (int)received);
    } else {
        received = recv(c->fd, room, length, 0);
        if (received <= 0)
            return received < 0 && errno == EAGAIN ? WOULD_BLOCK : BROKEN;
    }
    c->input_length += (size_t)received;
    return DONE;
}

static enum progress shake_hands(struct connection *c)
{
    if (c->channel == UPGRADE) {     /* the 220 has left in the clear; what follows is TLS */
        c->tls = SSL_new(tls_context);
        if (c->tls == NULL || SSL_set_fd(c->tls, c->fd) != 1)
            return BROKEN;
        c->channel = HANDSHAKE;
    }
    ERR_clear_error();
    int result = SSL_accept(c->tls);
    if (result != 1)
        return tls_progress(c, result);
    counters.handshakes++;
    c->channel = SECURE;
    return DONE;
}

/* Reads and answers until nothing more arrives or the answers must first leave. */
static void converse(struct connection *c)
{
    consume(c);
    while (c->channel != UPGRADE && !c->closing && has_room_for_reply(c)) {
        enum progress progress = receive(c);
        if (progress == WOULD_BLOCK)
            return;
        if (progress == BROKEN)
            c->closing = true;
        else
            consume(c);
    }
}

/* Keeps a connection's replies back for the reply delay. All wait equally long, so the queue is first in, first out. */
static void hold(struct connection *c)
{
    watch(c, 0);
    c->due = monotonic() + reply_delay;
    c->next_held = NULL;
    *held.last = c;
    held.last = &c->next_held;
}

static void let_go(struct connection *c)
{
    *c->link = c->next;
    if (c->next != NULL)
        c->next->link = c->link;
    SSL_free(c->tls);
    close(c->fd);
    free(c);
    counters.open--;
}

static void hang_up(struct connection *c)
{
    watch(c, 0);
    if (c->channel == SECURE)
        SSL_shutdown(c->tls);        /* our close_notify; theirs is not waited for */
    let_go(c);
}

/* The client had sent something and now waits for us: one round trip; of mail if it came after login, and not for QUIT. */
static void count_flight(struct connection *c)
{
    double now = monotonic();
    if (now - c->last_flight_at < round_trip / 2)
        return;                      /* the rest of a flight that has been counted */
    c->last_flight_at = now;
    counters.flights++;
    counters.mail_flights += c->logged_in && c->worked;
    c->logged_in = c->authenticated;
    c->worked = false;
}

/* Runs one connection as far as it will go now; ends it when it has no further to go. */
static void advance(struct connection *c)
{
    for (;;) {
        enum progress progress = flush_output(c);
        if (progress == WOULD_BLOCK) {
            watch(c, EPOLLOUT);
            return;
        }
        if (progress == BROKEN || c->closing)
            break;
        if (c->channel == UPGRADE || c->channel == HANDSHAKE) {
            progress = shake_hands(c);
            if (progress == BROKEN)
                break;
            if (progress == WOULD_BLOCK) {
                watch(c, SSL_want_write(c->tls) ? EPOLLOUT : EPOLLIN);
                return;
            }
        }
        converse(c);
        if (c->output_length == 0) {
            if (c->closing)
                break;
            watch(c, EPOLLIN);
            return;
        }
        count_flight(c);
        if (reply_delay > 0) {
            hold(c);
            return;
        }
    }
    hang_up(c);
}

/* Takes a connection out of the queue of those whose replies wait, if it is there. */
static void forget_held(struct connection *c)
{
    for (struct connection **link = &held.first; *link != NULL; link = &(*link)->next_held)
        if (*link == c) {
            *link = c->next_held;
            if (*link == NULL)
                held.last = link;
            return;
        }
}

static void release_due(void)
{
    while (held.first != NULL && held.first->due <= monotonic()) {
        struct connection *c = held.first;
        held.first = c->next_held;
        if (held.first == NULL)
            held.last = &held.first;
        advance(c);
    }
}

static int milliseconds_to_wait(void)
{
    if (held.first == NULL)
        return -1;
    double wait = held.first->due - monotonic();
    return wait <= 0 ? 0 : (int)(wait * 1000) + 1;
}

static void accept_all(struct port *port)
{
    int fd, on = 1;
    while ((fd = accept4(port->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = calloc(1, sizeof *c);
        if (c == NULL)
            die("calloc");
        c->fd = fd;
        c->port = port;
        counters.connections++;
        if (++counters.open > counters.max_open)
            counters.max_open = counters.open;
        c->next = all_connections;
        c->link = &all_connections;
        if (c->next != NULL)
            c->next->link = &c->next;
        all_connections = c;
        if (port->blocked)
            continue;                /* nobody watches it: it hears nothing, and nobody hears it */
        reply(c, "220 2.0.0 sink.example ESMTP ready\r\n");
        advance(c);
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        die("accept");
}

/* ---- Setting up -------------------------------------------------------------------------------------------------- */

static SSL_CTX *server_context(const char *certificate, const char *key)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1
        || SSL_CTX_use_certificate_chain_file(context, certificate) != 1
        || SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        fprintf(stderr, "sink: cannot use certificate %s with key %s\n", certificate, key);
        ERR_print_errors_fp(stderr);
        exit(EXIT_FAILURE);
    }
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE);
    return context;
}

/* Binds any free port of the address and listens. */
static struct port listen_on(const char *address)
{
    struct sockaddr_in where = {.sin_family = AF_INET};
    socklen_t length = sizeof where;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (inet_pton(AF_INET, address, &where.sin_addr) != 1) {
        fprintf(stderr, "--address %s: give an IPv4 address\n", address);
        exit(EX_USAGE);
    }
    if (listener < 0 || bind(listener, (struct sockaddr *)&where, length) < 0 || listen(listener, SOMAXCONN) < 0
        || getsockname(listener, (struct sockaddr *)&where, &length) < 0)
        die("sink: cannot listen");
    return (struct port){.listener = listener, .number = ntohs(where.sin_port)};
}

/* Opens the ports, and says on standard output which they became. */
static void open_ports(const char *address)
{
    printf("{\"ports\": [");
    for (struct port *port = ports; port < ports + port_count; port++) {
        *port = listen_on(address);
        printf("%s%u", port > ports ? ", " : "", port->number);
    }
    printf("]}\n");
    fflush(stdout);
}

/* The signals that ask for counters, as a descriptor for epoll. */
static int listen_for_signals(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGUSR2);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
        die("sigprocmask");
    signal(SIGPIPE, SIG_IGN);        /* SSL_write has no MSG_NOSIGNAL */
    int fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        die("signalfd");
    return fd;
}

/* Blocks a port and resets its connections, or opens it again and forgets those that were never greeted. */
static void block_or_open(struct port *port)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    for (struct connection *c = all_connections, *next; c != NULL; c = next) {
        next = c->next;
        if (c->port != port)
            continue;
        forget_held(c);
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        let_go(c);
    }
    port->blocked = !port->blocked;
    printf("{\"blocked\": %s}\n", port->blocked ? "true" : "false");
    fflush(stdout);
}

/* Does what each signal that came asks for; true if one of them was to end. */
static bool answer_signals(int signals)
{
    struct signalfd_siginfo info;
    bool end = false;
    while (read(signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGUSR2)
            block_or_open(&ports[0]);
        else
            print_counters();
        end |= info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT;
    }
    return end;
}

/* The port whose listener an event came from, or NULL: the events of listeners point to their ports. */
static struct port *port_of(void *source)
{
    for (struct port *port = ports; port < ports + port_count; port++)
        if (source == port)
            return port;
    return NULL;
}

static void serve(int signals)
{
    struct epoll_event events[64];
    /* What is no connection is known by its address. */
    struct epoll_event signalled = {.events = EPOLLIN, .data.ptr = &signals};
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, signals, &signalled) < 0)
        die("epoll");
    for (struct port *port = ports; port < ports + port_count; port++) {
        struct epoll_event listening = {.events = EPOLLIN, .data.ptr = port};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, port->listener, &listening) < 0)
            die("epoll_ctl");
    }
    for (bool end = false; !end;) {
        int count = epoll_wait(epoll, events, sizeof events / sizeof *events, milliseconds_to_wait());
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        bool signalled_now = false;
        for (int i = 0; i < count; i++) {
            void *source = events[i].data.ptr;
            struct port *port = port_of(source);
            if (port != NULL)
                accept_all(port);
            else if (source == &signals)
                signalled_now = true;
            else
                advance(source);
        }
        release_due();
        if (signalled_now)           /* last: it may end connections that stand among the events */
            end = answer_signals(signals);
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"certificate", required_argument, NULL, 'c'}, {"key", required_argument, NULL, 'k'},
        {"address", required_argument, NULL, 'a'}, {"ports", required_argument, NULL, 'p'},
        {"reply-delay", required_argument, NULL, 'd'}, {"round-trip", required_argument, NULL, 't'},
        {"refuse", required_argument, NULL, 'r'}, {0},
    };
    const char *certificate = NULL, *key = NULL, *address = "127.0.0.1";
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (option) {
        case 'c': certificate = optarg; break;
        case 'k': key = optarg; break;
        case 'a': address = optarg; break;
        case 'p': port_count = (int)number("ports", optarg, 1, MOST_PORTS); break;
        case 'd': reply_delay = number("reply-delay", optarg, 0, 60000) / 1000; break;
        case 't': round_trip = number("round-trip", optarg, 0, 60000) / 1000; break;
        case 'r': refused_password = optarg; break;
        default: return EX_USAGE;
        }
    if (certificate == NULL || key == NULL || optind < argc) {
        fprintf(stderr, "usage: sink --certificate FILE --key FILE [--address IP] [--ports COUNT] [--reply-delay MS]\n"
                        "            [--round-trip MS] [--refuse PASSWORD]\n");
        return EX_USAGE;
    }
    tls_context = server_context(certificate, key);
    int signals = listen_for_signals();
    open_ports(address);
    serve(signals);
    return EXIT_SUCCESS;
}
