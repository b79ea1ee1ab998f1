// Laws and their gradients, for whatever type `real` is. Each function takes the number of rows, the
// coefficients (flat, in the order of the record), and a pointer per column in and out; those in `_rows` take and give
// whole rows of one array. exp(a * log(x)) beats the pow of libmvec: 2.7 times in float32, 1.1 times in float64.
#include <tgmath.h>

#define LAW(name) void name(long n, const real *restrict c, real *const *x, real *const *y)
#define COLUMN(name, pointer) real *restrict name = (pointer)
#define EVERY_ROW _Pragma("omp parallel for simd schedule(static)") for (long i = 0; i < n; i++)
#ifdef POWER
#define PRODUCT(x, a, y, b) (POWER(x, a) * POWER(y, b))
#define RAISED(x, log_x, a) POWER(x, a)
#else
#define POWER(x, a) exp((a) * log(x))
#define PRODUCT(x, a, y, b) exp((a) * log(x) + (b) * log(y))
#define RAISED(x, log_x, a) exp((a) * (log_x))  // several powers share a logarithm
#endif
#define EPS ((real)1e-6)

LAW(parallel) {
  COLUMN(params, x[0]); COLUMN(streams, x[1]); COLUMN(loss, y[0]);
  real c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3], alpha = c[4], beta = c[5];
  EVERY_ROW {
    real s = POWER(params[i], -alpha), p = POWER(streams[i], -beta);
    loss[i] = c0 + c1 * s + c2 * p + c3 * (s * p);
  }
}

LAW(parallel_gradient) {
  COLUMN(params, x[0]); COLUMN(streams, x[1]); COLUMN(dparams, y[0]); COLUMN(dstreams, y[1]);
  real c1 = c[1], c2 = c[2], c3 = c[3], alpha = c[4], beta = c[5];
  EVERY_ROW {
    real s = POWER(params[i], -alpha), p = POWER(streams[i], -beta);
    dparams[i] = -alpha * s * (c1 + c3 * p) / params[i];
    dstreams[i] = -beta * p * (c2 + c3 * s) / streams[i];
  }
}

LAW(moe) {
  COLUMN(params, x[0]); COLUMN(experts, x[1]); COLUMN(loss, y[0]);
  real l = c[0], k = c[1], alpha = c[2], beta = c[3];
  EVERY_ROW loss[i] = l + k * PRODUCT(params[i], -alpha, experts[i], -beta);
}

LAW(moe_gradient) {
  COLUMN(params, x[0]); COLUMN(experts, x[1]); COLUMN(dparams, y[0]); COLUMN(dexperts, y[1]);
  real k = c[1], alpha = c[2], beta = c[3];
  EVERY_ROW {
    real above = k * PRODUCT(params[i], -alpha, experts[i], -beta);
    dparams[i] = -alpha * above / params[i];
    dexperts[i] = -beta * above / experts[i];
  }
}

LAW(sft) {
  COLUMN(size, x[0]); COLUMN(loss, y[0]);
  real l = c[0], a = c[1], alpha = c[2];
  EVERY_ROW loss[i] = l + a * POWER(size[i], -alpha);
}

LAW(sft_gradient) {
  COLUMN(size, x[0]); COLUMN(dsize, y[0]);
  real a = c[1], alpha = c[2];
  EVERY_ROW dsize[i] = -alpha * a * POWER(size[i], -alpha) / size[i];
}

LAW(data_constrained) {
  COLUMN(params, x[0]); COLUMN(tokens, x[1]); COLUMN(unique, x[2]); COLUMN(loss, y[0]);
  real d = c[0], a = c[1], b = c[2], w = c[3], e = c[4], alpha = c[5], beta = c[6], gamma = c[7], delta = c[8];
  EVERY_ROW {
    real n = log(params[i]), t = log(tokens[i]), u = log(unique[i]);
    loss[i] = d + a * RAISED(params[i], n, -alpha) + b * RAISED(tokens[i], t, -beta)
      + w * RAISED(unique[i], u, -gamma) + e * RAISED(tokens[i] / unique[i], t - u, -delta);
  }
}

