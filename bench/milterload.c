/*
 * milterload - drive a milter (or a Postfix policy server) the way Postfix does, and measure it.
 *
 *   milterload -s inet:127.0.0.1:8891 -c 8 -n 4000 -f message.eml [-m 1] [-M '{auth_authen}=user'] ...
 *   milterload -P -s unix:/run/policy.sock -c 8 -n 20000 -a 'sasl_username=user%d' ...
 *
 * -s ADDR   inet:HOST:PORT or unix:PATH
 * -c N      connections open at once, each driven by a thread of its own (default 4)
 * -n N      messages (milter) or requests (policy) in all (default 1000)
 * -m N      messages on one connection before it is closed and opened again (default 1; policy 100)
 * -f FILE   message to send, RFC 5322, LF or CRLF; several -f are used in turn; of a folder every file, in the order of names
 * -O N      number of the first message (default 0): it chooses among several files, and is what %d becomes
 * -F ADDR   envelope sender (default sender@example.com); %d becomes the message's number
 * -R ADDR   envelope recipient, may be given several times (default rcpt@example.net); %d as above
 * -I IP     client address (default 192.0.2.10); %d becomes 1..250 by message number
 * -K N      %d in a header field's value becomes the message's number modulo N (default: left as it is); %m does in -F, -R, -H, -a
 * -H NAME   HELO name and client host name (default client.example.com); %d becomes the message's number
 * -M K=V    a macro sent before CONNECT (j, {daemon_name}, ...) or MAIL ({auth_authen}, ...); repeatable
 * -a K=V    a policy attribute, repeatable; %d becomes the request's number
 * -p PID    count the CPU time, and the memory at the end (PSS), of this process and its descendants; repeatable
 * -N PID    of a nameserver that the milter asks: its CPU time, with its descendants', is told apart; repeatable
 * -t SEC    give up on a reply after this many seconds (default 30)
 * -w N      messages sent first and not counted (default 0)
 * -d USEC   pause after each chunk of the body, so that a large message takes long enough to be watched
 * -A NAME   count the header fields of this name that were added ("fields_added": did the milter do its work?)
 * -x TEXT   count the fields of that name whose value has this text ("fields_with": TEXT: N); repeatable
 * -y TEXT   count the last replies that begin with this ("replies_with": TEXT: N): a reply code with its text, a policy
 *           server's action, or the letter of any other reply; repeatable
 * -v        print the modifications asked for the first message
 *
 * One line of JSON is printed: rate, latency percentiles (ms), how many replies of each kind,
 * CPU microseconds a message spent by the processes named with -p, and their memory; the same for
 * milterload itself, and by those named with -N; and how many cores everything else on the machine kept busy meanwhile.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAXLIST 64
#define CHUNK 65535

struct header { char *name, *value; };
struct message { struct header *h; int nh; char *body; size_t blen; };

static const char *addr = NULL, *from = "sender@example.com", *client = "192.0.2.10", *helo = "client.example.com";
static const char *rcpts[MAXLIST], *macros[MAXLIST], *attrs[MAXLIST];
static int nrcpt, nmacro, nattr, nmsgs;
struct trees { pid_t roots[MAXLIST]; int n; };
static struct trees counted, nameservers;
static struct message *msgs;
static const char *added_name = NULL, *texts[MAXLIST];
static int ntext;
static atomic_long fields_with[MAXLIST];
static const char *begins[MAXLIST];
static int nbegin;
static atomic_long replies_with[MAXLIST];
static long total = 1000, warm = 0, first_no = 0, modulo = 0, chunk_pause = 0;
static int conns = 4, permsg = 0, timeout_s = 30, verbose, policy;
static atomic_long next_no, errors, fields_added;
static atomic_long replies[256];
static double *lat;

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static void die(const char *m) { perror(m); exit(2); }

/* ---- messages ---- */
static void load(const char *path) {
    FILE *f = fopen(path, "rb"); if (!f) die(path);
    fseek(f, 0, SEEK_END); long n = ftell(f); rewind(f);
    char *raw = malloc(n + 1); if (fread(raw, 1, n, f) != (size_t)n) die(path); raw[n] = 0; fclose(f);
    char *crlf = malloc(2 * n + 1); size_t k = 0;
    for (long i = 0; i < n; i++) { if (raw[i] == '\n' && (i == 0 || raw[i-1] != '\r')) crlf[k++] = '\r'; crlf[k++] = raw[i]; }
    crlf[k] = 0;
    if (!(nmsgs & (nmsgs - 1))) msgs = realloc(msgs, (nmsgs ? 2 * nmsgs : 1) * sizeof *msgs);
    struct message *m = &msgs[nmsgs++]; memset(m, 0, sizeof *m); int room = 64; m->h = calloc(room, sizeof *m->h);
    char *p = crlf, *end = crlf + k;
    while (p < end) {
        if (p + 1 < end && p[0] == '\r' && p[1] == '\n') { p += 2; break; }
        char *e = p;
        for (;;) { char *q = memmem(e, end - e, "\r\n", 2); if (!q) { e = end; break; } e = q + 2; if (e >= end || (*e != ' ' && *e != '\t')) { e = q; break; } }
        char *c = memchr(p, ':', e - p);
        if (!c) { p = e + 2 > end ? end : e + 2; continue; }
        if (m->nh == room) { room *= 2; m->h = realloc(m->h, room * sizeof *m->h); }
        struct header *h = &m->h[m->nh++];
        h->name = strndup(p, c - p);
        char *v = c + 1; if (*v == ' ') v++;
        char *val = malloc(e - v + 1); size_t j = 0;
        for (char *q = v; q < e; q++) if (*q != '\r') val[j++] = *q;   /* Postfix sends folded lines joined by LF */
        val[j] = 0; h->value = val;
        p = e + 2 > end ? end : e + 2;
    }
    m->body = p < end ? p : end; m->blen = p < end ? end - p : 0;
}

