// Trains and evaluates arrays of small convolutional networks, tile by tile: the C interface of the library.
//
// A tile holds LANES networks. Parameters, statistics and optimizer state are [tiles][numbers][LANES]; what each lane
// has of its own (rates, factors) is [tiles][…][LANES].
#include "convolution.hpp"
#include "layers.hpp"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace native {

constexpr int DEEPEST = 16;

extern "C" {
struct Convolution {
  int32_t inputs, outputs, height, width, out_height, out_width, stride, pooled_height, pooled_width;
};
struct Network {
  int32_t depth, side, activation, norm, pooling, dropout, hidden, classes, pictures, channels, height, width;
  Convolution convolutions[DEEPEST];
};
struct Call {
  const Network* network;
  int64_t tiles;
  float** parameters;            // of every convolution: weight, bias, and with norm its weight and bias; then linear ones
  float** statistics;            // running mean and variance of every norm
  const int64_t* sizes;          // numbers of each parameter
  const uint8_t* absent;         // parameters that a turn goes without: zero, and not trained
  const uint8_t* stored;         // pictures [n][channels][height][width]
  const int64_t* labels;         // [n]
  const float *factor, *offset;  // [tiles][channels][LANES]
  char* scratch;
};
struct Training {
  Call call;       // of the first turn
  int64_t steps;
  int64_t turns;   // in the second one, `absent` parameters are left out
  const uint8_t* absent;
  float **first, **second;  // moments, or the velocity alone, of each parameter
  const uint8_t *decayed, *treated;
  const int32_t* frozen;  // [tiles][LANES]: -1 where a lane's treated parameters keep their values
  const int64_t* order;   // [steps][pictures][seeds], indices of stored pictures
  int64_t seeds;
  const int64_t* seed_of;                  // [tiles][LANES]
  const uint32_t** states;                 // of every layer with dropout, [steps][seeds]
  const int32_t* threshold;                // [tiles][LANES], as are the next three, but for the steps of `rate`
  const float *scale, *momentum, *decay, *rate;
  const float* corrections;                // AdamW's two divisors [steps][turns][parameters]
  int32_t optimizer;
  int64_t networks;
  double *loss_sum, *last_loss_sum;  // [turns][networks]
  int64_t last_from;                 // the first of these steps whose losses the last sum takes
};
struct Evaluation {
  Call call;
  int64_t count;   // of `stored`, which every lane sees
  uint8_t* right;  // [count][tiles][LANES]
  double* loss;    // [tiles][LANES], sums
};
}

enum Optimizer { SGD, MOMENTUM_SGD, ADAMW };

// Where everything of a tile lies in the scratch memory.
struct Places {
  const Network& n;
  int pad, hidden, logits, features, per_layer;
  int64_t h_stride;  // a batch of 64 units would fill few sets of the first cache otherwise
  int64_t used = 0;
  int64_t bytes, labels, x, picture[DEEPEST + 1], z[DEEPEST], full[DEEPEST], out[DEEPEST], full_picture[DEEPEST], mean[DEEPEST],
      inverse[DEEPEST], d_features, h, dh, o, zeros, gradients, place, first_place, parameters;

