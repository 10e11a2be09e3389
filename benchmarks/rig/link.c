/* link: a line of any length between this network namespace and a new one.
 *
 * Two TUN devices, one on each side, and every IP packet held back on its way from one to the other: handshakes of TCP
 * and TLS, acknowledgements and windows pay for the distance as they would on a real line. (netem would do it too, but
 * not every kernel has it.) It needs root and /dev/net/tun.
 *
 * The first line on standard output is {"near": IP, "far": IP}: our address on this side, and the one behind the line.
 * Programs get to the far side by nsenter --net=/proc/PID/ns/net, where PID is this program: it moves there itself.
 *
 * Each line on standard input is the time in milliseconds that a packet takes in one direction, from now on, and is
 * answered by {"delay": MILLISECONDS}; at first it is 0. The end of the input ends the program, and devices and
 * namespace go with it, however it ends.
 *
 * The addresses are in 198.18.0.0/16, which RFC 2544 sets aside for measurements; which of its 16384 networks of four
 * addresses it is depends on the process id, so that several lines can be up at a time.
 */
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#define PACKET_SIZE 1500
#define QUEUE_LENGTH 32768   /* packets under way in one direction; what does not fit waits in the device's own queue */
#define BATCH 64             /* packets taken from one side before the other has its turn */
#define NETWORK 0xc6120000u  /* 198.18.0.0 */

struct packet {
    double arrived;
    size_t length;
    char *octets;
};

/* One direction: what came out of `from` and will go into `to`. Positions only grow; the remainder is the place. */
struct lane {
    int from, to;
    size_t first, last;
    struct packet *packets;
};

static double delay;

/* ---- Packets ----------------------------------------------------------------------------------------------------- */

static struct packet *place(struct lane *lane, size_t position)
{
    return &lane->packets[position % QUEUE_LENGTH];
}

static void take_in(struct lane *lane)
{
    for (int i = 0; i < BATCH && lane->last - lane->first < QUEUE_LENGTH; i++) {
        struct packet *packet = place(lane, lane->last);
        if (packet->octets == NULL && (packet->octets = malloc(PACKET_SIZE)) == NULL)
            die("malloc");
        ssize_t length = read(lane->from, packet->octets, PACKET_SIZE);
        if (length <= 0)
            return;
        packet->length = (size_t)length;
        packet->arrived = monotonic();
        lane->last++;
    }
}

static void let_out(struct lane *lane)
{
    double now = monotonic();
    while (lane->first != lane->last && place(lane, lane->first)->arrived + delay <= now) {
        struct packet *packet = place(lane, lane->first++);
        if (write(lane->to, packet->octets, packet->length) < 0)
            continue;                /* lost, as packets are; TCP will send it again */
    }
}

/* When the next packet has arrived at the other side; INFINITY-like when none is under way. */
static double next_due(struct lane *lane)
{
    return lane->first == lane->last ? 1e18 : place(lane, lane->first)->arrived + delay;
}

/* ---- Standard input ---------------------------------------------------------------------------------------------- */

/* Takes what has been written to us. False at the end of the input. */
static bool obey(void)
{
    static char line[64];
    static size_t length;
    ssize_t received = read(STDIN_FILENO, line + length, sizeof line - 1 - length);
    if (received <= 0)
        return received < 0 && errno == EAGAIN;
    length += (size_t)received;
    for (char *end; (end = memchr(line, '\n', length)) != NULL;) {
        *end = '\0';
        delay = number("delay", line, 0, 60000) / 1000;
        printf("{\"delay\": %g}\n", delay * 1000);
        fflush(stdout);
        length -= (size_t)(end + 1 - line);
        memmove(line, end + 1, length);
    }
    return length < sizeof line - 1;
}