static void load_all(const char *path) {
    struct stat st; if (stat(path, &st)) die(path);
    if (!S_ISDIR(st.st_mode)) { load(path); return; }
    struct dirent **e; int n = scandir(path, &e, NULL, alphasort); if (n < 0) die(path);
    for (int i = 0; i < n; i++) {
        char f[4096]; snprintf(f, sizeof f, "%s/%s", path, e[i]->d_name); if (e[i]->d_name[0] != '.') load(f); free(e[i]);
    }
    free(e);
}

/* ---- connection ---- */
struct conn { int fd; char *out; size_t len, cap; uint32_t proto; char in[1 << 16]; size_t ilen, ipos; char text[128]; };

static int dial(void) {
    int fd;
    if (!strncmp(addr, "unix:", 5)) {
        struct sockaddr_un u = { .sun_family = AF_UNIX }; if (strlen(addr + 5) >= sizeof u.sun_path) { errno = ENAMETOOLONG; die(addr); }
        strncpy(u.sun_path, addr + 5, sizeof u.sun_path - 1);
        fd = socket(AF_UNIX, SOCK_STREAM, 0); if (connect(fd, (void *)&u, sizeof u)) { close(fd); return -1; }
    } else {
        char host[256]; const char *a = addr; if (!strncmp(a, "inet:", 5)) a += 5;
        const char *c = strrchr(a, ':'); snprintf(host, sizeof host, "%.*s", (int)(c - a), a);
        struct sockaddr_in s = { .sin_family = AF_INET, .sin_port = htons(atoi(c + 1)) }; inet_pton(AF_INET, host, &s.sin_addr);
        fd = socket(AF_INET, SOCK_STREAM, 0); if (connect(fd, (void *)&s, sizeof s)) { close(fd); return -1; }
        int one = 1; setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    struct timeval tv = { .tv_sec = timeout_s }; setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    return fd;
}
static void put(struct conn *c, const void *d, size_t n) {
    if (c->len + n > c->cap) { c->cap = (c->len + n) * 2; c->out = realloc(c->out, c->cap); }
    memcpy(c->out + c->len, d, n); c->len += n;
}
static int flush_out(struct conn *c) {
    size_t o = 0; while (o < c->len) { ssize_t w = send(c->fd, c->out + o, c->len - o, MSG_NOSIGNAL); if (w <= 0) return -1; o += w; }
    c->len = 0; return 0;
}
static int need(struct conn *c, void *d, size_t n) {
    char *p = d;
    while (n) {
        if (c->ipos == c->ilen) { ssize_t r = recv(c->fd, c->in, sizeof c->in, 0); if (r <= 0) return -1; c->ilen = r; c->ipos = 0; }
        size_t k = c->ilen - c->ipos; if (k > n) k = n; memcpy(p, c->in + c->ipos, k); c->ipos += k; p += k; n -= k;
    }
    return 0;
}
static void cmd(struct conn *c, char op, const void *d, size_t n) {
    uint32_t l = htonl(n + 1); put(c, &l, 4); put(c, &op, 1); if (n) put(c, d, n);
}
/* an added field: 'h' is name, value; 'i' has a four-byte index before them */
static void count_added(char op, const char *b, size_t n) {
    size_t skip = op == 'i' ? 4 : 0; if (!added_name || (op != 'h' && op != 'i') || n <= skip) return;
    if (strcasecmp(b + skip, added_name)) return;
    atomic_fetch_add(&fields_added, 1);
    size_t name = strlen(b + skip) + 1; if (skip + name > n) return;
    for (int i = 0; i < ntext; i++) if (memmem(b + skip + name, n - skip - name, texts[i], strlen(texts[i]))) atomic_fetch_add(&fields_with[i], 1);
}
/* read one reply; modifications are skipped (printed with -v); returns the reply's letter or -1 */
static int reply(struct conn *c, int show) {
    if (flush_out(c)) return -1;
    for (;;) {
        uint32_t l; char op; if (need(c, &l, 4)) return -1; l = ntohl(l); if (l < 1 || l > 64 << 20) return -1;
        if (need(c, &op, 1)) return -1;
        char *b = malloc(l); if (need(c, b, l - 1)) { free(b); return -1; } b[l - 1] = 0;
        count_added(op, b, l - 1);
        if (show) { printf("  %c ", op); for (uint32_t i = 0; i + 1 < l; i++) putchar(b[i] ? b[i] : '|'); putchar('\n'); }
        if (op == 'y') snprintf(c->text, sizeof c->text, "%s", b); else snprintf(c->text, sizeof c->text, "%c", op);
        free(b);
        if (strchr("hi+-mbqpes2l", op) && op != 's') continue;
        return (unsigned char)op;
    }
}
static int step(struct conn *c, uint32_t nr) { return (c->proto & nr) ? 'c' : reply(c, 0); }
static void expand(char *o, size_t n, const char *t, long i) {
    const char *p = strstr(t, "%d"), *m = strstr(t, "%m");
    if (modulo && m && !p) { p = m; i %= modulo; }
    if (!p) { snprintf(o, n, "%s", t); return; }
    snprintf(o, n, "%.*s%ld%s", (int)(p - t), t, i, p + 2);
}
static void macro_cmd(struct conn *c, char stage, int mail) {
    char b[4096]; size_t n = 0; b[n++] = stage;
    for (int i = 0; i < nmacro; i++) {
        const char *e = strchr(macros[i], '='); if (!e) continue;
        int is_conn = macros[i][0] == 'j' || !strncmp(macros[i], "{daemon", 7) || macros[i][0] == 'v';
        if (is_conn == mail) continue;
        n += snprintf(b + n, sizeof b - n, "%.*s", (int)(e - macros[i]), macros[i]) + 1; n += snprintf(b + n, sizeof b - n, "%s", e + 1) + 1;
    }
    if (n > 1) cmd(c, 'D', b, n);
}
static int open_conn(struct conn *c, long no) {
    c->fd = dial(); if (c->fd < 0) return -1; c->len = c->ilen = c->ipos = 0;
    uint32_t o[3] = { htonl(6), htonl(0x1ff), htonl(0x1fffff) }; cmd(c, 'O', o, 12);
    if (flush_out(c)) return -1;
    uint32_t l; char op; if (need(c, &l, 4) || need(c, &op, 1) || op != 'O') return -1;
    uint32_t r[3]; if (need(c, r, 12)) return -1; l = ntohl(l); for (uint32_t i = 13; i < l; i++) { char x; if (need(c, &x, 1)) return -1; }
    c->proto = ntohl(r[2]);
    char ip[64], name[256], b[512]; expand(ip, sizeof ip, client, no % 250 + 1); expand(name, sizeof name, helo, no);
    macro_cmd(c, 'C', 0);
    if (!(c->proto & 1)) {
        size_t n = snprintf(b, sizeof b, "%s", name) + 1; b[n++] = '4'; b[n++] = 0x9c; b[n++] = 0x40; n += snprintf(b + n, sizeof b - n, "%s", ip) + 1;
        cmd(c, 'C', b, n); int x = step(c, 0x1000); if (x != 'c') return x;
    }
    if (!(c->proto & 2)) { cmd(c, 'H', name, strlen(name) + 1); int x = step(c, 0x2000); if (x != 'c') return x; }
    return 'c';
}
static int send_message(struct conn *c, long no) {
    char b[4096], a[1024]; int x; struct message *m = &msgs[no % nmsgs];
    size_t n; char q[64]; snprintf(q, sizeof q, "4Q%010lX", no);
    macro_cmd(c, 'M', 1);
    if (!(c->proto & 4)) {
        expand(a, sizeof a, from, no); n = snprintf(b, sizeof b, "<%s>", a) + 1; cmd(c, 'M', b, n);
        if ((x = step(c, 0x4000)) != 'c') return x;
    }
    n = 0; b[n++] = 'R'; n += snprintf(b + n, sizeof b - n, "i") + 1; n += snprintf(b + n, sizeof b - n, "%s", q) + 1; cmd(c, 'D', b, n);
    int taken = c->proto & 8; x = 'c';
    if (!taken) for (int i = 0; i < nrcpt; i++) {   /* a refusal is of that recipient; the message ends where none is left */
        expand(a, sizeof a, rcpts[i], no); n = snprintf(b, sizeof b, "<%s>", a) + 1; cmd(c, 'R', b, n);
        x = step(c, 0x8000); if (x == 'c') taken = 1; else if (!strchr("try", x)) return x;
    }
    if (!taken) return x;
    if (!(c->proto & 0x200)) { cmd(c, 'T', NULL, 0); if ((x = step(c, 0x10000)) != 'c') return x; }
    if (!(c->proto & 0x20)) for (int i = 0; i < m->nh; i++) {
        char v[1024]; const char *value = m->h[i].value;
        if (modulo && strlen(value) < sizeof v - 24 && strstr(value, "%d")) { expand(v, sizeof v, value, no % modulo); value = v; }
        size_t ln = strlen(m->h[i].name) + 1, lv = strlen(value) + 1; char *h = malloc(ln + lv + 1); n = 0;
        memcpy(h, m->h[i].name, ln); n = ln; if (c->proto & 0x100000) h[n++] = ' '; memcpy(h + n, value, lv); n += lv;
        cmd(c, 'L', h, n); free(h);
        if ((x = step(c, 0x80)) != 'c') return x;
    }
    if (!(c->proto & 0x40)) { cmd(c, 'N', NULL, 0); if ((x = step(c, 0x40000)) != 'c') return x; }
    if (!(c->proto & 0x10)) for (size_t o = 0; o < m->blen; o += CHUNK) {
        size_t k = m->blen - o > CHUNK ? CHUNK : m->blen - o; cmd(c, 'B', m->body + o, k);
        if (chunk_pause) { if (flush_out(c)) return -1; usleep(chunk_pause); }
        x = step(c, 0x80000); if (x == 's') break; if (x != 'c') return x;
    }
    n = 0; b[n++] = 'E'; n += snprintf(b + n, sizeof b - n, "i") + 1; n += snprintf(b + n, sizeof b - n, "%s", q) + 1; cmd(c, 'D', b, n);
    cmd(c, 'E', NULL, 0);
    return reply(c, verbose && no == first_no);
}
static int policy_request(struct conn *c, long no) {
    char b[1024];
    put(c, "request=smtpd_access_policy\n", 28);
    for (int i = 0; i < nattr; i++) { expand(b, sizeof b, attrs[i], no); put(c, b, strlen(b)); put(c, "\n", 1); }
    put(c, "\n", 1); if (flush_out(c)) return -1;
    char line[2048]; size_t n = 0; char prev = 0, ch;
    for (;;) { if (need(c, &ch, 1)) return -1; if (ch == '\n' && prev == '\n') break; if (n < sizeof line - 1) line[n++] = ch; prev = ch; }
    line[n] = 0; if (verbose && no == first_no) printf("  %s", line);
    char *a = strstr(line, "action="); snprintf(c->text, sizeof c->text, "%.*s", a ? (int)strcspn(a + 7, "\n") : 0, a ? a + 7 : "");
    return a ? toupper((unsigned char)a[7]) : '?';
}
static void *worker(void *arg) {
    (void)arg; struct conn *c = calloc(1, sizeof *c); c->fd = -1; int used = 0;
    for (;;) {
        long place = atomic_fetch_add(&next_no, 1), no = first_no + place; if (place >= total + warm) break;
        double t0 = now(); int x = 'c';
        if (c->fd < 0) { used = 0; c->text[0] = 0; if (policy) { c->fd = dial(); c->len = c->ilen = c->ipos = 0; if (c->fd < 0) x = -1; } else x = open_conn(c, no); }
        int at_connect = x != 'c';
        if (x == 'c') x = policy ? policy_request(c, no) : send_message(c, no);
        if (place >= warm) lat[place - warm] = now() - t0;
        if (x < 0) { atomic_fetch_add(&errors, 1); if (c->fd >= 0) close(c->fd); c->fd = -1; continue; }
        if (place >= warm) {
            atomic_fetch_add(&replies[x & 255], 1);
            for (int i = 0; i < nbegin; i++) if (!strncmp(c->text, begins[i], strlen(begins[i]))) atomic_fetch_add(&replies_with[i], 1);
        }
        if (++used >= permsg || at_connect || (x == '4' && !policy)) { if (c->fd >= 0) { if (!policy) { cmd(c, 'Q', NULL, 0); flush_out(c); } close(c->fd); } c->fd = -1; }
        else if (!policy) cmd(c, 'A', NULL, 0);
    }
    if (c->fd >= 0) { if (!policy) { cmd(c, 'Q', NULL, 0); flush_out(c); } close(c->fd); }
    return NULL;
}

/* ---- CPU and memory of process trees ---- */
static int descends(pid_t p, const struct trees *t) {
    for (int d = 0; d < 20 && p > 1; d++) {
        for (int i = 0; i < t->n; i++) if (t->roots[i] == p) return 1;
        char f[64], b[512]; snprintf(f, sizeof f, "/proc/%d/stat", p); FILE *h = fopen(f, "r"); if (!h) return 0;
        size_t n = fread(b, 1, sizeof b - 1, h); fclose(h); b[n] = 0; char *e = strrchr(b, ')'); if (!e) return 0;
        int pp = 0; sscanf(e + 1, " %*c %d", &pp); p = pp;
    }
    return 0;
}
static void usage_of(const struct trees *t, double *cpu, long *rss, int *procs) {
    *cpu = 0; *rss = 0; *procs = 0; if (!t->n) return;
    DIR *d = opendir("/proc"); struct dirent *e;
    while ((e = readdir(d))) {
        if (!isdigit((unsigned char)e->d_name[0])) continue; pid_t p = atoi(e->d_name); if (!descends(p, t)) continue;
        char f[64], b[1024]; snprintf(f, sizeof f, "/proc/%d/stat", p); FILE *h = fopen(f, "r"); if (!h) continue;
        size_t n = fread(b, 1, sizeof b - 1, h); fclose(h); b[n] = 0; char *q = strrchr(b, ')'); unsigned long ut, st; long cut, cst;
        if (sscanf(q + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %ld %ld", &ut, &st, &cut, &cst) == 4) *cpu += (ut + st + cut + cst) / (double)sysconf(_SC_CLK_TCK);
        snprintf(f, sizeof f, "/proc/%d/smaps_rollup", p); h = fopen(f, "r"); long pss = 0;
        if (h) { char line[256]; while (fgets(line, sizeof line, h)) if (sscanf(line, "Pss: %ld", &pss) == 1) break; fclose(h); }
        *rss += pss; ++*procs;
    }
    closedir(d);
}
static double own_cpu(void) {
    struct rusage u; getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}
/* seconds all cores together were busy, stolen time included (it is time we did not have) */
static double machine_cpu(void) {
    FILE *h = fopen("/proc/stat", "r"); if (!h) return 0;
    long f[8] = { 0 }; int n = fscanf(h, "cpu %ld %ld %ld %ld %ld %ld %ld %ld", f, f + 1, f + 2, f + 3, f + 4, f + 5, f + 6, f + 7); fclose(h);
    return n < 8 ? 0 : (f[0] + f[1] + f[2] + f[5] + f[6] + f[7]) / (double)sysconf(_SC_CLK_TCK);
}
static int cmp(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return x < y ? -1 : x > y; }

int main(int argc, char **argv) {
    int o;
    while ((o = getopt(argc, argv, "s:c:n:m:f:F:R:I:H:K:M:N:a:A:d:O:p:t:w:x:y:vP")) != -1) switch (o) {
        case 's': addr = optarg; break; case 'c': conns = atoi(optarg); break; case 'n': total = atol(optarg); break;
        case 'm': permsg = atoi(optarg); break; case 'f': load_all(optarg); break; case 'F': from = optarg; break;
        case 'R': rcpts[nrcpt++] = optarg; break; case 'I': client = optarg; break; case 'H': helo = optarg; break;
        case 'M': macros[nmacro++] = optarg; break; case 'a': attrs[nattr++] = optarg; break; case 'p': counted.roots[counted.n++] = atoi(optarg); break;
        case 'N': nameservers.roots[nameservers.n++] = atoi(optarg); break;
        case 'K': modulo = atol(optarg); break; case 'd': chunk_pause = atol(optarg); break; case 'A': added_name = optarg; break;
        case 'O': first_no = atol(optarg); break; case 'x': texts[ntext++] = optarg; break;
        case 'y': begins[nbegin++] = optarg; break;
        case 't': timeout_s = atoi(optarg); break; case 'w': warm = atol(optarg); break; case 'v': verbose = 1; break; case 'P': policy = 1; break;
        default: return 2; }
    if (!addr || (!policy && !nmsgs)) { fprintf(stderr, "milterload: -s and (-f or -P) are needed\n"); return 2; }
    if (!nrcpt) rcpts[nrcpt++] = "rcpt@example.net";
    if (!permsg) permsg = policy ? 100 : 1;
    lat = calloc(total + 1, sizeof *lat);
    double c0, c1, n0, n1, m0, m1, o0, o1; long r0, r1; int k; pthread_t t[1024]; if (conns > 1024) conns = 1024;
    long all = total; if (warm) { total = 0; for (int i = 0; i < conns; i++) pthread_create(&t[i], NULL, worker, NULL); for (int i = 0; i < conns; i++) pthread_join(t[i], NULL); total = all; atomic_store(&next_no, warm); atomic_store(&errors, 0); atomic_store(&fields_added, 0); for (int i = 0; i < MAXLIST; i++) { atomic_store(&fields_with[i], 0); atomic_store(&replies_with[i], 0); } for (int i = 0; i < 256; i++) atomic_store(&replies[i], 0); }
    usage_of(&nameservers, &n0, &r0, &k); usage_of(&counted, &c0, &r0, &k); m0 = machine_cpu(); o0 = own_cpu(); double t0 = now();
    for (int i = 0; i < conns; i++) pthread_create(&t[i], NULL, worker, NULL);
    for (int i = 0; i < conns; i++) pthread_join(t[i], NULL);
    double dt = now() - t0; m1 = machine_cpu(); o1 = own_cpu(); usage_of(&nameservers, &n1, &r1, &k); usage_of(&counted, &c1, &r1, &k);
    double elsewhere = (m1 - m0 - (o1 - o0) - (c1 - c0) - (n1 - n0)) / dt; if (elsewhere < 0) elsewhere = 0;
    qsort(lat, total, sizeof *lat, cmp);
    printf("{\"count\": %ld, \"errors\": %ld, \"seconds\": %.3f, \"per_second\": %.1f, \"p50_ms\": %.3f, \"p95_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, \"replies\": {",
           total, atomic_load(&errors), dt, total / dt, lat[total / 2] * 1e3, lat[(long)(total * .95)] * 1e3, lat[(long)(total * .99)] * 1e3, lat[total - 1] * 1e3);
    int first = 1; for (int i = 0; i < 256; i++) if (replies[i]) { printf("%s\"%c\": %ld", first ? "" : ", ", i, atomic_load(&replies[i])); first = 0; }
    printf("}, \"fields_with\": {"); for (int i = 0; i < ntext; i++) printf("%s\"%s\": %ld", i ? ", " : "", texts[i], atomic_load(&fields_with[i]));
    printf("}, \"replies_with\": {"); for (int i = 0; i < nbegin; i++) printf("%s\"%s\": %ld", i ? ", " : "", begins[i], atomic_load(&replies_with[i]));
    printf("}, \"fields_added\": %ld, \"cpu_us_each\": %.1f, \"memory_kb\": %ld, \"processes\": %d, \"driver_cpu_us_each\": %.1f, \"nameserver_cpu_us_each\": %.1f, \"elsewhere_cores\": %.2f}\n",
           atomic_load(&fields_added), counted.n ? (c1 - c0) / total * 1e6 : 0.0, r1, k, (o1 - o0) / total * 1e6, (n1 - n0) / total * 1e6, counted.n ? elsewhere : 0.0);
    return atomic_load(&errors) ? 1 : 0;
}