LAW(data_constrained_gradient) {
  COLUMN(params, x[0]); COLUMN(tokens, x[1]); COLUMN(unique, x[2]);
  COLUMN(dparams, y[0]); COLUMN(dtokens, y[1]); COLUMN(dunique, y[2]);
  real a = c[1], b = c[2], w = c[3], e = c[4], alpha = c[5], beta = c[6], gamma = c[7], delta = c[8];
  EVERY_ROW {
    real n = log(params[i]), t = log(tokens[i]), u = log(unique[i]);
    real passes = delta * e * RAISED(tokens[i] / unique[i], t - u, -delta);
    dparams[i] = -alpha * a * RAISED(params[i], n, -alpha) / params[i];
    dtokens[i] = (-beta * b * RAISED(tokens[i], t, -beta) - passes) / tokens[i];
    dunique[i] = (-gamma * w * RAISED(unique[i], u, -gamma) + passes) / unique[i];
  }
}

LAW(domain_mixture) {
  COLUMN(p0, x[0]); COLUMN(p1, x[1]); COLUMN(p2, x[2]); COLUMN(p3, x[3]); COLUMN(p4, x[4]);
  COLUMN(y0, y[0]); COLUMN(y1, y[1]); COLUMN(y2, y[2]); COLUMN(y3, y[3]); COLUMN(y4, y[4]);
  const real *restrict b = c, *restrict w = c + 5, *restrict v = c + 30;
#define LOSS(k) (b[k] \
  + w[5 * k] * p0[i] + w[5 * k + 1] * p1[i] + w[5 * k + 2] * p2[i] + w[5 * k + 3] * p3[i] + w[5 * k + 4] * p4[i] \
  + v[5 * k] * l0 + v[5 * k + 1] * l1 + v[5 * k + 2] * l2 + v[5 * k + 3] * l3 + v[5 * k + 4] * l4)
  EVERY_ROW {
    real l0 = log(p0[i] + EPS), l1 = log(p1[i] + EPS), l2 = log(p2[i] + EPS);
    real l3 = log(p3[i] + EPS), l4 = log(p4[i] + EPS);
    y0[i] = LOSS(0); y1[i] = LOSS(1); y2[i] = LOSS(2); y3[i] = LOSS(3); y4[i] = LOSS(4);
  }
}

LAW(domain_mixture_gradient) {
  for (int j = 0; j < 5; j++) {
    COLUMN(p, x[j]); COLUMN(dp, y[j]);
    real w = 0, v = 0;
    for (int k = 0; k < 5; k++) w += c[5 + 5 * k + j] / 5, v += c[30 + 5 * k + j] / 5;
    EVERY_ROW dp[i] = w + v / (p[i] + EPS);
  }
}

#define ABOVE(k) exp(t[5 * k] * p0[i] \
  + t[5 * k + 1] * p1[i] + t[5 * k + 2] * p2[i] + t[5 * k + 3] * p3[i] + t[5 * k + 4] * p4[i])

LAW(data_mixing) {
  COLUMN(p0, x[0]); COLUMN(p1, x[1]); COLUMN(p2, x[2]); COLUMN(p3, x[3]); COLUMN(p4, x[4]);
  COLUMN(y0, y[0]); COLUMN(y1, y[1]); COLUMN(y2, y[2]); COLUMN(y3, y[3]); COLUMN(y4, y[4]);
  const real *restrict t = c + 5;
  real l0 = exp(c[0]), l1 = exp(c[1]), l2 = exp(c[2]), l3 = exp(c[3]), l4 = exp(c[4]);
  EVERY_ROW {
    y0[i] = l0 + ABOVE(0); y1[i] = l1 + ABOVE(1); y2[i] = l2 + ABOVE(2); y3[i] = l3 + ABOVE(3); y4[i] = l4 + ABOVE(4);
  }
}

