/* Products of few vectors with a matrix: see products.c. */

#ifndef PRODUCTS_H
#define PRODUCTS_H

#include <stdint.h>

int multiply_float32(const float *weights, const float *vectors, float *out, long n_columns, long n_rows, long n_vectors,
                     int threads);
int multiply_bfloat16(const uint16_t *weights, const float *vectors, float *out, long n_columns, long n_rows,
                      long n_vectors, int threads);
int multiply_int8(const int8_t *weights, const float *scales, const float *vectors, float *out, long n_columns,
                  long n_rows, long n_vectors, int threads);

#endif
