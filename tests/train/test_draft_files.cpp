// Reads exported drafts back and computes them row by row, in double, as their format defines them.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "formats/gguf.h"
#include "kernels/quantize.h"
#include "train/draft_net.h"
#include "train/draft_training.h"
#include "train/export_gguf.h"

namespace fathom::train {
namespace {

using test::draft_of;

constexpr double kEps = 1e-5;

at::Tensor norm(const at::Tensor& x, const at::Tensor& weight) {
  return x / (x.square().mean(-1, true) + kEps).sqrt() * weight;
}

/// Rotates pairs (2i, 2i + 1) of x, [rows, heads, dim], by position · base^(−2i/dim).
at::Tensor rotated(const at::Tensor& x, const std::vector<int64_t>& positions) {
  at::Tensor y = x.clone();
  const int64_t dim = x.size(2);
  for (int64_t row = 0; row < x.size(0); ++row) {
    for (int64_t i = 0; i < dim; i += 2) {
      const double angle = static_cast<double>(positions[row]) * std::pow(10000.0, -static_cast<double>(i) / dim);
      const at::Tensor a = x[row].select(1, i), b = x[row].select(1, i + 1);
      y[row].select(1, i).copy_(a * std::cos(angle) - b * std::sin(angle));
      y[row].select(1, i + 1).copy_(a * std::sin(angle) + b * std::cos(angle));
    }
  }
  return y;
}

/// Returns attention with q, k, v of [rows, heads, dim] and visible(query, key), [queries, heads · value_dim].
template <class Visible>
at::Tensor attended(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Visible& visible) {
  const int64_t group = q.size(1) / k.size(1);
  const at::Tensor out = at::zeros({q.size(0), q.size(1), v.size(2)}, at::kDouble);
  for (int64_t row = 0; row < q.size(0); ++row) {
    for (int64_t head = 0; head < q.size(1); ++head) {
      double sum = 0;
      for (int64_t key = 0; key < k.size(0); ++key) {
        if (!visible(row, key)) continue;
        const double score = (q[row][head] * k[key][head / group]).sum().item<double>();
        const double share = std::exp(score / std::sqrt(static_cast<double>(q.size(2))));
        out[row][head] += share * v[key][head / group];
        sum += share;
      }
      if (sum > 0) out[row][head] /= sum;
    }
  }
  return out.flatten(1);
}

at::Tensor swiglu(const at::Tensor& u, const at::Tensor& gate, const at::Tensor& up, const at::Tensor& down) {
  const at::Tensor g = u.mm(gate.t());
  return (g * at::sigmoid(g) * u.mm(up.t())).mm(down.t());
}

/// A plain llama in double.
struct PlainBase {
  explicit PlainBase(const Net& from) : net(from) {}
  at::Tensor value(const std::string& name) const { return net.parameter(name).detach().to(at::kDouble); }
  at::Tensor weight(int layer, const std::string& name) const {
    return value("blk." + std::to_string(layer) + "." + name + ".weight");
  }
  at::Tensor embedded(const std::vector<int64_t>& tokens) const {
    return value("token_embd.weight").index_select(0, at::tensor(tokens, at::kLong));
  }
  at::Tensor keys(int layer, const at::Tensor& x, const std::vector<int64_t>& positions) const {
    return rotated(heads(norm(x, weight(layer, "attn_norm")).mm(weight(layer, "attn_k").t()), 2), positions);
  }
  at::Tensor values(int layer, const at::Tensor& x) const {
    return heads(norm(x, weight(layer, "attn_norm")).mm(weight(layer, "attn_v").t()), 2);
  }
  /// Runs layers [begin, 2) of rows, [rows, width].
  template <class Visible>
  at::Tensor run(int begin, at::Tensor x, const std::vector<int64_t>& positions, const Visible& visible) const {
    for (int layer = begin; layer < 2; ++layer) x = after_layer(layer, x, positions, visible);
    return x;
  }
  template <class Visible>
  at::Tensor after_layer(int layer, at::Tensor x, const std::vector<int64_t>& positions,
                         const Visible& visible) const {
    const at::Tensor u = norm(x, weight(layer, "attn_norm"));
    const at::Tensor q = rotated(heads(u.mm(weight(layer, "attn_q").t()), 4), positions);
    x = x + attended(q, keys(layer, x, positions), values(layer, x), visible).mm(weight(layer, "attn_output").t());
    return x + swiglu(norm(x, weight(layer, "ffn_norm")), weight(layer, "ffn_gate"), weight(layer, "ffn_up"),
                      weight(layer, "ffn_down"));
  }
  /// Returns log probabilities of rows of the residual stream.
  at::Tensor predictions(const at::Tensor& x) const { return of_normed(norm(x, value("output_norm.weight"))); }
  at::Tensor of_normed(const at::Tensor& y) const {
    return at::log_softmax(y.mm(value("token_embd.weight").t()), -1);
  }
  static at::Tensor heads(const at::Tensor& x, int64_t count) { return x.unflatten(1, {count, x.size(1) / count}); }
  const Net& net;
};

constexpr auto kCausal = [](int64_t query, int64_t key) { return key <= query; };

/// A random base, tokens of one row with their weights, and what the base computes for them.
struct Fixture {
  explicit Fixture(uint64_t seed, int64_t length = 9)
      : base(test::random_base(seed)), plain(*base), tokens(test::random_ids(1, length + 1, seed)) {
    for (int64_t i = 0; i <= length; ++i) ids.push_back(tokens[0][i].item<int64_t>());
    read.assign(ids.begin(), ids.end() - 1);
    positions = range(0, length);
    weights = at::rand({1, length});
    before_last = plain.after_layer(0, plain.embedded(read), positions, kCausal);
    x = plain.run(1, before_last, positions, kCausal);
    shares = plain.predictions(x).exp();
  }
  static std::vector<int64_t> range(int64_t first, int64_t count) {
    std::vector<int64_t> all(count);
    for (int64_t i = 0; i < count; ++i) all[i] = first + i;
    return all;
  }
  /// Returns the weighted cross-entropy of a row of log probabilities to row `row` of the base.
  double entropy(const at::Tensor& log_shares, int64_t row) const {
    return -weights[0][row].item<double>() * (shares[row] * log_shares).sum().item<double>();
  }
  /// Returns the loss of the draft.
  double loss(Trainable& net, uint64_t seed = 1) const {
    const at::NoGradGuard no_gradients;
    return net.step_loss({.seed = seed})(tokens, weights).item<double>();
  }