static void carry(int near, int far)
{
    struct lane lanes[] = {{.from = near, .to = far}, {.from = far, .to = near}};
    struct pollfd watched[] = {{near, POLLIN, 0}, {far, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    for (int i = 0; i < 2; i++)
        if ((lanes[i].packets = calloc(QUEUE_LENGTH, sizeof *lanes[i].packets)) == NULL)
            die("calloc");
    for (;;) {
        double due[] = {next_due(&lanes[0]), next_due(&lanes[1])};
        double wait = (due[0] < due[1] ? due[0] : due[1]) - monotonic();
        struct timespec timeout = {0, 0};
        if (wait > 0 && wait < 1e9) {
            timeout.tv_sec = (time_t)wait;
            timeout.tv_nsec = (long)((wait - (double)timeout.tv_sec) * 1e9);
        }
        if (ppoll(watched, 3, wait < 1e9 ? &timeout : NULL, NULL) < 0 && errno != EINTR)
            die("ppoll");
        if (watched[2].revents != 0 && !obey())
            return;
        for (int i = 0; i < 2; i++) {
            take_in(&lanes[i]);
            let_out(&lanes[i]);
        }
    }
}

/* ---- Setting up -------------------------------------------------------------------------------------------------- */

static void request(int control, unsigned long what, struct ifreq *interface, const char *words)
{
    if (ioctl(control, what, interface) < 0)
        die(words);
}

static void set_address(int control, unsigned long what, struct ifreq *interface, uint32_t address, const char *words)
{
    struct sockaddr_in value = {.sin_family = AF_INET, .sin_addr = {htonl(address)}};
    memcpy(&interface->ifr_addr, &value, sizeof value);
    request(control, what, interface, words);
}

static void bring_up(int control, struct ifreq *interface)
{
    request(control, SIOCGIFFLAGS, interface, "link: SIOCGIFFLAGS");
    interface->ifr_flags |= IFF_UP;
    request(control, SIOCSIFFLAGS, interface, "link: SIOCSIFFLAGS");
}

/* A TUN device in the namespace that we are in, with this address, up. Its packets come out of the descriptor. */
static int open_device(uint32_t address, uint32_t peer)
{
    struct ifreq interface = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strcpy(interface.ifr_name, "rig%d");
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (device < 0)
        die("link: /dev/net/tun");
    if (ioctl(device, TUNSETIFF, &interface) < 0)
        die("link: cannot make a TUN device");
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0)
        die("link: socket");
    interface.ifr_mtu = PACKET_SIZE;
    request(control, SIOCSIFMTU, &interface, "link: SIOCSIFMTU");
    interface.ifr_qlen = QUEUE_LENGTH;
    request(control, SIOCSIFTXQLEN, &interface, "link: SIOCSIFTXQLEN");
    set_address(control, SIOCSIFADDR, &interface, address, "link: SIOCSIFADDR");
    set_address(control, SIOCSIFDSTADDR, &interface, peer, "link: SIOCSIFDSTADDR");
    bring_up(control, &interface);
    close(control);
    return device;
}

static void bring_up_loopback(void)
{
    struct ifreq interface = {.ifr_name = "lo"};
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0)
        die("link: socket");
    bring_up(control, &interface);
    close(control);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        fprintf(stderr, "usage: %s\n", argv[0]);
        return EX_USAGE;
    }
    uint32_t network = NETWORK | ((uint32_t)getpid() & 16383) << 2;
    prctl(PR_SET_TIMERSLACK, 1UL);   /* else the kernel may wake us 50 microseconds late */
    int near = open_device(network | 1, network | 2);
    if (unshare(CLONE_NEWNET) < 0)
        die("link: cannot make a network namespace");
    bring_up_loopback();
    int far = open_device(network | 2, network | 1);
    struct in_addr near_address = {htonl(network | 1)}, far_address = {htonl(network | 2)};
    char text[INET_ADDRSTRLEN];
    printf("{\"near\": \"%s\", ", inet_ntoa(near_address));
    printf("\"far\": \"%s\"}\n", inet_ntop(AF_INET, &far_address, text, sizeof text));
    fflush(stdout);
    carry(near, far);
    return EXIT_SUCCESS;
}