  int64_t take(int64_t vectors) {
    int64_t at = used;
    used += vectors * int64_t(sizeof(V));
    fence();
    return at;
  }
#ifdef __SANITIZE_ADDRESS__
  // So that what runs over the end of one part is found, though all parts are one piece of memory.
  int64_t fences[16 + 10 * DEEPEST];
  int count = 0;
  void fence() { fences[count++] = used, used += FENCE; }
  void guard(char* scratch) const {
    for (int i = 0; i < count; i++) __asan_poison_memory_region(scratch + fences[i], FENCE);
  }
  static constexpr int64_t FENCE = 4096;
#else
  void fence() {}
  void guard(char*) const {}
#endif
  explicit Places(const Network& network) : n(network) {
    pad = n.side / 2;
    hidden = n.hidden ? blocks(n.hidden) : 0;
    logits = blocks(n.classes);
    per_layer = n.norm ? 4 : 2;
    parameters = n.depth * per_layer + (n.hidden ? 4 : 2);
    int64_t pixels = int64_t(n.channels) * n.height * n.width, most = hidden > logits ? hidden : logits, trained = 0;
    bytes = take((n.pictures * pixels + 3) / 4);
    labels = take(n.pictures);
    picture[0] = int64_t(n.height) * n.channels * (n.width + 2 * pad);
    x = take(int64_t(gradient_ring(n.side)) * n.channels * (n.width + 2 * pad));
    for (int i = 0; i < n.depth; i++) {
      const Convolution& c = n.convolutions[i];
      full_picture[i] = int64_t(c.out_height) * c.outputs * (c.out_width + 2 * pad);
      picture[i + 1] = int64_t(c.pooled_height) * c.outputs * (c.pooled_width + 2 * pad);
      z[i] = n.norm ? take(n.pictures * full_picture[i]) : 0;
      full[i] = n.pooling ? take(n.pictures * full_picture[i]) : 0;
      out[i] = take(n.pictures * picture[i + 1]);
      mean[i] = take(c.outputs);
      inverse[i] = take(c.outputs);
      most = most > c.outputs ? most : c.outputs;
      trained += int64_t(n.side) * n.side * c.inputs * c.outputs + 3 * c.outputs;
    }
    const Convolution& last = n.convolutions[n.depth - 1];
    features = last.pooled_height * last.outputs * last.pooled_width;
    d_features = take(n.pictures * picture[n.depth]);
    h_stride = hidden + UB;
    h = take(n.pictures * h_stride);
    dh = take(n.pictures * h_stride);
    o = take(int64_t(n.pictures) * logits);
    zeros = take(most);
    gradients = take(trained);
    place = take((features + 4 * L - 1) / L);
    first_place = take((hidden + 4 * L - 1) / L);
  }
};

// One tile of a call.
class Tile {
 public:
  const Places& at;
  const Network& n;
  const Call& c;
  int64_t t;

  Tile(const Places& places, const Call& call, int64_t tile) : at(places), n(places.n), c(call), t(tile) {}

  template <class T = V> T* memory(int64_t place) const { return reinterpret_cast<T*>(c.scratch + place); }
  V* own(float** list, int number, int64_t size) const { return reinterpret_cast<V*>(list[number]) + t * size; }
  V* parameter(int number) const {
    return c.absent && c.absent[number] ? memory(at.zeros) : own(c.parameters, number, c.sizes[number]);
  }
  const V* lanes(const float* numbers, int64_t per_tile = 1) const { return (const V*)numbers + t * per_tile; }

  int first_linear() const { return n.depth * at.per_layer; }
  bool last(int i) const { return i + 1 == n.depth; }
  Sizes sizes(int i) const {
    const Convolution& l = n.convolutions[i];
    return {l.inputs, l.outputs, l.height, l.width, l.out_height, l.out_width, at.pad};
  }
  Pool whole(int i) const {
    const Convolution& l = n.convolutions[i];
    return {l.out_height, l.outputs, l.out_width, at.pad};
  }
  Pool half(int i) const {
    const Convolution& l = n.convolutions[i];
    return {l.pooled_height, l.outputs, l.pooled_width, at.pad};
  }
  bool pools(int i) const {
    const Convolution& l = n.convolutions[i];
    return l.pooled_height != l.out_height || l.pooled_width != l.out_width;
  }
  Norm norm(int i, int pictures) const {
    const Convolution& l = n.convolutions[i];
    return {pictures, l.out_height, l.outputs, l.out_width, at.pad, at.full_picture[i]};
  }
  // The linear layers of a batch: that of the features, and the one of the logits, which may be the same.
  Linear first(int pictures) const {
    int units = n.hidden ? at.hidden : at.logits;
    return {pictures, at.features, units, at.picture[n.depth], n.hidden ? at.h_stride : at.logits, memory<int32_t>(at.place)};
  }
  Linear second(int pictures) const {
    if (!n.hidden) return first(pictures);
    return {pictures, at.hidden, at.logits, at.h_stride, at.logits, memory<int32_t>(at.first_place)};
  }
  V* input(int i, int p) const { return i ? memory(at.out[i - 1]) + p * at.picture[i] : memory(at.x); }
  // Where the convolution of a picture goes: through norm and pooling, if any.
  V* convolved(int i, int p) const {
    return n.norm ? memory(at.z[i]) + p * at.full_picture[i] : behind(i, p);
  }
  V* behind(int i, int p) const {
    return pools(i) ? memory(at.full[i]) + p * at.full_picture[i] : memory(at.out[i]) + p * at.picture[i + 1];
  }
};

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