  std::unique_ptr<Net> base;
  PlainBase plain;
  at::Tensor tokens, weights, before_last, x, shares;
  std::vector<int64_t> ids, read, positions;
};

/// A draft file that was written and read back.
struct DraftFile {
  explicit DraftFile(const Trainable& net)
      : bytes(to_gguf(net, WeightType::kF32, nullptr).bytes()), file(Gguf::parse(bytes, "draft.gguf")) {}
  /// Returns a tensor, [rows, columns] or [columns].
  at::Tensor operator[](const std::string& name) const {
    const GgufTensor* tensor = file.find_tensor(name);
    if (!tensor) return {};
    const at::Tensor values = at::empty({tensor->dim(1), tensor->dim(0)}, at::kFloat);
    dequantize_row(tensor->type, tensor->data, values.data_ptr<float>(), values.numel());
    return (tensor->shape.size() == 1 ? values.flatten() : values).to(at::kDouble);
  }
  std::vector<std::byte> bytes;
  Gguf file;
};

void expect_common_keys(const Gguf& file, const std::string& kind) {
  EXPECT_EQ(file.string("general.type"), "draft");
  EXPECT_EQ(file.string("general.architecture"), "fathom-draft");
  EXPECT_EQ(file.string("general.name"), "tiny draft");
  EXPECT_EQ(file.string("draft.kind"), kind);
  EXPECT_EQ(file.string("draft.base"), "tiny");
  EXPECT_EQ(file.integer("draft.width"), 32);
  EXPECT_EQ(file.integer("draft.vocabulary"), 40);
  EXPECT_EQ(file.integer("draft.layers"), 2);
}

TEST(DraftFiles, HeadsGiveTheTrainersLoss) {
  const Fixture f(21);
  for (const bool sequential : {true, false}) {
    const auto net =
        draft_of({.kind = "heads", .steps = 3, .blocks = 2, .sequential = sequential, .own_output = !sequential},
                 test::copy_of(*f.base));
    test::disturb(*net, 22);
    const DraftFile file(*net);
    expect_common_keys(file.file, "heads");
    EXPECT_EQ(file.file.integer("draft.steps"), 3);
    EXPECT_EQ(file.file.integer("draft.blocks"), 2);
    EXPECT_EQ(file.file.boolean("draft.sequential"), sequential);
    const at::Tensor h = norm(f.x, f.plain.value("output_norm.weight")), embedded = f.plain.embedded(f.ids);
    const int64_t length = h.size(0);
    double expected = 0;
    for (int64_t i = 0; i < 3; ++i) {
      const std::string head = "head." + std::to_string(i) + ".";
      const auto block = [&](const at::Tensor& x, const std::string& k) {
        const at::Tensor t = file[head + "block." + k + ".weight"].mv(x) + file[head + "block." + k + ".bias"];
        return t * at::sigmoid(t);
      };
      for (int64_t row = 0; row + i + 1 < length; ++row) {
        std::vector<at::Tensor> parts{h[row]};
        for (int64_t j = 1; sequential && j <= i + 1; ++j) parts.push_back(embedded[row + j]);
        const at::Tensor z = at::cat(parts);
        at::Tensor y = (sequential ? file[head + "residual.weight"].mv(z) : z) + block(z, "0");
        y = y + block(y, "1");
        const at::Tensor output = sequential ? f.plain.value("token_embd.weight") : file[head + "output.weight"];
        EXPECT_EQ(file[head + "output.weight"].defined(), !sequential);
        expected += f.entropy(at::log_softmax(output.mv(y), 0), row + i + 1) / 3;
      }
    }
    EXPECT_NEAR(f.loss(*net), expected, 1e-5 * expected);
  }
}

TEST(DraftFiles, HiddenTransferGivesTheTrainersLoss) {
  const Fixture f(23);
  const auto net = draft_of({.kind = "hidden-transfer", .steps = 3}, test::copy_of(*f.base));
  test::disturb(*net, 24);
  const DraftFile file(*net);
  expect_common_keys(file.file, "hidden-transfer");
  EXPECT_EQ(file.file.integer("draft.steps"), 3);
  EXPECT_EQ(file.file.integers("draft.transfer.layers"), (std::vector<int64_t>{1, 1, 1}));
  const int64_t length = f.x.size(0);
  double expected = 0;
  for (int64_t row = 0; row < length; ++row) {
    // The real rows up to `row`, then its pseudo rows, as one text of rows that attend to all earlier ones.
    std::vector<at::Tensor> rows{f.before_last.narrow(0, 0, row + 1)};
    for (int64_t i = 0; i < 3; ++i) {
      rows.push_back(file["transfer." + std::to_string(i) + ".weight"].mv(f.before_last[row]).unsqueeze(0));
    }
    const at::Tensor x = f.plain.run(1, at::cat(rows), Fixture::range(0, row + 4), kCausal);
    const at::Tensor predictions = f.plain.predictions(x);
    for (int64_t i = 1; i <= 3 && row + i < length; ++i) {
      expected += f.entropy(predictions[row + i], row + i) / 3;
    }
  }
  EXPECT_NEAR(f.loss(*net), expected, 1e-5 * expected);
}

/// Returns the loss of a longspec file with the given positions and delay of the base's cache.
double longspec_loss(const Fixture& f, const DraftFile& file, const std::vector<int64_t>& positions,
                     int64_t delay) {
  const int64_t window = *file.file.integer("draft.window"), heads = *file.file.integer("draft.heads"),
                kv_heads = *file.file.integer("draft.kv_heads");
  at::Tensor a = f.plain.embedded(f.read);
  const auto rows = [&](const at::Tensor& u, const char* name, int64_t count) {
    return PlainBase::heads(u.mm(file[name].t()), count);
  };
  at::Tensor u = norm(a, file["attn_norm.weight"]);
  a = a + attended(rotated(rows(u, "attn_q.weight", heads), positions),
                   rotated(rows(u, "attn_k.weight", kv_heads), positions), rows(u, "attn_v.weight", kv_heads),
                   [&](int64_t q, int64_t k) { return k <= q && k > q - window; })
              .mm(file["attn_output.weight"].t());
  u = norm(a, file["cross_norm.weight"]);
  a = a + attended(rotated(rows(u, "cross_q.weight", 4), positions), f.plain.keys(1, f.before_last, positions),
                   f.plain.values(1, f.before_last), [&](int64_t q, int64_t k) { return k <= q - delay; })
              .mm(file["cross_output.weight"].t());
  a = a + swiglu(norm(a, file["ffn_norm.weight"]), file["ffn_gate.weight"], file["ffn_up.weight"],
                 file["ffn_down.weight"]);
  const at::Tensor predictions = f.plain.of_normed(norm(a, file["output_norm.weight"]));
  double loss = 0;
  for (int64_t row = 0; row < a.size(0); ++row) loss += f.entropy(predictions[row], row);
  return loss;
}

TEST(DraftFiles, LongSpecGivesTheTrainersLossForOneDelayAndOneOffset) {
  const Fixture f(25, 8);
  for (const bool shifted : {false, true}) {
    const auto net = draft_of({.kind = "longspec",
                               .heads = 4,
                               .kv_heads = 1,
                               .head_dim = 6,
                               .ffn_width = 20,
                               .window = 4,
                               .max_offset = 10,
                               .offset_share = shifted ? 1.0 : 0.0},
                              test::copy_of(*f.base));
    test::disturb(*net, 26);
    const DraftFile file(*net);
    expect_common_keys(file.file, "longspec");
    EXPECT_EQ(file.file.integer("draft.head_dim"), 6);
    EXPECT_EQ(file.file.integer("draft.ffn_width"), 20);
    EXPECT_NEAR(*file.file.number("draft.norm_eps"), kEps, 1e-9);
    EXPECT_EQ(file.file.number("draft.rope_base"), 10000);
    std::vector<std::pair<int64_t, double>> candidates;  // delay, loss
    for (int64_t delay = 1; delay <= 4; ++delay) {
      candidates.emplace_back(delay, longspec_loss(f, file, f.positions, delay));
      for (int64_t anchors = 1; shifted && anchors <= 4; ++anchors) {  // without anchors an offset changes nothing
        for (int64_t offset = 1; offset <= 2; ++offset) {
          std::vector<int64_t> positions = f.positions;
          for (size_t i = anchors; i < positions.size(); ++i) positions[i] += offset;
          candidates.emplace_back(delay, longspec_loss(f, file, positions, delay));
        }
      }
    }
    std::set<int64_t> delays;
    std::set<double> found;
    for (uint64_t seed = 0; seed < 40; ++seed) {
      const double loss = f.loss(*net, seed);
      const auto nearest = std::ranges::min_element(
          candidates, {}, [&](const auto& candidate) { return std::abs(candidate.second - loss); });
      EXPECT_NEAR(loss, nearest->second, 1e-5 * loss) << "seed " << seed;
      delays.insert(nearest->first);
      found.insert(nearest->second);
    }
    EXPECT_EQ(delays.size(), 4u);
    EXPECT_GT(found.size(), shifted ? 8u : 3u);
  }
}

TEST(DraftFiles, LexicalUnitsGiveTheTrainersLossForOneFirstLength) {
  const Fixture f(27);
  const auto net =
      draft_of({.kind = "lexical-unit", .certainty = 0, .ordinary_share = 0, .length = 4}, test::copy_of(*f.base));
  test::disturb(*net, 28, 0.02);
  const DraftFile file(*net);
  EXPECT_EQ(file.file.string("general.name"), "tiny draft");
  EXPECT_EQ(file.file.integer("fathom.lexical_unit.pad"), test::kPlaceholder);
  EXPECT_EQ(file.file.integer("fathom.lexical_unit.length"), 4);
  Net tuned(read_net_config(file.file));
  import_gguf(file.file, tuned);
  const PlainBase plain(tuned);
  const int64_t length = f.x.size(0);
  const auto entropy = [&](const at::Tensor& log_shares, int64_t row) {
    return -f.weights[0][row].item<double>() * log_shares[f.ids[row + 1]].item<double>();
  };
  const at::Tensor real = plain.predictions(plain.run(0, plain.embedded(f.read), f.positions, kCausal));
  std::vector<double> candidates;
  for (int64_t first_length = 1; first_length <= 4; ++first_length) {
    double loss = 0;
    for (int64_t row = 0; row < length; ++row) loss += entropy(real[row], row);
    for (int64_t begin = 0; begin < length; begin += begin == 0 ? first_length : 4) {
      const int64_t end = std::min(begin == 0 ? first_length : begin + 4, length);
      std::vector<int64_t> input(f.ids.begin(), f.ids.begin() + begin + 1);
      input.resize(end, test::kPlaceholder);
      const at::Tensor x = plain.run(0, plain.embedded(input), Fixture::range(0, end), kCausal);
      for (int64_t row = begin + 1; row < end; ++row) loss += entropy(plain.predictions(x)[row], row);
    }
    candidates.push_back(loss);
  }
  std::set<double> found;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const double loss = f.loss(*net, seed);
    const auto nearest =
        std::ranges::min_element(candidates, {}, [&](double candidate) { return std::abs(candidate - loss); });
    EXPECT_NEAR(loss, *nearest, 1e-5 * loss) << "seed " << seed;
    found.insert(*nearest);
  }
  EXPECT_EQ(found.size(), 4u);
}

TEST(DraftFiles, ImportRestoresTheValues) {
  for (const test::DraftCase& draft : test::draft_cases()) {
    const auto base = test::random_base(29);
    const auto net = draft_of(draft.config, test::copy_of(*base)),
               again = draft_of(draft.config, test::copy_of(*base));
    test::disturb(*net, 30);
    const DraftFile file(*net);
    import_gguf(file.file, *again);
    EXPECT_TRUE(at::equal(net->values(), again->values())) << draft.name;
  }
}

}  // namespace
}  // namespace fathom::train
