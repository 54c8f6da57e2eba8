/* A client that speaks a dialogue inside of TLS: client ADDRESS PORT LIBRARY ROUNDS. With LATER it loads the library named
   when it is connected; without, OpenSSL is linked into it. With CONFINED it has a filter of system calls that ends it at those
   which the kernel has a probed function make (uretprobe and uprobe). Between two rounds it says where SSL_do_handshake is in its memory, and
   goes on when it gets SIGUSR1. */

#include <arpa/inet.h>
#include <dlfcn.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef LATER
static void *library;
#define OF(name) ((__typeof__(&name))dlsym(library, #name))
#else
#define OF(name) name
#endif

#ifdef CONFINED
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
static struct sock_filter filter[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), /* the number of the call */
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 335, 2, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 336, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
};
#endif

static int connection;
static SSL *session;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* Says a line, and reads until a reply is complete: one that has no more than one line in a call, and none behind it. */
static void say(const char *line) {
    char reply[4096];
    int length = strlen(line), got;
    if (length > 0 && (session ? OF(SSL_write)(session, line, length) : write(connection, line, length)) != length)
        fail(line);
    got = session ? OF(SSL_read)(session, reply, sizeof reply) : read(connection, reply, sizeof reply);
    if (got <= 0)
        fail("reply");
}

static void converse(const char *address_text, const char *port, const char *file) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    inet_pton(AF_INET, address_text, &address.sin_addr);
    connection = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(connection, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    say("");
    say("EHLO client.example\r\n");
    say("STARTTLS\r\n");
#ifdef LATER
    if (!library && !(library = dlopen(file, RTLD_NOW)))
        fail(dlerror());
#endif
    SSL_CTX *context = OF(SSL_CTX_new)(OF(TLS_client_method)());
    SSL *fresh = OF(SSL_new)(context);
    OF(SSL_set_fd)(fresh, connection);
    if (OF(SSL_connect)(fresh) != 1)
        fail("SSL_connect");
    session = fresh;
    say("EHLO client.example\r\n");
    say("NOOP\r\n");
    say("MAIL FROM:<alice@client.example>\r\n");
    say("RSET\r\n");
    say("QUIT\r\n");
    OF(SSL_free)(session);
    session = NULL;
    close(connection);
}

int main(int count, char **arguments) {
#ifdef CONFINED
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        fail("seccomp");
#endif
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    for (int rounds = atoi(arguments[4]); rounds > 0; rounds--) {
        converse(arguments[1], arguments[2], arguments[3]);
        if (rounds > 1) {
            int number;
            printf("%p\n", (void *)OF(SSL_do_handshake));
            fflush(stdout);
            sigwait(&signals, &number);
        }
    }
    return 0;
}
