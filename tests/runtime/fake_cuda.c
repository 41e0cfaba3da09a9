/* A CUDA driver without a GPU, as strict as the real one about contexts: every call but those on devices
   fails with CUDA_ERROR_INVALID_CONTEXT (201) in a thread in which no context is current.  Memory is the
   host's, and everything is done at once. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NEEDS_CONTEXT if (depth == 0) return 201
static _Thread_local void *stack[16];
static _Thread_local int depth;
static int started, retained, live_device, live_host, live_streams;
static char context;

int cuInit(unsigned flags) { started = flags == 0; return 0; }
int cuDeviceGet(int *device, int ordinal)
{ if (!started) return 3; if (ordinal != 0) return 101; *device = 0; return 0; }
int cuDevicePrimaryCtxRetain(void **out, int device)
{ if (device != 0) return 101; retained++; *out = &context; return 0; }
int cuCtxPushCurrent_v2(void *c) { if (c != &context || depth == 16) return 201; stack[depth++] = c; return 0; }
int cuCtxPopCurrent_v2(void **out) { NEEDS_CONTEXT; *out = stack[--depth]; return 0; }
int cuStreamCreate(void **out, unsigned flags)
{ NEEDS_CONTEXT; if (flags != 1) return 1; live_streams++; *out = malloc(1); return 0; }
int cuStreamDestroy_v2(void *s) { NEEDS_CONTEXT; live_streams--; free(s); return 0; }
int cuStreamSynchronize(void *s) { NEEDS_CONTEXT; return s ? 0 : 400; }
int cuMemAlloc_v2(uint64_t *out, size_t size)
{ NEEDS_CONTEXT; if (!size || size > 1u << 30) return 2; live_device++; *out = (uint64_t)(uintptr_t)malloc(size); return 0; }
int cuMemFree_v2(uint64_t p) { NEEDS_CONTEXT; live_device--; free((void *)(uintptr_t)p); return 0; }
int cuMemAllocHost_v2(void **out, size_t size) { NEEDS_CONTEXT; live_host++; *out = malloc(size); return 0; }
int cuMemFreeHost(void *p) { NEEDS_CONTEXT; live_host--; free(p); return 0; }
static int move(void *to, const void *from, size_t n, void *s)
{ NEEDS_CONTEXT; if (!s) return 400; memmove(to, from, n); return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, void *s)
{ return move((void *)(uintptr_t)to, from, n, s); }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, void *s)
{ return move(to, (void *)(uintptr_t)from, n, s); }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, void *s)
{ return move((void *)(uintptr_t)to, (void *)(uintptr_t)from, n, s); }
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t n, void *s)
{ NEEDS_CONTEXT; if (!s) return 400; memset((void *)(uintptr_t)to, value, n); return 0; }
int cuEventCreate(void **out, unsigned flags) { NEEDS_CONTEXT; *out = malloc(1); return flags == 2 ? 0 : 1; }
int cuEventRecord(void *e, void *s) { NEEDS_CONTEXT; return e && s ? 0 : 400; }
int cuEventSynchronize(void *e) { NEEDS_CONTEXT; return e ? 0 : 400; }
int cuStreamWaitEvent(void *s, void *e, unsigned flags) { NEEDS_CONTEXT; return s && e && !flags ? 0 : 400; }
int cuGetErrorName(int code, const char **out)
{ *out = code == 201 ? "CUDA_ERROR_INVALID_CONTEXT" : code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "OTHER"; return 0; }
/* For the tests. */
int fake_depth(void) { return depth; }
int fake_live(int which) { return which == 0 ? live_device : which == 1 ? live_host : live_streams; }
