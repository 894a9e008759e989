/*
 * A small NCCL whose ranks are threads of one process, for tests of what stands above the binding: calls are queued in streams, communicators are
 * non-blocking, and the bytes really move. Memory of devices and streams are the test's: it gives two functions, one that copies between a device
 * and the host in a stream's order, one that has inproc_run called in it. See InProcessNccl.cs.
 */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_USAGE = 5, IN_PROGRESS = 7, MAX_RANKS = 16, MAX_PARTS = 64 };
enum { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST, REDUCE, SEND, RECEIVE };

typedef struct { char internal[128]; } ncclUniqueId;
typedef struct ncclConfig { size_t size; unsigned magic, version; int blocking; } ncclConfig_t;

struct Op;
typedef struct Group {                                     /* the ranks of a communicator */
    long id;
    int size, joined;
    struct Op *slots[MAX_RANKS];
    int arrived; long generation;
    struct { const void *bytes; size_t count; int full; } box[MAX_RANKS][MAX_RANKS];   /* [from][to] */
    int colors[MAX_RANKS], keys[MAX_RANKS]; struct Comm *parts[MAX_RANKS]; int asked;
    struct Group *next;
} Group;
typedef struct Comm { Group *group; int rank, aborted, error; } Comm;   /* no group: a split that not all have asked for */
typedef struct { int kind, type, operation, peer; size_t count, in, out; const void *source; void *destination; char *host_in, *host_out; } Part;
typedef struct Op { Comm *comm; int parts; Part part[MAX_PARTS]; } Op;

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static Group *groups;
static long last_id;
static void (*copy)(void *stream, void *host, const void *device, size_t bytes, int to_host);
static void (*launch)(void *stream, void *op);
static __thread int depth;
static __thread Op *open_op;
static __thread void *open_stream;

void inproc_hooks(void *copy_function, void *launch_function) { *(void **)&copy = copy_function; *(void **)&launch = launch_function; }
void inproc_break(Comm *comm, int error) { pthread_mutex_lock(&gate); comm->error = error; pthread_mutex_unlock(&gate); }

static size_t size_of(int type) { return type <= 1 ? 1 : type == 6 || type == 9 ? 2 : type == 4 || type == 5 || type == 8 ? 8 : 4; }
static float widen(uint16_t x) { uint32_t bits = (uint32_t)x << 16; float f; memcpy(&f, &bits, 4); return f; }
static uint16_t narrow(float f) { uint32_t bits; memcpy(&bits, &f, 4); return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16); }

#define COMBINE(T, GET, PUT) for (size_t i = 0; i < n; i++) { \
    T sum = GET(0, i); \
    for (int r = 1; r < ranks; r++) { T x = GET(r, i); sum = operation == 0 ? (T)(sum + x) : operation == 2 ? (x > sum ? x : sum) : (x < sum ? x : sum); } \
    PUT(i, sum); }
static int combine(int type, int operation, int ranks, const char **in, size_t at, char *out, size_t n) {
#define GETF(r, i) ((const float *)(in[r] + at))[i]
#define PUTF(i, v) ((float *)out)[i] = v
#define GETB(r, i) widen(((const uint16_t *)(in[r] + at))[i])
#define PUTB(i, v) ((uint16_t *)out)[i] = narrow(v)
#define GETI(r, i) ((const int32_t *)(in[r] + at))[i]
#define PUTI(i, v) ((int32_t *)out)[i] = v
#define GETL(r, i) ((const int64_t *)(in[r] + at))[i]
#define PUTL(i, v) ((int64_t *)out)[i] = v
#define GETU(r, i) ((const uint8_t *)(in[r] + at))[i]
#define PUTU(i, v) ((uint8_t *)out)[i] = v
    switch (type) {
        case 7: COMBINE(float, GETF, PUTF) return 1;
        case 9: COMBINE(float, GETB, PUTB) return 1;
        case 2: COMBINE(int32_t, GETI, PUTI) return 1;
        case 4: COMBINE(int64_t, GETL, PUTL) return 1;
        case 1: COMBINE(uint8_t, GETU, PUTU) return 1;
        default: return 0;
    }
}

/* ---- What runs in a stream: every rank's i-th operation of a group meets the others' i-th. ---- */

/* Waits for all ranks; 0 when this rank was aborted. */
static int meet(Comm *comm, Op *op) {
    Group *g = comm->group;
    long generation = g->generation;
    g->slots[comm->rank] = op;
    if (++g->arrived == g->size) { g->arrived = 0; g->generation++; pthread_cond_broadcast(&changed); return 1; }
    while (g->generation == generation && !comm->aborted) pthread_cond_wait(&changed, &gate);
    return !comm->aborted;
}

