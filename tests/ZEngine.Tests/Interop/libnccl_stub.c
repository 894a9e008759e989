/* Writes down what arrives, in the order of the members of the calls; see NcclTests. */
#include <stddef.h>
#include <string.h>

typedef struct { char internal[128]; } ncclUniqueId;
/* As in nccl.h of 2.30. */
typedef struct {
    size_t size; unsigned int magic; unsigned int version;
    int blocking; int cgaClusterSize; int minCTAs; int maxCTAs;
    const char *netName; int splitShare; int trafficClass;
    const char *commName; int collnetEnable; int CTAPolicy; int shrinkShare; int nvlsCTAs; int nChannelsPerNetPeer; int nvlinkCentricSched;
    int graphUsageMode; int numRmaCtx; int maxP2pPeers; int graphStreamOrdering;
} ncclConfig_t;

static long long seen[16];
static int polls, failure, version = 21805;
static ncclConfig_t config;
static ncclUniqueId id;

void stub_set(int new_version, int new_polls, int new_failure) { version = new_version; polls = new_polls; failure = new_failure; }
long long stub_seen(int i) { return seen[i]; }
const void *stub_config(void) { return &config; }
const void *stub_id(void) { return &id; }
int stub_config_bytes(void) { return (int)sizeof(ncclConfig_t); }

static int note(long long op, long long a, long long b, long long c, long long d, long long e, long long f, long long g) {
    long long all[8] = { op, a, b, c, d, e, f, g };
    memcpy(seen, all, sizeof(all));
    return failure;
}

int ncclGetVersion(int *v) { *v = version; return 0; }
int ncclGetUniqueId(ncclUniqueId *out) { for (int i = 0; i < 128; i++) out->internal[i] = (char)(i ^ 0x5a); return 0; }
int ncclCommInitRankConfig(void **comm, int nranks, ncclUniqueId given, int rank, ncclConfig_t *c) {
    id = given; config = *c; *comm = (void *)0x1234567890L;
    note(1, nranks, rank, 0, 0, 0, 0, 0);
    return failure ? failure : 7;
}
int ncclCommSplit(void *comm, int color, int key, void **out, ncclConfig_t *c) { config = *c; *out = color < 0 ? 0 : (void *)0x77L; return note(2, (long long)comm, color, key, 0, 0, 0, 0); }
int ncclCommFinalize(void *comm) { return note(3, (long long)comm, 0, 0, 0, 0, 0, 0); }
int ncclCommDestroy(void *comm) { return note(4, (long long)comm, 0, 0, 0, 0, 0, 0); }
int ncclCommAbort(void *comm) { return note(5, (long long)comm, 0, 0, 0, 0, 0, 0); }
int ncclCommGetAsyncError(void *comm, int *error) { (void)comm; *error = polls > 0 ? (polls--, 7) : failure; return 0; }
const char *ncclGetErrorString(int code) { return code == 6 ? "remote process exited" : "unhandled"; }
const char *ncclGetLastError(void *comm) { (void)comm; return "the last words"; }
int ncclAllReduce(const void *s, void *r, size_t n, int t, int op, void *comm, void *stream) { return note(6, (long long)s, (long long)r, (long long)n, t, op, (long long)comm, (long long)stream); }
int ncclReduceScatter(const void *s, void *r, size_t n, int t, int op, void *comm, void *stream) { return note(7, (long long)s, (long long)r, (long long)n, t, op, (long long)comm, (long long)stream); }
int ncclAllGather(const void *s, void *r, size_t n, int t, void *comm, void *stream) { return note(8, (long long)s, (long long)r, (long long)n, t, 0, (long long)comm, (long long)stream); }
int ncclBroadcast(const void *s, void *r, size_t n, int t, int root, void *comm, void *stream) { return note(9, (long long)s, (long long)r, (long long)n, t, root, (long long)comm, (long long)stream); }
int ncclReduce(const void *s, void *r, size_t n, int t, int op, int root, void *comm, void *stream) { return note(14, (long long)s, (long long)r, (long long)n, t, op * 100 + root, (long long)comm, (long long)stream); }
int ncclSend(const void *s, size_t n, int t, int peer, void *comm, void *stream) { return note(10, (long long)s, 0, (long long)n, t, peer, (long long)comm, (long long)stream); }
int ncclRecv(void *r, size_t n, int t, int peer, void *comm, void *stream) { return note(11, 0, (long long)r, (long long)n, t, peer, (long long)comm, (long long)stream); }
int ncclGroupStart(void) { return note(12, 0, 0, 0, 0, 0, 0, 0); }
int ncclGroupEnd(void) { return note(13, 0, 0, 0, 0, 0, 0, 0); }
