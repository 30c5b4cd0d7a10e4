#include "attend/low_rank_keys.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "attend/principal_axes.h"

namespace fathom {
namespace {

constexpr size_t kStepPages = 16;  // pages whose keys are multiplied in one product
constexpr int kBand = 64;          // rows of KᵀK per task

/// Reads the unrotated keys of a layer page by page.
class LayerKeyReader {
 public:
  LayerKeyReader(const LayerQueries& queries, int64_t end)
      : kv_(*queries.kv),
        layer_(queries.layer),
        end_(end),
        rotations_(queries.kv->rotations()),
        kernels_(*queries.kernels),
        key_dim_(kv_.shape().key_dim),
        entries_(std::ranges::lower_bound(kv_.table(0), end, {}, &PageEntry::first) - kv_.table(0).begin()) {}

  const Kernels& kernels() const { return kernels_; }
  int width() const { return kv_.heads() * key_dim_; }
  size_t entries() const { return entries_; }

  /// Reads the keys of one page-table entry to rows: [64, width]; 0 for masked tokens and for tokens after the end.
  void read(size_t entry, float* rows) const {
    std::fill_n(rows, static_cast<int64_t>(kPageTokens) * width(), 0.0f);
    std::vector<float> keys(static_cast<size_t>(kPageTokens) * key_dim_), sin(key_dim_);
    for (int head = 0; head < kv_.heads(); ++head) {
      const PageEntry& page = kv_.table(head)[entry];
      const uint64_t visible = page.mask & page_bits(0, end_ - page.first);
      if (visible == 0) continue;
      read_keys(kv_.shape().format, key_dim_, kv_.store().keys(page.page), page.filled, keys.data());
      for (uint64_t left = visible; left != 0; left &= left - 1) {
        const int token = std::countr_zero(left);
        float* key = keys.data() + static_cast<int64_t>(token) * key_dim_;
        const PositionRotations::View inverse = rotations_.inverse(rotations_.offset(token), sin.data());
        kernels_.rotate_pairs(key, inverse.cos, inverse.sin, rotations_.pairs());
        std::copy_n(key, key_dim_, rows + static_cast<int64_t>(token) * width() + head * key_dim_);
      }
    }
  }

