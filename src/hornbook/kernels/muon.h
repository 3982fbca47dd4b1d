/* A step of Muon (muon.c) as it is called from blocks.py. */

#ifndef MUON_H
#define MUON_H

/* All are rows x columns, one behind the other. Without momentum the gradient is the direction itself, and may be the
   weights. The step takes weights to keep * weights - step * the orthogonal direction. */
struct muon_matrix {
    float *weights;
    const float *gradient;
    float *momentum;
    long n_rows, n_columns;
    float keep, step;
};

/* Whether this machine has what the functions here need. */
int blocks_serve(void);

/* Returns how many matrices found no memory. These are as they were. */
int muon_step(const struct muon_matrix *matrices, long n_matrices, float momentum, const float *coefficients,
              int iterations, int threads);

#endif
