// The entry points of libcuda that the binding uses, recording what arrives. Structure layouts are written out from cuda.h, so that a wrong
// size or offset on the C# side shows here.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int id; char pad[8 - sizeof(int)]; union { char pad[64]; int cooperative; struct { unsigned x, y, z; } cluster; } value; } Attribute;
typedef struct { unsigned gridX, gridY, gridZ, blockX, blockY, blockZ, sharedBytes; void* stream; Attribute* attributes; unsigned count; } Config;

static struct { Config config; Attribute attributes[4]; unsigned char arguments[256]; size_t argumentBytes; void* function; } launch;

const void* stub_launch(void) { return &launch; }
size_t stub_size(int what) { return what == 0 ? sizeof(Config) : sizeof(Attribute); }

int cuInit(unsigned flags) { return flags == 0 ? 0 : 1; }
int cuGetErrorName(int e, const char** s) { *s = e == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : e == 500 ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR_INVALID_VALUE"; return 0; }
int cuGetErrorString(int e, const char** s) { *s = e == 2 ? "out of memory" : e == 500 ? "named symbol not found" : "invalid argument"; return 0; }
int cuDriverGetVersion(int* v) { *v = 12040; return 0; }
int cuDeviceGetCount(int* n) { *n = 2; return 0; }
int cuDeviceGet(int* d, int k) { *d = k; return k < 2 ? 0 : 101; }
int cuDeviceGetName(char* name, int n, int d) { strncpy(name, d == 0 ? "Stub 0" : "Stub 1", (size_t)n); return 0; }
int cuDeviceGetAttribute(int* v, int a, int d) { *v = 1000 * d + a; return 0; }
int cuDevicePrimaryCtxRetain(void** c, int d) { *c = (void*)(intptr_t)(0x100 + d); return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { return 0; }
static void* current;
int cuCtxSetCurrent(void* c) { current = c; return 0; }
int cuCtxSynchronize(void) { return current ? 0 : 201; }
int cuCtxEnablePeerAccess(void* c, unsigned f) { return c == (void*)0x101 && f == 0 ? 0 : 1; }
int cuDeviceCanAccessPeer(int* can, int a, int b) { *can = a != b; return 0; }
int cuMemGetInfo_v2(size_t* f, size_t* t) { *f = 123; *t = 456; return 0; }
int cuMemAlloc_v2(uint64_t* p, size_t n) { if (n > (size_t)1 << 40) return 2; *p = (uint64_t)(uintptr_t)aligned_alloc(512, (n + 511) / 512 * 512); return 0; }
int cuMemFree_v2(uint64_t p) { free((void*)(uintptr_t)p); return 0; }
int cuMemAllocAsync(uint64_t* p, size_t n, void* s) { return cuMemAlloc_v2(p, n); }
int cuMemFreeAsync(uint64_t p, void* s) { return cuMemFree_v2(p); }
int cuMemHostAlloc(void** p, size_t n, unsigned f) { *p = malloc(n); return f == 0 ? 0 : 1; }
int cuMemFreeHost(void* p) { free(p); return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t d, const void* s, size_t n, void* q) { memcpy((void*)(uintptr_t)d, s, n); return 0; }
int cuMemcpyDtoHAsync_v2(void* d, uint64_t s, size_t n, void* q) { memcpy(d, (void*)(uintptr_t)s, n); return 0; }
int cuMemcpyAsync(uint64_t d, uint64_t s, size_t n, void* q) { memmove((void*)(uintptr_t)d, (void*)(uintptr_t)s, n); return 0; }
int cuMemsetD8Async(uint64_t d, unsigned char v, size_t n, void* q) { memset((void*)(uintptr_t)d, v, n); return 0; }
int cuMemsetD16Async(uint64_t d, unsigned short v, size_t n, void* q) { for (size_t k = 0; k < n; k++) ((unsigned short*)(uintptr_t)d)[k] = v; return 0; }
int cuMemsetD32Async(uint64_t d, unsigned v, size_t n, void* q) { for (size_t k = 0; k < n; k++) ((unsigned*)(uintptr_t)d)[k] = v; return 0; }
int cuModuleLoadData(void** m, const void* image) { *m = (void*)(intptr_t)(0x200 + *(const unsigned char*)image); return 0; }
int cuModuleUnload(void* m) { return 0; }
int cuModuleGetFunction(void** f, void* m, const char* name) { if (strcmp(name, "known")) return 500; *f = (void*)0x300; return 0; }
int cuModuleGetGlobal_v2(uint64_t* p, size_t* n, void* m, const char* name) { *p = 0x400; *n = 16; return 0; }
int cuFuncGetAttribute(int* v, int a, void* f) { *v = a + 7; return 0; }
int cuFuncSetAttribute(void* f, int a, int v) { return a == 8 && v == 65536 ? 0 : 1; }
int cuFuncGetParamInfo(void* f, size_t k, size_t* o, size_t* n) { if (k > 1) return 1; *o = 8 * k; *n = 8 - 4 * k; return 0; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* b, void* f, int threads, size_t shared) { *b = 2048 / threads; return 0; }
int cuLaunchKernelEx(const Config* c, void* f, void** parameters, void** extra)
{
    if (parameters) return 1;
    launch.config = *c;
    launch.function = f;
    for (unsigned k = 0; k < c->count; k++) launch.attributes[k] = c->attributes[k];
    launch.argumentBytes = 0;
    if (extra)
    {
        if (extra[0] != (void*)1 || extra[2] != (void*)2 || extra[4] != 0) return 1;
        launch.argumentBytes = *(size_t*)extra[3];
        memcpy(launch.arguments, extra[1], launch.argumentBytes);
    }
    return 0;
}
int cuStreamCreate(void** s, unsigned f) { *s = (void*)(intptr_t)(0x500 + f); return 0; }
int cuStreamDestroy_v2(void* s) { return 0; }
int cuStreamSynchronize(void* s) { return 0; }
int cuStreamQuery(void* s) { return s == (void*)0x501 ? 600 : 0; }
int cuStreamWaitEvent(void* s, void* e, unsigned f) { return f == 0 ? 0 : 1; }
int cuLaunchHostFunc(void* s, void (*call)(void*), void* data) { call(data); return 0; }
int cuEventCreate(void** e, unsigned f) { *e = (void*)(intptr_t)(0x600 + f); return 0; }
int cuEventDestroy_v2(void* e) { return 0; }
int cuEventRecord(void* e, void* s) { return 0; }
int cuEventSynchronize(void* e) { return 0; }
int cuEventQuery(void* e) { return 0; }
int cuEventElapsedTime(float* ms, void* a, void* b) { *ms = 1.5f; return 0; }
int cuStreamBeginCapture_v2(void* s, int mode) { return mode == 0 ? 0 : 1; }
int cuStreamEndCapture(void* s, void** g) { *g = (void*)0x700; return 0; }
int cuGraphInstantiateWithFlags(void** x, void* g, unsigned long long f) { *x = (void*)0x800; return 0; }
int cuGraphLaunch(void* x, void* s) { return 0; }
int cuGraphDestroy(void* g) { return 0; }
int cuGraphExecDestroy(void* x) { return 0; }
