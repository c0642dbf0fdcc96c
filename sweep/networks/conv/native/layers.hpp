// The other layers of a tile: linear layers, batch normalization, pooling, dropout, and the loss.
#pragma once
#include "tile.hpp"

namespace native {

constexpr int UB = 4;  // units of a block: weights are [units / UB][inputs][UB], and units padded to whole blocks

static INLINE int blocks(int units) { return (units + UB - 1) / UB * UB; }

// A linear layer of a batch: input i of picture p is at x[p * x_stride + place[i]], unit u of it at y[p * y_stride + u].
// Gradients lie as what they are of.
struct Linear {
  int pictures, inputs, units;
  int64_t x_stride, y_stride;
  const int32_t* place;
};

// Sixteen sums at a time; of inputs, so many that their weights stay in the first cache while all pictures pass.
constexpr int PB = LANES == 16 ? 4 : 2, IB = LANES == 16 ? 4 : 2, CHUNK = 16;

template <int PB>
static INLINE void linear_block(const Linear& l, const V* x, const V* w, const V* b, V* y, int from, int to, int act) {
  V sum[PB][UB];
  unroll<PB>([&](auto p) { unroll<UB>([&](auto q) { sum[p.v][q.v] = from ? y[p.v * l.y_stride + q.v] : b[q.v]; }); });
  for (int i = from; i < to; i++) {
    V k[UB];
    unroll<UB>([&](auto q) { k[q.v] = w[i * UB + q.v]; });
    unroll<PB>([&](auto p) {
      V v = x[p.v * l.x_stride + l.place[i]];
      unroll<UB>([&](auto q) { sum[p.v][q.v] = fma(v, k[q.v], sum[p.v][q.v]); });
    });
  }
  if (to < l.inputs) act = IDENTITY;
  of_kind(act, [&](auto kind) INLINE_LAMBDA {
    unroll<PB>([&](auto p) { unroll<UB>([&](auto q) { y[p.v * l.y_stride + q.v] = activated<kind.v>(sum[p.v][q.v]); }); });
  });
}

// y = activation(x * w + b)
static void linear(const Linear& l, const V* x, const V* w, const V* b, V* y, int act) {
  for (int from = 0; from < l.inputs; from += CHUNK) {
    int to = from + CHUNK < l.inputs ? from + CHUNK : l.inputs;
    for (int u = 0; u < l.units; u += UB) {
      const V* own = w + (int64_t)u * l.inputs;
      int p = 0;
      for (; p + PB <= l.pictures; p += PB)
        linear_block<PB>(l, x + p * l.x_stride, own, b + u, y + p * l.y_stride + u, from, to, act);
      for (; p < l.pictures; p++)
        linear_block<1>(l, x + p * l.x_stride, own, b + u, y + p * l.y_stride + u, from, to, act);
    }
  }
}

template <int PB, int IB>
static INLINE void back_block(const Linear& l, const V* dy, const V* w, int i, const V* x, V* dx, int act) {
  V sum[PB][IB];
  unroll<PB>([&](auto p) { unroll<IB>([&](auto j) { sum[p.v][j.v] = V{}; }); });
  for (int u = 0; u < l.units; u += UB) {
    const V* own = w + (int64_t)u * l.inputs + i * UB;
    unroll<UB>([&](auto q) {
      V k[IB];
      unroll<IB>([&](auto j) { k[j.v] = own[j.v * UB + q.v]; });
      unroll<PB>([&](auto p) {
        V d = dy[p.v * l.y_stride + u + q.v];
        unroll<IB>([&](auto j) { sum[p.v][j.v] = fma(d, k[j.v], sum[p.v][j.v]); });
      });
    });
  }
  of_kind(act, [&](auto kind) INLINE_LAMBDA {
    unroll<PB>([&](auto p) {
      unroll<IB>([&](auto j) {
        int64_t at = p.v * l.x_stride + l.place[i + j.v];
        dx[at] = masked<kind.v>(sum[p.v][j.v], x[at]);
      });
    });
  });
}

// The gradient of x, before the activation that made it.
static void linear_input(const Linear& l, const V* dy, const V* w, const V* x, V* dx, int act) {
  for (int from = 0; from < l.inputs; from += CHUNK) {
    int to = from + CHUNK < l.inputs ? from + CHUNK : l.inputs, p = 0;
    for (; p + PB <= l.pictures; p += PB) {
      int i = from;
      const V *dy_p = dy + p * l.y_stride, *x_p = x + p * l.x_stride;
      for (; i + 4 <= to; i += 4) back_block<PB, 4>(l, dy_p, w, i, x_p, dx + p * l.x_stride, act);
      for (; i < to; i++) back_block<PB, 1>(l, dy_p, w, i, x_p, dx + p * l.x_stride, act);
    }
    for (; p < l.pictures; p++)
      for (int i = from; i < to; i++)
        back_block<1, 1>(l, dy + p * l.y_stride, w, i, x + p * l.x_stride, dx + p * l.x_stride, act);
  }
}

template <int IB, class Take>
static INLINE void weight_block(const Linear& l, const V* x, const V* dy, int u, int i, Take&& take) {
  V sum[IB][UB];
  unroll<IB>([&](auto j) { unroll<UB>([&](auto q) { sum[j.v][q.v] = V{}; }); });
  for (int p = 0; p < l.pictures; p++) {
    V d[UB];
    unroll<UB>([&](auto q) { d[q.v] = dy[p * l.y_stride + u + q.v]; });
    unroll<IB>([&](auto j) {
      V v = x[p * l.x_stride + l.place[i + j.v]];
      unroll<UB>([&](auto q) { sum[j.v][q.v] = fma(v, d[q.v], sum[j.v][q.v]); });
    });
  }
  unroll<IB>([&](auto j) {
    unroll<UB>([&](auto q) { take((int64_t)u * l.inputs + (i + j.v) * UB + q.v, sum[j.v][q.v]); });
  });
}

// Calls take(index, gradient) for each weight, block by block, and afterwards take_bias for each bias.
template <class Take, class TakeBias>
static void linear_weight(const Linear& l, const V* x, const V* dy, Take&& take, TakeBias&& take_bias) {
  for (int from = 0; from < l.inputs; from += CHUNK) {
    int to = from + CHUNK < l.inputs ? from + CHUNK : l.inputs;
    for (int u = 0; u < l.units; u += UB) {
      int i = from;
      for (; i + IB <= to; i += IB) weight_block<IB>(l, x, dy, u, i, take);
      for (; i < to; i++) weight_block<1>(l, x, dy, u, i, take);
    }
  }
  for (int u = 0; u < l.units; u++) {
    V sum{};
    for (int p = 0; p < l.pictures; p++) sum += dy[p * l.y_stride + u];
    take_bias(u, sum);
  }
}

// Softmax cross-entropy: logits [pictures][units], of which `classes` count, become the gradient of the mean; returns
// that mean. With `right`, [pictures], gradients are not made; which pictures have their label as the first largest is.
static V cross_entropy(V* logits, const I* labels, int pictures, int units, int classes, uint8_t* right) {
  V total{}, share = splat(1.0f) / splat(float(pictures));
  for (int p = 0; p < pictures; p++) {
    V* own = logits + p * units;
    V most = own[0], sum{}, mine{};
    I best{};
    for (int u = 1; u < classes; u++) {
      I more = (I)(own[u] > most) | ((I)(own[u] != own[u]) & (I)(most == most));  // like PyTorch, a NaN is the largest
      best = (best & ~more) | (more & u);
      most = choose(more, own[u], most);
    }
    for (int u = 0; u < classes; u++) {
      V d = own[u] - most;
      mine += kept((I)(labels[p] == u), d);
      d = exponential(d);
      sum += d;
      if (!right) own[u] = d;
    }
    total += logarithm(sum) - mine;
    if (right) {
      for (int i = 0; i < L; i++) right[p * L + i] = best[i] == labels[p][i];
      continue;
    }
    V scale = share / sum;
    for (int u = 0; u < classes; u++) own[u] = own[u] * scale - kept((I)(labels[p] == u), share);
    for (int u = classes; u < units; u++) own[u] = V{};
  }
  return right ? total : total * share;
}

// Batch normalization of planes [pictures][rows][channels][columns], in place of what it reads.
struct Norm {
  int pictures, rows, channels, columns, pad;
  int64_t picture;  // numbers of one picture's plane
  template <class F> INLINE void over(int channel, F&& f) const {
    for (int p = 0; p < pictures; p++)
      for (int y = 0; y < rows; y++) {
        int64_t at = p * picture + (int64_t)(y * channels + channel) * (columns + 2 * pad) + pad;
        for (int x = 0; x < columns; x++) f(at + x);
      }
  }
};

constexpr float EPSILON = 1e-5f, MOMENTUM = 0.1f;

// y = activation(normalized z * weight + bias); in training `mean` and `inverse` are the batch's, kept for the gradient.
static void normalized(const Norm& n, const V* z, V* y, const V* weight, const V* bias, V* running_mean,
                       V* running_variance, V* mean, V* inverse, bool training, int activation) {
  float count = float(n.pictures) * n.rows * n.columns;
  for (int c = 0; c < n.channels; c++) {
    if (training) {
      V sum[4] = {}, square[4] = {};
      int k = 0;
      n.over(c, [&](int64_t at) { sum[k++ & 3] += z[at]; });
      V m = ((sum[0] + sum[1]) + (sum[2] + sum[3])) / splat(count);
      k = 0;
      n.over(c, [&](int64_t at) { V d = z[at] - m; square[k & 3] = fma(d, d, square[k & 3]); k++; });
      V total = (square[0] + square[1]) + (square[2] + square[3]);
      mean[c] = m;
      V variance = total / splat(count);
      inverse[c] = splat(1.0f) / root(variance + splat(EPSILON));
      running_mean[c] = running_mean[c] * splat(1 - MOMENTUM) + m * splat(MOMENTUM);
      running_variance[c] = running_variance[c] * splat(1 - MOMENTUM) + total / splat(count - 1) * splat(MOMENTUM);
    } else {
      mean[c] = running_mean[c];
      inverse[c] = splat(1.0f) / root(running_variance[c] + splat(EPSILON));
    }
    V scale = inverse[c] * weight[c], shift = bias[c] - mean[c] * scale;
    of_kind(activation, [&](auto kind) {
      n.over(c, [&](int64_t at) { y[at] = activated<kind.v>(fma(z[at], scale, shift)); });
    });
  }
}

// dz, of dy behind the normalization and before its activation, written over z; adds to the gradients of the parameters.
static void normalized_back(const Norm& n, const V* dy, V* z, const V* weight, const V* mean, const V* inverse,
                            V* dweight, V* dbias) {
  float count = float(n.pictures) * n.rows * n.columns;
  for (int c = 0; c < n.channels; c++) {
    V sum[4] = {}, product[4] = {};
    int k = 0;
    n.over(c, [&](int64_t at) {
      sum[k & 3] += dy[at];
      product[k & 3] = fma(dy[at], (z[at] - mean[c]) * inverse[c], product[k & 3]);
      k++;
    });
    V s = (sum[0] + sum[1]) + (sum[2] + sum[3]), t = (product[0] + product[1]) + (product[2] + product[3]);
    dbias[c] += s;
    dweight[c] += t;
    V scale = weight[c] * inverse[c], a = s / splat(count), b = t / splat(count);
    n.over(c, [&](int64_t at) { z[at] = scale * (dy[at] - a - (z[at] - mean[c]) * inverse[c] * b); });
  }
}

enum Pooling { NONE, MOST, MEAN };

struct Pool {  // of one picture: planes of `from` and of half its size
  int rows, channels, columns, pad;
  int64_t at(int y, int c, int x) const { return (int64_t)(y * channels + c) * (columns + 2 * pad) + pad + x; }
};

static void pooled(const Pool& from, const Pool& to, const V* y, V* x, int kind) {
  for (int r = 0; r < to.rows; r++)
    for (int c = 0; c < to.channels; c++)
      for (int k = 0; k < to.columns; k++) {
        const V *a = y + from.at(2 * r, c, 2 * k), *b = y + from.at(2 * r + 1, c, 2 * k);
        V& put = x[to.at(r, c, k)];
        if (kind == MEAN) {
          put = ((a[0] + a[1]) + (b[0] + b[1])) * 0.25f;
          continue;
        }
        put = a[0];
        for (V v : {a[1], b[0], b[1]}) put = choose((I)(v > put) | (I)(v != v), v, put);
      }
}

// The gradient of y, before the activation that made it, written over y.
template <int KIND> static void pooled_back(const Pool& from, const Pool& to, V* y, const V* dx, int kind) {
  for (int r = 0; r < from.rows; r++)
    for (int c = 0; c < from.channels; c++)
      for (int k = 0; k < from.columns; k++)
        if (r >= 2 * to.rows || k >= 2 * to.columns) y[from.at(r, c, k)] = V{};
  for (int r = 0; r < to.rows; r++)
    for (int c = 0; c < to.channels; c++)
      for (int k = 0; k < to.columns; k++) {
        V *a = y + from.at(2 * r, c, 2 * k), *b = y + from.at(2 * r + 1, c, 2 * k);
        V d = dx[to.at(r, c, k)];
        V* own[4] = {a, a + 1, b, b + 1};
        if (kind == MEAN) {
          for (V* each : own) *each = masked<KIND>(d * 0.25f, *each);
          continue;
        }
        V most = *a;
        I best{};
        for (int i = 1; i < 4; i++) {
          I more = (I)(*own[i] > most) | (I)(*own[i] != *own[i]);
          most = choose(more, *own[i], most);
          best = (best & ~more) | (more & i);
        }
        for (int i = 0; i < 4; i++) *own[i] = kept((I)(best == i), masked<KIND>(d, *own[i]));
      }
}

// The hash of `sweep.common.random_streams.mix`.
static INLINE I mixed(U word) {
  word ^= word >> 16;
  word *= 0x7FEB352Du;
  word ^= word >> 15;
  word *= 0x846CA68Bu;
  return (I)(word ^ (word >> 16));
}

constexpr uint32_t GOLDEN = 0x9E3779B9u;

struct Dropout {
  U state;
  I threshold;
  V scale;
  INLINE V of(V x, uint32_t unit) const { return x * kept(~(mixed(state + unit * GOLDEN) < threshold), scale); }
};

}  // namespace native
