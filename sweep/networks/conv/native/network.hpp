// What the library is given: networks, and what they are trained or evaluated on; and where a tile of them lies.
//
// A tile holds LANES networks. Parameters, statistics and optimizer state are [tiles][numbers][LANES]; what each lane
// has of its own (rates, factors) is [tiles][…][LANES].
#pragma once
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

// Where everything of a tile lies in the scratch memory.
struct Places {
  const Network& n;
  int pad, hidden, logits, features, per_layer;
  int64_t h_stride;  // not 64: the same unit of all pictures would lie in one set of the first cache
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
  char* scratch;

  Tile(const Places& places, const Call& call, int64_t tile, char* scratch)
      : at(places), n(places.n), c(call), t(tile), scratch(scratch) {}

  template <class T = V> T* memory(int64_t place) const { return reinterpret_cast<T*>(scratch + place); }
  V* own(float** list, int number, int64_t size) const { return reinterpret_cast<V*>(list[number]) + t * size; }
  V* parameter(int number) const {
    return c.absent && c.absent[number] ? memory(at.zeros) : own(c.parameters, number, c.sizes[number]);
  }
  const V* lanes(const float* numbers, int64_t per_tile = 1) const { return (const V*)numbers + t * per_tile; }

  int first_linear() const { return n.depth * at.per_layer; }
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

}  // namespace native