static int run_collective(Op *op, int index) {
    Comm *comm = op->comm;
    Group *g = comm->group;
    if (!meet(comm, op)) return SUCCESS;
    Part *own = &op->part[index];
    const char *in[MAX_RANKS];
    for (int r = 0; r < g->size; r++) {
        Part *other = &g->slots[r]->part[index];
        if (g->slots[r]->parts <= index || other->kind != own->kind || other->count != own->count || other->type != own->type || other->operation != own->operation || other->peer != own->peer) return INVALID_USAGE;
        in[r] = other->host_in;
    }
    size_t size = size_of(own->type), bytes = own->count * size;
    int ok = 1;
    switch (own->kind) {
        case ALL_REDUCE: ok = combine(own->type, own->operation, g->size, in, 0, own->host_out, own->count); break;
        case REDUCE: if (own->peer == comm->rank) ok = combine(own->type, own->operation, g->size, in, 0, own->host_out, own->count); break;
        case REDUCE_SCATTER: ok = combine(own->type, own->operation, g->size, in, comm->rank * bytes, own->host_out, own->count); break;
        case ALL_GATHER: for (int r = 0; r < g->size; r++) memcpy(own->host_out + r * bytes, in[r], bytes); break;
        default: memcpy(own->host_out, in[own->peer], bytes); break;
    }
    meet(comm, op);                                        /* nobody's bytes are written again before all have read them */
    return ok ? SUCCESS : INVALID_USAGE;
}

static int run_pairs(Op *op) {
    Comm *comm = op->comm;
    Group *g = comm->group;
    for (int i = 0; i < op->parts; i++) {
        Part *p = &op->part[i];
        if (p->kind != SEND) continue;
        while (g->box[comm->rank][p->peer].full && !comm->aborted) pthread_cond_wait(&changed, &gate);
        g->box[comm->rank][p->peer].bytes = p->host_in;
        g->box[comm->rank][p->peer].count = p->in;
        g->box[comm->rank][p->peer].full = 1;
        pthread_cond_broadcast(&changed);
    }
    for (int i = 0; i < op->parts; i++) {
        Part *p = &op->part[i];
        if (p->kind != RECEIVE) continue;
        while (!g->box[p->peer][comm->rank].full && !comm->aborted) pthread_cond_wait(&changed, &gate);
        if (comm->aborted) return SUCCESS;
        if (g->box[p->peer][comm->rank].count != p->out) return INVALID_USAGE;
        memcpy(p->host_out, g->box[p->peer][comm->rank].bytes, p->out);
        g->box[p->peer][comm->rank].full = 0;
        pthread_cond_broadcast(&changed);
    }
    for (int i = 0; i < op->parts; i++)
        if (op->part[i].kind == SEND)
            while (g->box[comm->rank][op->part[i].peer].full && !comm->aborted) pthread_cond_wait(&changed, &gate);
    return SUCCESS;
}

void inproc_run(Op *op) {
    pthread_mutex_lock(&gate);
    int result = SUCCESS;
    if (!op->comm->aborted) {
        if (op->part[0].kind >= SEND) result = run_pairs(op);
        else for (int i = 0; i < op->parts && result == SUCCESS; i++) result = run_collective(op, i);
    }
    if (result != SUCCESS) op->comm->error = result;
    pthread_mutex_unlock(&gate);
}

/* ---- Calls. ---- */

static int enqueue(Op *op, void *stream) {
    for (int i = 0; i < op->parts; i++) if (op->part[i].in) copy(stream, op->part[i].host_in, op->part[i].source, op->part[i].in, 1);
    launch(stream, op);
    for (int i = 0; i < op->parts; i++) if (op->part[i].out) copy(stream, op->part[i].host_out, op->part[i].destination, op->part[i].out, 0);
    return SUCCESS;                                        /* what graphs may run again is never freed */
}

static int add(int kind, const void *source, void *destination, size_t in, size_t out, size_t count, int type, int operation, int peer, Comm *comm, void *stream) {
    if (comm->error) return comm->error;
    Op *op = depth ? open_op : NULL;
    if (!op) { op = calloc(1, sizeof(Op)); op->comm = comm; }
    if (op->comm != comm || op->parts == MAX_PARTS) return INVALID_USAGE;
    Part *p = &op->part[op->parts++];
    *p = (Part){ kind, type, operation, peer, count, in * size_of(type), out * size_of(type), source, destination, NULL, NULL };
    p->host_in = malloc(p->in + 1);
    p->host_out = malloc(p->out + 1);
    if (!depth) return enqueue(op, stream);
    open_op = op;
    open_stream = stream;
    return SUCCESS;
}

