/* Attention for training (attention.c) as it is called from blocks.py. */

#ifndef ATTENTION_H
#define ATTENTION_H

#include <stdint.h>

/* bfloat16 (rows, heads, tokens, size): how many numbers lie between two neighbours of each but the last, which are
   side by side. */
struct heads {
    uint16_t *numbers;
    long row, head, token;
};

struct attention {
    long n_rows, n_heads, n_kv_heads, n_tokens, size; /* n_kv_heads divides n_heads */
    float scale;
    const int32_t *first_seen; /* (rows, tokens): a token sees those from here on, up to itself; never falling in a row */
    float *log_sums;           /* (rows, heads, tokens): ln of the sum of exp(scores) */
    int threads;
};

/* out = softmax(scale * q k^T) v. Both return how many heads found no memory. */
int attend_forward(const struct attention *, const struct heads *q, const struct heads *k, const struct heads *v,
                   const struct heads *out);

/* The gradients of q, k and v from that of out. */
int attend_backward(const struct attention *, const struct heads *q, const struct heads *k, const struct heads *v,
                    const struct heads *grad_out, const struct heads *grad_q, const struct heads *grad_k,
                    const struct heads *grad_v);

#endif
