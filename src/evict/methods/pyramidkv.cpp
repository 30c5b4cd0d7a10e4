// SnapKV with budgets that decrease linearly from the first layer to the last.
#include "evict/methods.h"
#include "evict/snapkv_scorer.h"

namespace fathom {
namespace {

class PyramidKv final : public SnapKvScorer {
 public:
  PyramidKv(int64_t queries, int64_t pool, double beta) : SnapKvScorer(queries, pool), beta_(beta) {}

  /// Decreases linearly from 2 − 1/β in the first layer to 1/β in the last.
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
  parameters.push_back(
      {"beta",
       Parameter::Type::kFloat,
       "20",
       "the last layer keeps 1/beta of the mean budget (sink and window excluded), the first 2 - 1/beta; more is "
       "steeper; 1: all equal",
       1,
       1e6,
       {}});
  return {{.name = "pyramidkv",
           .summary = "snapkv with larger budgets in the first layers than in the last",
           .paper = "PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling, 2024",
           .needs = "any model",
           .time = "O(queries · kept) per eviction",
           .memory = kKeptMemory,
           .parameters = std::move(parameters),
           .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
          [](const Values& values) {
            return make_budget_evictor(values, {},
                                       std::make_unique<PyramidKv>(values.integer("queries"),
                                                                   values.integer("pool"), values.number("beta")));
          }};
}

}  // namespace fathom