int ncclGetVersion(int *v) { *v = 22703; return SUCCESS; }
int ncclGetUniqueId(ncclUniqueId *out) {
    pthread_mutex_lock(&gate);
    long id = ++last_id;
    pthread_mutex_unlock(&gate);
    memset(out, 0x5a, sizeof(*out));
    memcpy(out->internal + 60, &id, sizeof(id));
    return SUCCESS;
}
int ncclCommInitRankConfig(Comm **out, int size, ncclUniqueId given, int rank, ncclConfig_t *config) {
    long id;
    memcpy(&id, given.internal + 60, sizeof(id));
    if (config->blocking != 0 || size > MAX_RANKS || given.internal[0] != 0x5a || given.internal[127] != 0x5a) return INVALID_USAGE;
    pthread_mutex_lock(&gate);
    Group *g = groups;
    while (g && g->id != id) g = g->next;
    if (!g) { g = calloc(1, sizeof(Group)); g->id = id; g->size = size; g->next = groups; groups = g; }
    Comm *comm = calloc(1, sizeof(Comm));
    comm->group = g;
    comm->rank = rank;
    g->joined++;
    pthread_mutex_unlock(&gate);
    *out = comm;
    return IN_PROGRESS;
}
int ncclCommSplit(Comm *comm, int color, int key, Comm **out, ncclConfig_t *config) {
    if (config->blocking != 0) return INVALID_USAGE;
    Comm *part = color < 0 ? NULL : calloc(1, sizeof(Comm));
    *out = part;
    pthread_mutex_lock(&gate);
    Group *g = comm->group;
    g->colors[comm->rank] = color; g->keys[comm->rank] = key; g->parts[comm->rank] = part;
    if (++g->asked == g->size) {
        g->asked = 0;
        for (int r = 0; r < g->size; r++) {
            if (g->colors[r] < 0) continue;
            Group *made = NULL;
            for (int s = 0; s < g->size; s++) {
                if (g->colors[s] != g->colors[r]) continue;
                if (g->parts[s]->group) { made = NULL; break; }
                if (!made) made = calloc(1, sizeof(Group));
                made->size++; made->joined++;
            }
            for (int s = 0; made && s < g->size; s++) {
                if (g->colors[s] != g->colors[r]) continue;
                int place = 0;
                for (int t = 0; t < g->size; t++) if (g->colors[t] == g->colors[s] && (g->keys[t] < g->keys[s] || (g->keys[t] == g->keys[s] && t < s))) place++;
                g->parts[s]->rank = place;
                g->parts[s]->group = made;
            }
        }
    }
    pthread_mutex_unlock(&gate);
    return IN_PROGRESS;
}
int ncclCommGetAsyncError(Comm *comm, int *error) {
    pthread_mutex_lock(&gate);
    *error = comm->error ? comm->error : !comm->group || comm->group->joined < comm->group->size ? IN_PROGRESS : SUCCESS;
    pthread_mutex_unlock(&gate);
    return SUCCESS;
}
int ncclCommAbort(Comm *comm) {
    pthread_mutex_lock(&gate);
    comm->aborted = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&gate);
    return SUCCESS;
}
int ncclCommFinalize(Comm *comm) { return comm->aborted ? INVALID_USAGE : SUCCESS; }
int ncclCommDestroy(Comm *comm) { return comm->aborted ? INVALID_USAGE : SUCCESS; }
const char *ncclGetErrorString(int code) { return code == INVALID_USAGE ? "invalid usage" : code == 6 ? "remote process exited or there was a network error" : "another"; }
const char *ncclGetLastError(Comm *comm) { (void)comm; return ""; }

int ncclAllReduce(const void *s, void *r, size_t n, int t, int op, Comm *c, void *stream) { return add(ALL_REDUCE, s, r, n, n, n, t, op, 0, c, stream); }
int ncclReduceScatter(const void *s, void *r, size_t n, int t, int op, Comm *c, void *stream) { return add(REDUCE_SCATTER, s, r, n * c->group->size, n, n, t, op, 0, c, stream); }
int ncclAllGather(const void *s, void *r, size_t n, int t, Comm *c, void *stream) { return add(ALL_GATHER, s, r, n, n * c->group->size, n, t, 0, 0, c, stream); }
int ncclBroadcast(const void *s, void *r, size_t n, int t, int root, Comm *c, void *stream) { return add(BROADCAST, s, r, c->rank == root ? n : 0, n, n, t, 0, root, c, stream); }
int ncclReduce(const void *s, void *r, size_t n, int t, int op, int root, Comm *c, void *stream) { return add(REDUCE, s, r, n, c->rank == root ? n : 0, n, t, op, root, c, stream); }
int ncclSend(const void *s, size_t n, int t, int peer, Comm *c, void *stream) { return add(SEND, s, NULL, n, 0, n, t, 0, peer, c, stream); }
int ncclRecv(void *r, size_t n, int t, int peer, Comm *c, void *stream) { return add(RECEIVE, NULL, r, 0, n, n, t, 0, peer, c, stream); }
int ncclGroupStart(void) { if (depth++ == 0) open_op = NULL; return SUCCESS; }
int ncclGroupEnd(void) {
    if (depth == 0) return INVALID_USAGE;
    if (--depth > 0 || !open_op) return SUCCESS;
    Op *op = open_op;
    open_op = NULL;
    return enqueue(op, open_stream);
}