static void tables(const Places& at, char* scratch) {
  const Convolution& c = at.n.convolutions[at.n.depth - 1];
  int32_t* place = reinterpret_cast<int32_t*>(scratch + at.place);
  for (int y = 0; y < c.pooled_height; y++)
    for (int o = 0; o < c.outputs; o++)
      for (int x = 0; x < c.pooled_width; x++)
        *place++ = (y * c.outputs + o) * (c.pooled_width + 2 * at.pad) + at.pad + x;
  int32_t* first = reinterpret_cast<int32_t*>(scratch + at.first_place);
  for (int u = 0; u < at.hidden; u++) first[u] = u;
}

static void evaluate(const Tile& tile, const Evaluation& e) {
  const Network& n = tile.n;
  const Places& at = tile.at;
  int64_t pixels = int64_t(n.channels) * n.height * n.width;
  I* labels = tile.template memory<I>(at.labels);
  uint8_t right[L * 4096];
  int most = n.pictures < 4096 ? n.pictures : 4096;
  double sums[L] = {};
  for (int64_t start = 0; start < e.count; start += most) {
    int count = int(e.count - start < most ? e.count - start : most);
    for (int p = 0; p < count; p++) labels[p] = I{} + int32_t(tile.c.labels[start + p]);
    auto read = [&](int p) {
      const uint8_t* own = tile.c.stored + (start + p) * pixels;
      return Widening(tile, own, true);
    };
    run_forward(tile, count, false, read, [](int) { return Dropout{}; });
    V total = cross_entropy(tile.memory(at.o), labels, count, at.logits, n.classes, right);
    for (int i = 0; i < L; i++) sums[i] += double(total[i]);
    for (int p = 0; p < count; p++)
      memcpy(e.right + ((start + p) * tile.c.tiles + tile.t) * L, right + p * L, L);
  }
  memcpy(e.loss + tile.t * L, sums, sizeof sums);
}

}  // namespace native

extern "C" {
int sweep_lanes() { return LANES; }

int64_t sweep_scratch(const native::Network* n) { return native::Places(*n).used; }

// Once, on scratch memory that is all zero; afterwards it belongs to this network.
void sweep_prepare(const native::Network* n, char* scratch) {
  native::Places places(*n);
  native::tables(places, scratch);
  places.guard(scratch);
}

// Tile by tile, so that what a tile trains stays in the caches from step to step.
void sweep_train(const native::Training* s) {
  native::Places places(*s->call.network);
  native::Call turns[2] = {s->call, s->call};
  turns[1].absent = s->absent;
  for (int64_t t = 0; t < s->call.tiles; t++)
    for (int64_t step = 0; step < s->steps; step++)
      for (int64_t turn = 0; turn < s->turns; turn++) {
        native::Tile tile(places, turns[turn], t);
        switch (s->optimizer) {
          case native::SGD: native::train<native::SGD>(tile, *s, step, turn); break;
          case native::MOMENTUM_SGD: native::train<native::MOMENTUM_SGD>(tile, *s, step, turn); break;
          default: native::train<native::ADAMW>(tile, *s, step, turn);
        }
      }
}

void sweep_evaluate(const native::Evaluation* e) {
  native::Places places(*e->call.network);
  for (int64_t t = 0; t < e->call.tiles; t++) native::evaluate(native::Tile(places, e->call, t), *e);
}

// exp of x <= 0 and log of x >= 1, for tests of their error.
void sweep_exponential(const float* x, float* y, int64_t vectors) {
  for (int64_t i = 0; i < vectors; i++) ((native::V*)y)[i] = native::exponential(((const native::V*)x)[i]);
}
void sweep_logarithm(const float* x, float* y, int64_t vectors) {
  for (int64_t i = 0; i < vectors; i++) ((native::V*)y)[i] = native::logarithm(((const native::V*)x)[i]);
}
}

extern "C" {
// Chains of fused multiply-adds that wait for nothing but themselves, all in registers: what the CPU's arithmetic can do
// at most, for a benchmark. Returns the floating-point operations of so many rounds.
int64_t sweep_multiply_adds(int64_t rounds) {
  constexpr int CHAINS = 12;
  native::V x[CHAINS], sum = {};
  for (int i = 0; i < CHAINS; i++) x[i] = native::splat(float(i));
  for (int64_t k = 0; k < rounds; k++)
    native::unroll<CHAINS>([&](auto i) { x[i.v] = native::fma(x[i.v], native::splat(0.5f), native::splat(1.0f)); });
  for (int i = 0; i < CHAINS; i++) sum = sum + x[i];
  volatile float kept = sum[0];  // or else nothing would be computed
  (void)kept;
  return rounds * CHAINS * native::L * 2;
}
}
