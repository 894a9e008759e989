/* cuBLASLt as a plain loop over host memory: what arrives there is multiplied as the library's documentation says, column-major. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int type; uint64_t rows, columns; int64_t leading; int count; int64_t next; } Layout;
typedef struct { int compute, scale, transposeA, transposeB, epilogue; const void* bias; void* kept; int64_t keptLeading, keptNext; } Product;
typedef struct { uint64_t workspace; int reductions, alignment[4]; } Preference;
typedef struct { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; } Heuristic;

static int refusing, live, handles;
static size_t version = 120405;
static long long seen[16];                                    /* products, lookups, workspace limit, reductions, alignments of A, B and D, compute, epilogue, stream, handle */
enum { WORKSPACE = 4096, HANDLE = 0x4321, RELU = 2, BIAS = 4, GELU = 32, KEPT = 128 };

void stub_set(long long new_version, int new_refusing) { version = (size_t)new_version; refusing = new_refusing; memset(seen, 0, sizeof seen); }
long long stub_seen(int i) { return seen[i]; }
int stub_live(void) { return live + handles; }

size_t cublasLtGetVersion(void) { return version; }
const char* cublasLtGetStatusName(int s) { return s == 13 ? "CUBLAS_STATUS_EXECUTION_FAILED" : "CUBLAS_STATUS_NOT_INITIALIZED"; }
const char* cublasLtGetStatusString(int s) { return s == 13 ? "the function failed to launch on the GPU" : "the library was not initialized"; }
int cublasLtCreate(void** h) { if (refusing == 1) return 1; *h = (void*)HANDLE; handles++; return 0; }
int cublasLtDestroy(void* h) { handles--; return h == (void*)HANDLE ? 0 : 7; }

int cublasLtMatmulDescCreate(Product** p, int compute, int scale) { *p = calloc(1, sizeof **p); (*p)->compute = compute; (*p)->scale = scale; (*p)->epilogue = 1; live++; return 0; }
int cublasLtMatmulDescDestroy(Product* p) { free(p); live--; return 0; }
int cublasLtMatmulDescSetAttribute(Product* p, int a, const void* v, size_t n)
{
    if (a == 8 || a >= 11 && a <= 13)
    {
        if (n != 8) return 7;
        if (a == 8) p->bias = *(const void* const*)v;
        else if (a == 11) p->kept = *(void* const*)v;
        else *(a == 12 ? &p->keptLeading : &p->keptNext) = *(const int64_t*)v;
        return 0;
    }
    int* at = a == 3 ? &p->transposeA : a == 4 ? &p->transposeB : a == 7 ? &p->epilogue : 0;
    if (!at || n != 4) return 7;
    *at = *(const int*)v;
    return 0;
}
int cublasLtMatmulDescGetAttribute(Product* p, int a, void* v, size_t n, size_t* w) { return 7; }
int cublasLtMatrixLayoutCreate(Layout** l, int type, uint64_t rows, uint64_t columns, int64_t leading)
{
    *l = calloc(1, sizeof **l);
    (*l)->type = type; (*l)->rows = rows; (*l)->columns = columns; (*l)->leading = leading; (*l)->count = 1;
    live++;
    return leading >= (int64_t)rows ? 0 : 7;
}
int cublasLtMatrixLayoutDestroy(Layout* l) { free(l); live--; return 0; }
int cublasLtMatrixLayoutSetAttribute(Layout* l, int a, const void* v, size_t n)
{
    if (a == 5 && n == 4) l->count = *(const int*)v;
    else if (a == 6 && n == 8) l->next = *(const int64_t*)v;
    else return 7;
    return 0;
}
int cublasLtMatrixLayoutGetAttribute(Layout* l, int a, void* v, size_t n, size_t* w) { return 7; }
int cublasLtMatmulPreferenceCreate(Preference** p) { *p = calloc(1, sizeof **p); live++; return 0; }
int cublasLtMatmulPreferenceDestroy(Preference* p) { free(p); live--; return 0; }
int cublasLtMatmulPreferenceSetAttribute(Preference* p, int a, const void* v, size_t n)
{
    if (a == 1 && n == 8) p->workspace = *(const uint64_t*)v;
    else if (a == 3 && n == 4) p->reductions = *(const int*)v;
    else if (a >= 5 && a <= 8 && n == 4) p->alignment[a - 5] = *(const int*)v;
    else return 7;
    return 0;
}
int cublasLtMatmulPreferenceGetAttribute(Preference* p, int a, void* v, size_t n, size_t* w) { return 7; }

