// Convolutions of one picture of a tile. Planes are [rows][channels][columns], with `pad` columns of zeros on both
// sides; weights [side][inputs][side][outputs]. Blocks of registers go over pixels and channels, never over a sum.
#pragma once
#include "tile.hpp"

namespace native {

struct Sizes {  // of a convolution: input, output, and columns of padding in both planes
  int inputs, outputs, height, width, out_height, out_width, pad;
  int columns() const { return width + 2 * pad; }
  int out_columns() const { return out_width + 2 * pad; }
};

// Makes one row of a plane.
struct RowMaker {
  virtual void make(int row, V* to) const = 0;
};

// The rows of an input plane: all of them, or a ring of the last ones, which are made in order and stay in the first cache.
struct Rows {
  V* x;
  int64_t each;  // numbers of one row, all its channels
  int height, mask, made;
  const RowMaker* maker;

  INLINE const V* at(int y) const { return x + (y & mask) * each; }
  void make(int until) {
    for (; made < until && made < height; made++) maker->make(made, x + (made & mask) * each);
  }
  static Rows plane(V* x, int64_t each, int height) { return {x, each, height, ~0, height, nullptr}; }
  static Rows ring(V* x, int64_t each, int height, int count, const RowMaker* maker) {
    return {x, each, height, count - 1, 0, maker};
  }
};

// Rows of a ring: powers of two, for a convolution, and for the gradient of its weights, which goes over strips of rows.
constexpr int forward_ring(int side) { return side <= 7 ? 8 : 16; }
constexpr int gradient_ring(int side) { return 2 * forward_ring(side); }

template <int K, int S, int PX, int OB>
static INLINE void forward_block(const Sizes& s, const Rows& x, int column, const V* w, const V* b, V* y, int k0, int k1,
                                 int row, int activation) {
  V sum[PX][OB];
  int first = s.pad - column, last = s.pad + s.width - column;  // columns that are not padding
  unroll<PX>([&](auto p) { unroll<OB>([&](auto q) { sum[p.v][q.v] = b[q.v]; }); });
  for (int ky = k0; ky < k1; ky++)
    for (int c = 0; c < s.inputs; c++) {
      const V* from = x.at(row + ky) + c * s.columns() + column;
      const V* taps = w + (ky * s.inputs + c) * K * s.outputs;
      V k[K][OB];
      unroll<K>([&](auto kx) { unroll<OB>([&](auto q) { k[kx.v][q.v] = taps[kx.v * s.outputs + q.v]; }); });
      unroll<S*(PX - 1) + K>([&](auto j) {
        if ((j.v < K / 2 && j.v < first) || (j.v > S * (PX - 1) + K - 1 - K / 2 && j.v >= last)) return;  // padding
        V v = from[j.v];
        unroll<K>([&](auto kx) {
          constexpr int at = j.v - kx.v;
          if constexpr (at >= 0 && at % S == 0 && at / S < PX)
            unroll<OB>([&](auto q) { sum[at / S][q.v] = fma(v, k[kx.v][q.v], sum[at / S][q.v]); });
        });
      });
    }
  of_kind(activation, [&](auto kind) INLINE_LAMBDA {
    unroll<OB>([&](auto q) {
      unroll<PX>([&](auto p) { y[q.v * s.out_columns() + p.v] = activated<kind.v>(sum[p.v][q.v]); });
    });
  });
}

// y = activation(x * w + b)
template <int K, int S, int OB>
static void forward(const Sizes& s, Rows x, const V* w, const V* b, V* y, int act) {
  constexpr int WIDE = OB == 1 && LANES == 16 ? 14 : 7;
  for (int oy = 0; oy < s.out_height; oy++) {
    int row = oy * S - K / 2, k0 = row < 0 ? -row : 0, k1 = row + K > s.height ? s.height - row : K;
    x.make(row + K);
    for (int o = 0; o < s.outputs; o += OB) {
      V* to = y + (oy * s.outputs + o) * s.out_columns() + s.pad;
      int px = 0;
      for (; px + WIDE <= s.out_width; px += WIDE)
        forward_block<K, S, WIDE, OB>(s, x, S * px, w + o, b + o, to + px, k0, k1, row, act);
      for (; px + 4 <= s.out_width; px += 4)
        forward_block<K, S, 4, OB>(s, x, S * px, w + o, b + o, to + px, k0, k1, row, act);
      for (; px < s.out_width; px++)
        forward_block<K, S, 1, OB>(s, x, S * px, w + o, b + o, to + px, k0, k1, row, act);
    }
  }
}

template <int K, int S, int R, int PX, int CB>
static INLINE void input_block(const Sizes& s, V* x, const V* w, const V* dy, int iy, int j0, int act) {
  // Columns S * j + R see the taps FIRST, FIRST + S, …, and of dy the columns j + BASE, j + BASE - 1, …
  constexpr int FIRST = (R + K / 2) % S, TAPS = (K - FIRST + S - 1) / S, BASE = (R + K / 2 - FIRST) / S;
  V sum[PX][CB];
  int first = TAPS - 1 - BASE - j0, last = first + s.out_width;  // columns of dy that are not padding
  unroll<PX>([&](auto p) { unroll<CB>([&](auto q) { sum[p.v][q.v] = V{}; }); });
  for (int ky = (iy + K / 2) % S; ky < K; ky += S) {
    int oy = (iy + K / 2 - ky) / S;
    if (iy + K / 2 < ky || oy >= s.out_height) continue;
    for (int o = 0; o < s.outputs; o++) {
      const V* from = dy + (oy * s.outputs + o) * s.out_columns() + s.pad + j0 + BASE - (TAPS - 1);
      V k[TAPS > 0 ? TAPS : 1][CB];
      unroll<CB>([&](auto q) {
        const V* taps = w + (ky * s.inputs + q.v) * K * s.outputs + o;
        unroll<TAPS>([&](auto t) { k[t.v][q.v] = taps[(FIRST + S * t.v) * s.outputs]; });
      });
      unroll<PX + TAPS - 1>([&](auto j) {
        if ((j.v < TAPS - 1 && j.v < first) || (j.v > PX - 1 && j.v >= last)) return;  // padding
        V d = from[j.v];
        unroll<TAPS>([&](auto t) {
          constexpr int at = j.v + t.v - (TAPS - 1);
          if constexpr (at >= 0 && at < PX)
            unroll<CB>([&](auto q) { sum[at][q.v] = fma(d, k[t.v][q.v], sum[at][q.v]); });
        });
      });
    }
  }
  of_kind(act, [&](auto kind) INLINE_LAMBDA {
    unroll<CB>([&](auto q) {
      unroll<PX>([&](auto p) {
        V& to = x[(iy * s.inputs + q.v) * s.columns() + s.pad + S * (j0 + p.v) + R];
        to = masked<kind.v>(sum[p.v][q.v], to);
      });
    });
  });
}

template <int K, int S, int R, int CB> static void input_row(const Sizes& s, V* x, const V* w, const V* dy, int iy, int act) {
  constexpr int WIDE = LANES == 16 ? 7 : 5;
  int count = (s.width - R + S - 1) / S, j = 0;
  for (; j + WIDE <= count; j += WIDE) input_block<K, S, R, WIDE, CB>(s, x, w, dy, iy, j, act);
  for (; j < count; j++) input_block<K, S, R, 1, CB>(s, x, w, dy, iy, j, act);
}

// The gradient of x, before the activation that made it, written over x.
template <int K, int S, int CB> static void input_gradient(const Sizes& s, V* x, const V* w, const V* dy, int act) {
  for (int c = 0; c < s.inputs; c += CB)
    for (int iy = 0; iy < s.height; iy++)
      unroll<S>([&](auto r) {
        input_row<K, S, r.v, CB>(s, x + c * s.columns(), w + c * K * s.outputs, dy, iy, act);
      });
}

// Adds the gradients of weights and biases.
template <int K, int S, int OB>
static void weight_gradient(const Sizes& s, Rows x, const V* dy, V* dw, V* db) {
  for (int o = 0; o < s.outputs; o++) {
    V sum[4] = {};
    for (int oy = 0; oy < s.out_height; oy++) {
      const V* from = dy + (oy * s.outputs + o) * s.out_columns() + s.pad;
      for (int ox = 0; ox < s.out_width; ox++) sum[ox % 4] += from[ox];
    }
    db[o] += (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }
  // Columns whose taps are all inside, from `inner` to `outer`.
  int inner = (s.pad + S - 1) / S, outer = (s.width + s.pad - K) / S + 1;
  inner = inner < s.out_width ? inner : s.out_width;
  outer = outer > inner ? outer : inner;
  // Strips of rows, as many as are there at once.
  int count = x.maker ? (x.mask + 1 - K) / S + 1 : s.out_height;
  for (int strip = 0; strip < s.out_height; strip += count) {
    int end = count < s.out_height - strip ? strip + count : s.out_height;
    x.make((end - 1) * S - K / 2 + K);
    for (int o = 0; o < s.outputs; o += OB)
      for (int ky = 0; ky < K; ky++)
        for (int c = 0; c < s.inputs; c++) {
          V* to = dw + (ky * s.inputs + c) * K * s.outputs + o;
          V sum[K][OB];
          unroll<K>([&](auto k) { unroll<OB>([&](auto q) { sum[k.v][q.v] = to[k.v * s.outputs + q.v]; }); });
          for (int oy = strip; oy < end; oy++) {
            int iy = oy * S + ky - K / 2;
            if (iy < 0 || iy >= s.height) continue;
            const V* from = x.at(iy) + c * s.columns();
            const V* d = dy + (oy * s.outputs + o) * s.out_columns() + s.pad;
            auto column = [&](int ox, int k0, int k1) INLINE_LAMBDA {
              V g[OB];
              unroll<OB>([&](auto q) { g[q.v] = d[q.v * s.out_columns() + ox]; });
              unroll<K>([&](auto k) {
                if ((k.v < K / 2 && k.v < k0) || (k.v > K / 2 && k.v >= k1)) return;  // padding
                V v = from[S * ox + k.v];
                unroll<OB>([&](auto q) { sum[k.v][q.v] = fma(v, g[q.v], sum[k.v][q.v]); });
              });
            };
            int ends = s.width + s.pad;
            for (int ox = 0; ox < inner; ox++) column(ox, s.pad - S * ox, ends - S * ox);
            for (int ox = inner; ox < outer; ox++) column(ox, 0, K);
            for (int ox = outer; ox < s.out_width; ox++) column(ox, s.pad - S * ox, ends - S * ox);
          }
          unroll<K>([&](auto k) { unroll<OB>([&](auto q) { to[k.v * s.outputs + q.v] = sum[k.v][q.v]; }); });
        }
  }
}

// Kernels of any side and stride, which nothing is unrolled for.
struct AnySide {
  const Sizes& s;
  int side, stride;

  // The taps along one axis that meet pictures, of the outputs at `out`.
  INLINE int first(int out) const { return side / 2 > out * stride ? side / 2 - out * stride : 0; }
  INLINE int end(int out, int size) const {
    int left = size + side / 2 - out * stride;
    return left < side ? left : side;
  }

  void forward(Rows x, const V* w, const V* b, V* y, int act) const {
    for (int oy = 0; oy < s.out_height; oy++) {
      int row = oy * stride - side / 2;
      x.make(row + side);
      for (int o = 0; o < s.outputs; o++)
        for (int ox = 0; ox < s.out_width; ox++) {
          V sum = b[o];
          for (int ky = first(oy); ky < end(oy, s.height); ky++)
            for (int c = 0; c < s.inputs; c++) {
              const V* from = x.at(row + ky) + c * s.columns() + ox * stride;
              const V* taps = w + (ky * s.inputs + c) * side * s.outputs + o;
              for (int kx = first(ox); kx < end(ox, s.width); kx++) sum = fma(from[kx], taps[kx * s.outputs], sum);
            }
          V* to = y + (oy * s.outputs + o) * s.out_columns() + s.pad + ox;
          of_kind(act, [&](auto kind) { *to = activated<kind.v>(sum); });
        }
    }
  }

  void input_gradient(V* x, const V* w, const V* dy, int act) const {
    for (int iy = 0; iy < s.height; iy++)
      for (int c = 0; c < s.inputs; c++)
        for (int ix = 0; ix < s.width; ix++) {
          V sum{};
          for (int ky = (iy + side / 2) % stride; ky < side; ky += stride) {
            int oy = (iy + side / 2 - ky) / stride;
            if (iy + side / 2 < ky || oy >= s.out_height) continue;
            for (int o = 0; o < s.outputs; o++) {
              const V* from = dy + (oy * s.outputs + o) * s.out_columns() + s.pad;
              const V* taps = w + (ky * s.inputs + c) * side * s.outputs + o;
              for (int kx = (ix + side / 2) % stride; kx < side; kx += stride) {
                int ox = (ix + side / 2 - kx) / stride;
                if (ix + side / 2 >= kx && ox < s.out_width) sum = fma(from[ox], taps[kx * s.outputs], sum);
              }
            }
          }
          V* to = x + (iy * s.inputs + c) * s.columns() + s.pad + ix;
          of_kind(act, [&](auto kind) { *to = masked<kind.v>(sum, *to); });
        }
  }

  void weight_gradient(Rows x, const V* dy, V* dw, V* db) const {
    for (int oy = 0; oy < s.out_height; oy++) {
      int row = oy * stride - side / 2;
      x.make(row + side);
      for (int o = 0; o < s.outputs; o++) {
        const V* d = dy + (oy * s.outputs + o) * s.out_columns() + s.pad;
        for (int ox = 0; ox < s.out_width; ox++) {
          db[o] += d[ox];
          for (int ky = first(oy); ky < end(oy, s.height); ky++)
            for (int c = 0; c < s.inputs; c++) {
              const V* from = x.at(row + ky) + c * s.columns() + ox * stride;
              V* to = dw + (ky * s.inputs + c) * side * s.outputs + o;
              for (int kx = first(ox); kx < end(ox, s.width); kx++)
                to[kx * s.outputs] = fma(from[kx], d[ox], to[kx * s.outputs]);
            }
        }
      }
    }
  }
};

}  // namespace native