 private:
  const PagedKv& kv_;
  int layer_;
  int64_t end_;
  const PositionRotations& rotations_;
  const Kernels& kernels_;
  int key_dim_;
  size_t entries_;
};

/// Allocates the scratch of matrix products, one buffer per thread.
std::vector<AlignedBuffer<float>> product_scratch(const ThreadPool& pool) {
  std::vector<AlignedBuffer<float>> scratch(pool.threads());
  for (AlignedBuffer<float>& buffer : scratch) buffer.reserve(kMultiplyScratch);
  return scratch;
}

/// Returns KᵀK, [width, width]; only the lower triangle is complete.
std::vector<float> gram_of(const LayerKeyReader& reader, ThreadPool& pool) {
  const int width = reader.width();
  const int64_t page_floats = static_cast<int64_t>(kPageTokens) * width;
  std::vector<float> gram(static_cast<size_t>(width) * width);
  AlignedBuffer<float> joined(kStepPages * page_floats);
  std::vector<AlignedBuffer<float>> scratch = product_scratch(pool);
  for (size_t begin = 0; begin < reader.entries(); begin += kStepPages) {
    const size_t pages = std::min(kStepPages, reader.entries() - begin);
    pool.parallel_for(pages, [&](size_t i, int) { reader.read(begin + i, joined.data() + i * page_floats); });
    pool.parallel_for((width + kBand - 1) / kBand, [&](size_t band, int thread) {
      const int64_t first = static_cast<int64_t>(band) * kBand, rows = std::min<int64_t>(kBand, width - first);
      FloatProduct product;
      product.rows = rows;
      product.cols = first + rows;
      product.depth = static_cast<int64_t>(pages) * kPageTokens;
      product.a = joined.data() + first;
      product.a_stride = width;
      product.a_transposed = true;
      product.b = joined.data();
      product.b_stride = width;
      product.y = gram.data() + first * width;
      product.y_stride = width;
      product.add = true;
      reader.kernels().multiply(product, scratch[thread].data());
    });
  }
  return gram;
}

}  // namespace

LowRankKeys::LowRankKeys(const LayerQueries& queries, int64_t end, int rank, ThreadPool& pool)
    : rank_(rank), key_dim_(queries.kv->shape().key_dim) {
  const LayerKeyReader reader(queries, end);
  const int width = reader.width();
  axes_ = principal_axes(gram_of(reader, pool), width, rank);
  coefficients_.resize(reader.entries() * kPageTokens * rank);
  std::vector<AlignedBuffer<float>> scratch = product_scratch(pool);
  pool.parallel_for(reader.entries(), [&](size_t entry, int thread) {
    AlignedBuffer<float> rows(static_cast<size_t>(kPageTokens) * width);
    reader.read(entry, rows.data());
    FloatProduct product;
    product.rows = kPageTokens;
    product.cols = rank;
    product.depth = width;
    product.a = rows.data();
    product.a_stride = width;
    product.b = axes_.data();
    product.b_stride = rank;
    product.y = coefficients_.data() + entry * kPageTokens * rank;
    product.y_stride = rank;
    reader.kernels().multiply(product, scratch[thread].data());
  });
}

LowRankKeys::LowRankKeys(ByteReader& in, const SequenceLayer& layer, int64_t end, int rank)
    : rank_(rank),
      key_dim_(layer.key_dim()),
      axes_(in.take_list<float>(static_cast<size_t>(layer.heads()) * layer.key_dim() * rank)),
      coefficients_(in.take_list<float>((layer.kv() ? layer.entries(0, end) : 0) * kPageTokens * rank)) {}

void LowRankKeys::save(ByteWriter& out) const {
  out.add_list(axes_);
  out.add_list(coefficients_);
}

void LowRankKeys::rebuild(const Kernels& kernels, int head, std::span<const int64_t> rows, float* keys) const {
  AlignedBuffer<float> coefficients(rows.size() * rank_), scratch(kMultiplyScratch);
  for (size_t i = 0; i < rows.size(); ++i)
    std::copy_n(coefficients_.data() + rows[i] * rank_, rank_, coefficients.data() + i * rank_);
  FloatProduct product;
  product.rows = std::ssize(rows);
  product.cols = key_dim_;
  product.depth = rank_;
  product.a = coefficients.data();
  product.a_stride = rank_;
  product.b = axes_.data() + static_cast<int64_t>(head) * key_dim_ * rank_;
  product.b_stride = rank_;
  product.b_transposed = true;
  product.y = keys;
  product.y_stride = key_dim_;
  kernels.multiply(product, scratch.data());
}

void RebuiltKeys::release_pages(std::span<const uint64_t> tokens) {
  for (size_t s = 0; s < pages_.size(); ++s) {
    if (pages_[s].rebuilt == 0 || (s < tokens.size() && tokens[s] != 0)) continue;
    spare_.push_back(std::move(pages_[s].keys));
    pages_[s] = {};
  }
  pages_.resize(tokens.size());
}

size_t RebuiltKeys::bytes() const {
  size_t bytes = bytes_of(pages_) + bytes_of(rebuilt_);
  for (const Page& page : pages_) bytes += page.keys.size();
  for (const AlignedBuffer<std::byte>& keys : spare_) bytes += keys.size();
  return bytes;
}

void RebuiltKeys::keep(const LayerQueries& queries, int head, std::span<const uint64_t> tokens,
                       const LowRankKeys& from) {
  const PageTable& table = queries.kv->table(head);
  const PageStore& store = queries.kv->store();
  release_pages(tokens);
  missing_.clear();
  for (size_t s = 0; s < tokens.size(); ++s) {
    Page& page = pages_[s];
    const uint64_t missing = tokens[s] & ~page.rebuilt;
    if (missing == 0) continue;
    if (page.rebuilt == 0) {
      if (spare_.empty()) spare_.emplace_back(store.shape().key_bytes());
      page.keys = std::move(spare_.back());
      spare_.pop_back();
      std::memcpy(page.keys.data(), store.keys(table[s].page), store.shape().key_bytes());
    }
    page.rebuilt |= missing;
    for (uint64_t left = missing; left != 0; left &= left - 1)
      missing_.push_back(static_cast<int64_t>(s) * kPageTokens + std::countr_zero(left));
  }
  if (missing_.empty()) return;
  rebuilt_.resize(missing_.size() * store.shape().key_dim);
  from.rebuild(*queries.kernels, head, missing_, rebuilt_.data());
  write(queries);
}

/// Writes the missing keys into their pages, rotated by their offsets.
void RebuiltKeys::write(const LayerQueries& queries) {
  const PageShape& shape = queries.kv->shape();
  PageWrite write;  // value_dim stays 0: only keys are written
  write.format = shape.format;
  write.key_dim = shape.key_dim;
  write.rotary_dim = 2 * queries.kv->rotations().pairs();
  write.count = 1;
  write.rotations = queries.kv->rotations().offset(0).cos;
  for (size_t i = 0; i < missing_.size(); ++i) {
    write.page_keys = write.page_values = pages_[missing_[i] / kPageTokens].keys.data();
    write.first = static_cast<int>(missing_[i] % kPageTokens);
    write.keys = rebuilt_.data() + i * shape.key_dim;
    queries.kernels->write_page(write);
  }
}

}  // namespace fathom
