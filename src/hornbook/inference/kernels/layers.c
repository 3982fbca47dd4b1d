/* A step of decoding: one new token of each of some texts goes through all layers.

   For so few vectors the calls of the dozens of operations that torch would make of a layer take longer than computing
   what stands between its products, and half as long as reading its weights. */

#include <stdlib.h>
#include "products.h"
#include "steps.h"

enum type { FLOAT32, BFLOAT16, INT8 };

struct matrix {
    const void *weights;
    const float *scales; /* of the rows of int8, else null */
    const float *bias;   /* or null */
    long n_rows, n_columns;
    int type;
};

struct layer {
    struct norm before_attention, before_feed_forward;
    struct attention attention;
    struct matrix qkv, out, up, down; /* where it is gated, the rows of `up` are the gates' and then the others */
    int is_gated;
};

/* vectors (count, n_columns) → out (count, n_rows). 1 where there is no memory, else 0. */
static int multiply(const struct matrix *by, const float *vectors, float *out, long count, int threads)
{
    const long n_columns = by->n_columns, n_rows = by->n_rows;
    int failed = by->type == INT8 ? multiply_int8(by->weights, by->scales, vectors, out, n_columns, n_rows, count, threads)
        : by->type == BFLOAT16 ? multiply_bfloat16(by->weights, vectors, out, n_columns, n_rows, count, threads)
                               : multiply_float32(by->weights, vectors, out, n_columns, n_rows, count, threads);
    if (by->bias)
        for (long v = 0; v < count; v++)
            for (long r = 0; r < n_rows; r++) out[v * n_rows + r] += by->bias[r];
    return failed;
}

static long larger(long a, long b) { return a > b ? a : b; }

static void add(float *to, const float *from, long size)
{
    for (long i = 0; i < size; i++) to[i] += from[i];
}

/* x: the vectors (n_texts, width) that the layers add to. keys, values: each layer's part of the cache, of cache_type.
   Returns 1 where there is no memory, else 0. */
int read_tokens(const struct layer *layers, long n_layers, const struct texts *texts, void *const *keys,
                void *const *values, int cache_type, float *x, long width, int threads)
{
    const long n = texts->n_texts;
    long widest = width, n_scores = 0;
    for (long i = 0; i < n_layers; i++) {
        widest = larger(widest, larger(layers[i].qkv.n_rows, layers[i].up.n_rows));
        n_scores = larger(n_scores, n * layers[i].attention.n_kv_heads * texts->head_stride / layers[i].attention.head_dim);
    }
    float *room = malloc((2 * n * widest + n * width + n_scores) * sizeof *room);
    if (!room) return 1;
    float *wide = room, *mixed = wide + n * widest, *part = mixed + n * widest, *scores = part + n * width;
    int failed = 0;
    for (const struct layer *layer = layers; layer < layers + n_layers; layer++) {
        const long i = layer - layers;
        normalise(x, &layer->before_attention, part, n, width, threads);
        failed |= multiply(&layer->qkv, part, wide, n, threads);
        if (cache_type == BFLOAT16)
            attend_bfloat16(&layer->attention, texts, wide, keys[i], values[i], scores, mixed, threads);
        else
            attend_float32(&layer->attention, texts, wide, keys[i], values[i], scores, mixed, threads);
        failed |= multiply(&layer->out, mixed, part, n, threads);
        add(x, part, n * width);

        normalise(x, &layer->before_feed_forward, part, n, width, threads);
        failed |= multiply(&layer->up, part, wide, n, threads);
        if (layer->is_gated)
            gate(wide, mixed, n, layer->down.n_columns, threads);
        else
            bend(wide, mixed, n, layer->down.n_columns);
        failed |= multiply(&layer->down, mixed, part, n, threads);
        add(x, part, n * width);
    }
    free(room);
    return failed;
}

/* RMSNorm of `count` vectors of `size` numbers. */
void normalise_rms(const float *vectors, const float *weight, float eps, float *out, long count, long size, int threads)
{
    struct norm norm = {weight, 0, eps};
    normalise(vectors, &norm, out, count, size, threads);
}

/* silu(gate) * up of `count` vectors (2 * size). */
void gate_silu(const float *gates_ups, float *out, long count, long size, int threads)
{
    gate(gates_ups, out, count, size, threads);
}
