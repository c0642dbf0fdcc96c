// A step of training: a tile's batch, its gradients, and the update of its parameters.
#pragma once
#include "passes.hpp"

namespace native {

enum Optimizer { SGD, MOMENTUM_SGD, ADAMW };

// One parameter's update, of a gradient; frozen lanes have none.
template <int KIND> struct Update {
  V *weights, *first, *second;
  V rate, momentum, decay, correction, second_correction;
  I trained;
  bool decays;

  INLINE void operator()(int64_t at, V g) const {
    V& w = weights[at];
    g = kept(trained, g);
    if (KIND == SGD) {
      w = fma(g, -rate, w);
    } else if (KIND == MOMENTUM_SGD) {
      if (decays) g = fma(w, decay, g);
      if (first) g = first[at] = fma(momentum, first[at], g);
      w = fma(g, -rate, w);
    } else {
      if (decays) w = w * (splat(1.0f) - rate * decay);
      first[at] = fma(g - first[at], splat(float(1 - 0.9)), first[at]);
      second[at] = fma(g * splat(float(1 - 0.999)), g, second[at] * splat(0.999f));
      w = w - first[at] * (rate / correction) / (root(second[at] / second_correction) + splat(1e-8f));
    }
  }
};

template <int KIND> static Update<KIND> update_of(const Tile& tile, const Training& s, int64_t step, int64_t turn, int number) {
  int64_t size = tile.c.sizes[number];
  Update<KIND> u{};
  u.weights = tile.own(tile.c.parameters, number, size);
  if (s.first && s.first[number]) u.first = tile.own(s.first, number, size);
  if (s.second && s.second[number]) u.second = tile.own(s.second, number, size);
  u.rate = ((const V*)s.rate)[step * tile.c.tiles + tile.t];
  u.momentum = *tile.lanes(s.momentum);
  u.decay = *tile.lanes(s.decay);
  if (KIND == ADAMW) {
    const float* own = s.corrections + 2 * ((step * s.turns + turn) * tile.at.parameters + number);
    u.correction = splat(own[0]);
    u.second_correction = splat(own[1]);
  }
  u.trained = s.treated[number] ? ~((const I*)s.frozen)[tile.t] : ~I{};
  u.decays = s.decayed[number];
  return u;
}

typedef uint8_t Row __attribute__((vector_size(16), may_alias, aligned(1)));

// The lower halves of two rows byte by byte in turn, and the upper ones. GCC has one name for it, and since 12 Clang's.
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLED(a, b, ...) __builtin_shuffle(a, b, Row{__VA_ARGS__})
#endif
static INLINE Row lower(Row a, Row b) { return SHUFFLED(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23); }
static INLINE Row upper(Row a, Row b) {
  return SHUFFLED(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

// Bytes of every lane's own picture, [bytes][LANES].
static void gather(const uint8_t* const* rows, int64_t count, uint8_t* to) {
  int64_t at = 0;
  for (; at + 16 <= count; at += 16) {
    Row a[L], b[L];
    for (int i = 0; i < L; i++) a[i] = *(const Row*)(rows[i] + at);
    for (int stage = 1; stage < L; stage *= 2) {
      for (int i = 0; i < L / 2; i++) {
        b[2 * i] = lower(a[i], a[i + L / 2]);
        b[2 * i + 1] = upper(a[i], a[i + L / 2]);
      }
      for (int i = 0; i < L; i++) a[i] = b[i];
    }
    for (int i = 0; i < L; i++) *(Row*)(to + at * L + i * 16) = a[i];
  }
  for (; at < count; at++)
    for (int i = 0; i < L; i++) to[at * L + i] = rows[i][at];
}

template <int KIND> static void train(const Tile& tile, const Training& s, int64_t step, int64_t turn) {
  const Network& n = tile.n;
  const Places& at = tile.at;
  const Call& c = tile.c;
  int pictures = n.pictures;
  int64_t pixels = int64_t(n.channels) * n.height * n.width;
  uint8_t* bytes = tile.template memory<uint8_t>(at.bytes);
  I* labels = tile.template memory<I>(at.labels);
  const int64_t *seeds = s.seed_of + tile.t * L, *order = s.order + step * pictures * s.seeds;
  auto read = [&](int p) { return Widening(tile, bytes + p * pixels * L, false); };
  auto fetch = [&](int p) {
    const uint8_t* rows[L];
    for (int i = 0; i < L; i++) {
      int64_t chosen = order[p * s.seeds + seeds[i]];
      rows[i] = c.stored + chosen * pixels;
      labels[p][i] = int32_t(c.labels[chosen]);
    }
    if (p + 1 < pictures)
      for (int i = 0; i < L; i++) {
        const uint8_t* next = c.stored + order[(p + 1) * s.seeds + seeds[i]] * pixels;
        for (int64_t b = 0; b < pixels; b += 64) __builtin_prefetch(next + b);
      }
    gather(rows, pixels, bytes + p * pixels * L);
    return read(p);
  };
  auto drops = [&](int layer) {
    U own;
    for (int i = 0; i < L; i++) own[i] = s.states[layer][step * s.seeds + seeds[i]];
    return Dropout{own, ((const I*)s.threshold)[tile.t], *tile.lanes(s.scale)};
  };
  run_forward(tile, pictures, true, fetch, drops);
  V loss = cross_entropy(tile.memory(at.o), labels, pictures, at.logits, n.classes, nullptr);
  for (int64_t i = 0, run = tile.t * L; i < L && run < s.networks; i++, run++) {
    s.loss_sum[turn * s.networks + run] += double(loss[i]);
    if (step >= s.last_from) s.last_loss_sum[turn * s.networks + run] += double(loss[i]);
  }

  auto trained = [&](int number) { return !(c.absent && c.absent[number]); };
  int number = tile.first_linear(), last = n.depth - 1;
  V *features = tile.memory(at.out[last]), *d = tile.memory(at.d_features);
  const V* dy = tile.memory(at.o);
  auto update = [&](const Linear& l, int k, const V* x, const V* g) {
    Update<KIND> weight = update_of<KIND>(tile, s, step, turn, k), bias = update_of<KIND>(tile, s, step, turn, k + 1);
    bool with_bias = trained(k + 1);
    linear_weight(l, x, g, weight, [&](int u, V sum) { if (with_bias) bias(u, sum); });
  };
  if (n.hidden) {
    V *h = tile.memory(at.h), *dh = tile.memory(at.dh);
    Linear l = tile.second(pictures);
    linear_input(l, dy, tile.parameter(number + 2), h, dh, n.activation);
    if (n.dropout) drop_units(tile, drops(n.depth), dh, pictures);
    update(l, number + 2, h, dy);
    dy = dh;
  }
  linear_input(tile.first(pictures), dy, tile.parameter(number), features, d, tile.pools(last) ? int(IDENTITY) : n.activation);
  if (n.dropout) drop(tile, drops(last), last, pictures, true);
  update(tile.first(pictures), number, features, dy);

  // Gradients of the convolutions and norms, summed over pictures.
  V* gradients = tile.memory(at.gradients);
  V* own[4 * DEEPEST];
  int64_t used = 0;
  for (int k = 0; k < tile.first_linear(); k++) {
    own[k] = gradients + used;
    used += c.sizes[k];
  }
  memset(gradients, 0, used * sizeof(V));
  auto gradient_of = [&](int i, int p) {
    return i == last ? d + p * at.picture[n.depth] : tile.memory(at.out[i]) + p * at.picture[i + 1];
  };
  auto unpool = [&](int i, int p) {
    if (!tile.pools(i)) return;
    of_kind(n.activation, [&](auto kind) {
      pooled_back<kind.v>(tile.whole(i), tile.half(i), tile.behind(i, p), gradient_of(i, p), n.pooling);
    });
  };
  auto behind = [&](int i, int p) { return tile.pools(i) ? tile.behind(i, p) : gradient_of(i, p); };
  auto convolution_back = [&](int i, int p) {
    convolve_back(tile, i, p, read(p), n.norm ? tile.convolved(i, p) : behind(i, p), own[i * at.per_layer],
                  own[i * at.per_layer + 1]);
  };
  if (n.norm || n.dropout) {
    for (int i = last; i >= 0; i--) {
      for (int p = 0; p < pictures; p++) unpool(i, p);
      if (n.norm) {
        int w = i * at.per_layer + 2;
        normalized_back(tile.norm(i, pictures), behind(i, 0), tile.convolved(i, 0), tile.parameter(w),
                        tile.memory(at.mean[i]), tile.memory(at.inverse[i]), own[w], own[w + 1]);
      }
      for (int p = 0; p < pictures; p++) convolution_back(i, p);
      if (n.dropout && i) drop(tile, drops(i - 1), i - 1, pictures, false);
    }
  } else {
    for (int p = pictures - 1; p >= 0; p--)
      for (int i = last; i >= 0; i--) {
        unpool(i, p);
        convolution_back(i, p);
      }
  }
  for (int k = 0; k < tile.first_linear(); k++)
    if (trained(k)) {
      Update<KIND> u = update_of<KIND>(tile, s, step, turn, k);
      for (int64_t i = 0; i < c.sizes[k]; i++) u(i, own[k][i]);
    }
}

}  // namespace native