static int fits(const Product* p, const Layout* a, const Layout* b, const Layout* d)
{
    uint64_t m = p->transposeA ? a->columns : a->rows, k = p->transposeA ? a->rows : a->columns;
    uint64_t n = p->transposeB ? b->rows : b->columns, l = p->transposeB ? b->columns : b->rows;
    return m == d->rows && n == d->columns && k == l && a->count == d->count && b->count == d->count && a->type == b->type && (b->type == d->type || !d->type)
        && (!(p->epilogue & KEPT) || (p->epilogue & GELU && !((uintptr_t)p->kept % 16) && p->kept && p->keptLeading % 8 == 0 && p->keptLeading >= (int64_t)d->rows && p->keptNext % 8 == 0));
}

int cublasLtMatmulAlgoGetHeuristic(void* h, Product* p, Layout* a, Layout* b, Layout* c, Layout* d, Preference* q, int wanted, Heuristic* found, int* count)
{
    if (h != (void*)HANDLE || wanted != 1 || c != d || !fits(p, a, b, d)) return 7;
    seen[1]++;
    seen[2] = (long long)q->workspace; seen[3] = q->reductions; seen[4] = q->alignment[0]; seen[5] = q->alignment[1]; seen[6] = q->alignment[3];
    seen[7] = p->compute; seen[8] = p->epilogue;
    if (refusing == 2) return 15;
    if (q->alignment[2] != q->alignment[3] || p->scale != 0) return 7;
    memset(found, 0, sizeof *found);
    for (int i = 0; i < 8; i++) found->algorithm[i] = 0x1111u * (unsigned)(i + 1);
    found->workspace = WORKSPACE;
    *count = 1;
    return 0;
}

static float number(const void* from, int type, int64_t i)
{
    uint32_t bits;
    float f;
    if (type == 0) return ((const float*)from)[i];
    uint16_t half = ((const uint16_t*)from)[i];
    if (type == 14) { bits = (uint32_t)half << 16; memcpy(&f, &bits, 4); return f; }
    _Float16 binary16;
    memcpy(&binary16, &half, 2);
    return (float)binary16;
}

static void put(void* to, int type, int64_t i, float f)
{
    uint32_t bits;
    if (type == 0) { ((float*)to)[i] = f; return; }
    if (type == 14) { memcpy(&bits, &f, 4); ((uint16_t*)to)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16); return; }
    _Float16 binary16 = (_Float16)f;
    memcpy((uint16_t*)to + i, &binary16, 2);
}

int cublasLtMatmul(void* h, Product* p, const float* alpha, const void* a, Layout* al, const void* b, Layout* bl, const float* beta, const void* c, Layout* cl, void* d, Layout* dl,
    const uint64_t* algorithm, void* workspace, size_t bytes, void* stream)
{
    if (h != (void*)HANDLE || c != d || cl != dl || *alpha != 1 || (*beta != 0 && *beta != 1) || !fits(p, al, bl, dl)) return 7;
    if (bytes != WORKSPACE || !workspace || (uintptr_t)workspace % 256 || refusing == 3) return 13;
    for (int i = 0; i < 8; i++) if (algorithm[i] != 0x1111u * (unsigned)(i + 1)) return 13;
    memset(workspace, 0xff, bytes);                           /* it is the library's */
    int64_t k = (int64_t)(p->transposeA ? al->rows : al->columns);
    for (int s = 0; s < dl->count; s++)
    for (int64_t n = 0; n < (int64_t)dl->columns; n++)
    for (int64_t m = 0; m < (int64_t)dl->rows; m++)
    {
        double sum = 0;
        for (int64_t i = 0; i < k; i++)
        {
            float x = number(a, al->type, s * al->next + (p->transposeA ? i + m * al->leading : m + i * al->leading));
            float y = number(b, bl->type, s * bl->next + (p->transposeB ? n + i * bl->leading : i + n * bl->leading));
            sum += (double)x * y;
        }
        int64_t at = s * dl->next + m + n * dl->leading;
        if (*beta != 0) sum += number(d, dl->type, at);
        if (p->epilogue & BIAS) sum += ((const float*)p->bias)[m];
        if (p->epilogue & KEPT) put(p->kept, dl->type, s * p->keptNext + m + n * p->keptLeading, (float)sum);
        if (p->epilogue & RELU) sum = sum > 0 ? sum : 0;
        if (p->epilogue & GELU) sum = 0.5 * sum * (1 + tanh(sqrt(2 / acos(-1)) * (sum + 0.044715 * sum * sum * sum)));
        put(d, dl->type, at, (float)sum);
    }
    seen[0]++;
    seen[9] = (long long)(intptr_t)stream;
    return 0;
}
