// SnapKV with budgets that shrink from the first layer to the last.
#include "evict/methods.h"
#include "evict/snapkv_scorer.h"

namespace fathom {
namespace {

class PyramidKv final : public SnapKvScorer {
 public:
  PyramidKv(int64_t queries, int64_t pool, double beta) : SnapKvScorer(queries, pool), beta_(beta) {}

  /// A straight line from 2 − 1/β to 1/β.
  double layer_share(int layer, int layers) const override {
    const double last = 1 / beta_;
    return layers > 1 ? 2 - last - (2 - 2 * last) * layer / (layers - 1) : 1;
  }

 private:
  double beta_;
};

}  // namespace

EvictEntry pyramidkv_method() {
  std::vector<Parameter> parameters = snapkv_parameters();
  parameters.push_back({"beta",
                        Parameter::Type::kFloat,
                        "20",
                        "the last layer keeps 1/beta of the mean (the `window` aside), the first 2 − 1/beta",
                        1,
                        1e6,
                        {}});
  return {{.name = "pyramidkv",
           .summary = "keeps what the newest queries attend to, more of it in the first layers than in the last",
           .paper = "PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling, 2024",
           .needs = "any model",
           .time = "O(queries · kept) per cut",
           .memory = kKeptMemory,
           .parameters = std::move(parameters),
           .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
          [](const Values& values) {
            return make_keeping(values, {},
                                std::make_unique<PyramidKv>(values.integer("queries"), values.integer("pool"),
                                                            values.number("beta")));
          }};
}

}  // namespace fathom