LAW(data_mixing_gradient) {
  COLUMN(p0, x[0]); COLUMN(p1, x[1]); COLUMN(p2, x[2]); COLUMN(p3, x[3]); COLUMN(p4, x[4]);
  COLUMN(y0, y[0]); COLUMN(y1, y[1]); COLUMN(y2, y[2]); COLUMN(y3, y[3]); COLUMN(y4, y[4]);
  const real *restrict t = c + 5;
#define SLOPE(j) ((t[j] * a0 + t[5 + j] * a1 + t[10 + j] * a2 + t[15 + j] * a3 + t[20 + j] * a4) / 5)
  EVERY_ROW {
    real a0 = ABOVE(0), a1 = ABOVE(1), a2 = ABOVE(2), a3 = ABOVE(3), a4 = ABOVE(4);
    y0[i] = SLOPE(0); y1[i] = SLOPE(1); y2[i] = SLOPE(2); y3[i] = SLOPE(3); y4[i] = SLOPE(4);
  }
}

// Blocks of rows are turned into columns and back, in cache: three times as fast as a loop over rows.
#define BLOCK 512

LAW(domain_mixture_rows) {
  const real *restrict b = c, *restrict w = c + 5, *restrict v = c + 30;
#pragma omp parallel for schedule(static)
  for (long start = 0; start < n; start += BLOCK) {
    int rows = n - start < BLOCK ? n - start : BLOCK;
    COLUMN(in, x[0] + 5 * start); COLUMN(out, y[0] + 5 * start);
    real logs[5 * BLOCK], p[5][BLOCK], l[5][BLOCK], loss[5][BLOCK];
    for (int i = 0; i < 5 * rows; i++) logs[i] = log(in[i] + EPS);
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < 5; j++) p[j][i] = in[5 * i + j], l[j][i] = logs[5 * i + j];
    for (int k = 0; k < 5; k++)
      for (int i = 0; i < rows; i++) {
        real sum = b[k];
        for (int j = 0; j < 5; j++) sum += w[5 * k + j] * p[j][i] + v[5 * k + j] * l[j][i];
        loss[k][i] = sum;
      }
    for (int i = 0; i < rows; i++)
      for (int k = 0; k < 5; k++) out[5 * i + k] = loss[k][i];
  }
}

LAW(domain_mixture_gradient_rows) {
  real w[5 * BLOCK], v[5 * BLOCK];  // the same five numbers again and again, so that the loop below is one of vectors
  for (int i = 0; i < 5 * BLOCK; i++) {
    w[i] = v[i] = 0;
    for (int k = 0; k < 5; k++) w[i] += c[5 + 5 * k + i % 5] / 5, v[i] += c[30 + 5 * k + i % 5] / 5;
  }
#pragma omp parallel for schedule(static)
  for (long start = 0; start < n; start += BLOCK) {
    int rows = n - start < BLOCK ? n - start : BLOCK;
    COLUMN(in, x[0] + 5 * start); COLUMN(out, y[0] + 5 * start);
    for (int i = 0; i < 5 * rows; i++) out[i] = w[i] + v[i] / (in[i] + EPS);
  }
}

// Reads every column in and writes every column out, in blocks that stay in cache.
void memory(long n, int in, int out, real *const *x, real *const *y) {
#pragma omp parallel for schedule(static)
  for (long start = 0; start < n; start += BLOCK) {
    int rows = n - start < BLOCK ? n - start : BLOCK;
    for (int j = 0; j < in; j++) {
      COLUMN(from, x[j] + start); COLUMN(to, y[j % out] + start);
      if (j < out)
        for (int i = 0; i < rows; i++) to[i] = from[i];
      else
        for (int i = 0; i < rows; i++) to[i] += from[i];
    }
  }
}
