// Trains and evaluates arrays of small convolutional networks, tile by tile: the C interface of the library.
#include "training.hpp"

namespace native {

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

// Trains the tiles from `first` up to `last`; several threads may do so for tiles and with scratch memory of their own.
// Tile by tile, so that what a tile trains stays in the caches from step to step.
void sweep_train(const native::Training* s, int64_t first, int64_t last, char* scratch) {
  native::Places places(*s->call.network);
  native::Call turns[2] = {s->call, s->call};
  turns[1].absent = s->absent;
  for (int64_t t = first; t < last; t++)
    for (int64_t step = 0; step < s->steps; step++)
      for (int64_t turn = 0; turn < s->turns; turn++) {
        native::Tile tile(places, turns[turn], t, scratch);
        switch (s->optimizer) {
          case native::SGD: native::train<native::SGD>(tile, *s, step, turn); break;
          case native::MOMENTUM_SGD: native::train<native::MOMENTUM_SGD>(tile, *s, step, turn); break;
          default: native::train<native::ADAMW>(tile, *s, step, turn);
        }
      }
}

// Evaluates tiles, which threads may share as they share training.
void sweep_evaluate(const native::Evaluation* e, int64_t first, int64_t last, char* scratch) {
  native::Places places(*e->call.network);
  for (int64_t t = first; t < last; t++) native::evaluate(native::Tile(places, e->call, t, scratch), *e);
}

// exp of x <= 0 and log of x >= 1, for tests of their error.
void sweep_exponential(const float* x, float* y, int64_t vectors) {
  for (int64_t i = 0; i < vectors; i++) ((native::V*)y)[i] = native::exponential(((const native::V*)x)[i]);
}
void sweep_logarithm(const float* x, float* y, int64_t vectors) {
  for (int64_t i = 0; i < vectors; i++) ((native::V*)y)[i] = native::logarithm(((const native::V*)x)[i]);
}

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
