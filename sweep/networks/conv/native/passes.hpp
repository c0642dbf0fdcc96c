// What a tile computes on a batch: layer by layer forward, and a convolution backward.
#pragma once
#include "network.hpp"

namespace native {

// Calls f with a side and a stride as constants where they are common, and otherwise `rare`.
template <class F, class Rare> static INLINE void of_side(int side, int stride, F&& f, Rare&& rare) {
  auto with = [&](auto k) { stride == 2 ? f(k, Int<2>{}) : f(k, Int<1>{}); };
  switch (side) {
    case 1: return with(Int<1>{});
    case 3: return with(Int<3>{});
    case 5: return with(Int<5>{});
    case 7: return with(Int<7>{});
  }
  rare();
}

// Makes rows of a picture's plane of its bytes, [channels][height][width] of each lane or of all: what the networks see.
struct Widening final : RowMaker {
  const Tile& tile;
  const uint8_t* bytes;
  bool shared;

  Widening(const Tile& tile, const uint8_t* bytes, bool shared) : tile(tile), bytes(bytes), shared(shared) {}

  void make(int y, V* to) const override {
    const int channels = tile.n.channels, width = tile.n.width, columns = width + 2 * tile.at.pad;
    for (int c = 0; c < channels; c++) {
      const V factor = tile.lanes(tile.c.factor, channels)[c], offset = tile.lanes(tile.c.offset, channels)[c];
      V* row = to + c * columns + tile.at.pad;
      const int64_t from = (int64_t(c) * tile.n.height + y) * width;
      if (shared)
        for (int k = 0; k < width; k++) row[k] = fma(splat(float(bytes[from + k])), factor, offset);
      else
        for (const uint8_t *own = bytes + from * L, *end = own + width * L; own < end; own += L)
          *row++ = fma(widened(own), factor, offset);
    }
  }
};

// The rows of the input of a convolution of a picture; the first one's are made.
static Rows rows_of(const Tile& tile, int i, int p, const Widening& row, int ring) {
  Sizes s = tile.sizes(i);
  int64_t each = int64_t(s.inputs) * s.columns();
  if (i) return Rows::plane(tile.input(i, p), each, s.height);
  return Rows::ring(tile.memory(tile.at.x), each, s.height, ring, &row);
}

static void convolve(const Tile& tile, int i, int p, const Widening& row) {
  const Network& n = tile.n;
  Sizes s = tile.sizes(i);
  const V *w = tile.parameter(i * tile.at.per_layer), *b = tile.parameter(i * tile.at.per_layer + 1);
  V* y = tile.convolved(i, p);
  int act = n.norm ? int(IDENTITY) : n.activation, stride = n.convolutions[i].stride;
  Rows x = rows_of(tile, i, p, row, forward_ring(n.side));
  of_side(n.side, stride, [&](auto k, auto S) {
    if constexpr (LANES == 16 && k.v <= 5)
      if (s.outputs % 2 == 0) return forward<k.v, S.v, 2>(s, x, w, b, y, act);
    forward<k.v, S.v, 1>(s, x, w, b, y, act);
  }, [&] { AnySide{s, n.side, stride}.forward(x, w, b, y, act); });
}

// Adds the gradients of a convolution's weights and biases, and writes that of its input over it, but for the first one.
static void convolve_back(const Tile& tile, int i, int p, const Widening& row, const V* dy, V* dw, V* db) {
  const Network& n = tile.n;
  Sizes s = tile.sizes(i);
  const V* w = tile.parameter(i * tile.at.per_layer);
  Rows from = rows_of(tile, i, p, row, gradient_ring(n.side));
  V* x = tile.input(i, p);
  int stride = n.convolutions[i].stride, act = i && tile.pools(i - 1) ? int(IDENTITY) : n.activation;
  of_side(n.side, stride, [&](auto k, auto S) {
    if constexpr (LANES == 16 && k.v <= 5) {
      if (s.outputs % 4 == 0) weight_gradient<k.v, S.v, 4>(s, from, dy, dw, db);
      else if (s.outputs % 2 == 0) weight_gradient<k.v, S.v, 2>(s, from, dy, dw, db);
      else weight_gradient<k.v, S.v, 1>(s, from, dy, dw, db);
    } else {
      weight_gradient<k.v, S.v, 1>(s, from, dy, dw, db);
    }
    if (i == 0) return;
    if constexpr (LANES == 16 && k.v <= 5)
      if (s.inputs % 2 == 0) return input_gradient<k.v, S.v, 2>(s, x, w, dy, act);
    input_gradient<k.v, S.v, 1>(s, x, w, dy, act);
  }, [&] {
    AnySide any{s, n.side, stride};
    any.weight_gradient(from, dy, dw, db);
    if (i) any.input_gradient(x, w, dy, act);
  });
}

static void drop(const Tile& tile, const Dropout& d, int i, int pictures, bool from_features) {
  const Pool plane = tile.half(i);
  for (int p = 0; p < pictures; p++) {
    V* x = (from_features ? tile.memory(tile.at.d_features) : tile.memory(tile.at.out[i])) + p * tile.at.picture[i + 1];
    for (int r = 0; r < plane.rows; r++)
      for (int c = 0; c < plane.channels; c++)
        for (int k = 0; k < plane.columns; k++) {
          uint32_t unit = uint32_t(((p * plane.rows + r) * plane.columns + k) * plane.channels + c);
          V& v = x[plane.at(r, c, k)];
          v = d.of(v, unit);
        }
  }
}

static void drop_units(const Tile& tile, const Dropout& d, V* x, int pictures) {
  int padded = (tile.n.hidden + 15) / 16 * 16;  // as units are counted wherever they are dropped
  for (int p = 0; p < pictures; p++)
    for (int u = 0; u < tile.n.hidden; u++) {
      V& v = x[p * tile.at.h_stride + u];
      v = d.of(v, uint32_t(p * padded + u));
    }
}

// `drops(layer)` are a layer's masks; null in an evaluation.
template <class Read, class Drops>
static void run_forward(const Tile& tile, int pictures, bool training, Read&& read, Drops&& drops) {
  const Network& n = tile.n;
  const Places& at = tile.at;
  auto finish = [&](int i, int from, int to) {
    if (n.norm) {
      int w = i * at.per_layer + 2;
      const Convolution& l = n.convolutions[i];
      normalized(tile.norm(i, to - from), tile.convolved(i, from), tile.behind(i, from), tile.parameter(w),
                 tile.parameter(w + 1), tile.own(tile.c.statistics, 2 * i, l.outputs),
                 tile.own(tile.c.statistics, 2 * i + 1, l.outputs), tile.memory(at.mean[i]), tile.memory(at.inverse[i]),
                 training, n.activation);
    }
    if (tile.pools(i))
      for (int p = from; p < to; p++)
        pooled(tile.whole(i), tile.half(i), tile.behind(i, p), tile.memory(at.out[i]) + p * at.picture[i + 1], n.pooling);
  };
  if (n.norm || (training && n.dropout)) {
    for (int i = 0; i < n.depth; i++) {
      for (int p = 0; p < pictures; p++) {
        convolve(tile, i, p, read(p));
      }
      finish(i, 0, pictures);
      if (training && n.dropout) drop(tile, drops(i), i, pictures, false);
    }
  } else {
    for (int p = 0; p < pictures; p++) {
      auto row = read(p);
      for (int i = 0; i < n.depth; i++) {
        convolve(tile, i, p, row);
        finish(i, p, p + 1);
      }
    }
  }
  const V* x = tile.memory(at.out[n.depth - 1]);
  int number = tile.first_linear();
  if (n.hidden) {
    V* h = tile.memory(at.h);
    linear(tile.first(pictures), x, tile.parameter(number), tile.parameter(number + 1), h, n.activation);
    if (training && n.dropout) drop_units(tile, drops(n.depth), h, pictures);
    x = h;
    number += 2;
  }
  linear(tile.second(pictures), x, tile.parameter(number), tile.parameter(number + 1), tile.memory(at.o), IDENTITY);
}

}  // namespace native
