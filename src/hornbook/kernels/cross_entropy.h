/* The cross entropy of tokens over a vocabulary (cross_entropy.c) as it is called from blocks.py. */

#ifndef CROSS_ENTROPY_H
#define CROSS_ENTROPY_H

#include <stdint.h>

struct cross_entropy {
    long n_tokens, n_words, size;
    const uint16_t *hidden; /* bfloat16 (tokens, size) */
    const float *head;      /* (words, size) */
    const int64_t *labels;  /* (tokens): a word each */
    const float *weights;   /* (tokens) */
    float *losses;          /* (tokens): weight times -ln softmax(head hidden)[label] */
    float *of_hidden;       /* gradients of the sum of losses, (tokens, size) and (words, size), or both NULL */
    float *of_head;
    int threads;
};

/* Whether it pays: with tiles. By vectors, which multiply at a tenth of their rate, one product more costs more than scores
   in memory do. */
int cross_entropy_pays(void);

/* Returns 0, or 1 where there is no memory. */
int cross_entropy(const struct cross_entropy *);

#endif
