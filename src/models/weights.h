#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "formats/gguf.h"
#include "kernels/types.h"

namespace fathom {

/// Source of the tensors of an architecture. The shape of every tensor is checked.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual bool has(const std::string& name) const = 0;
  /// Returns W, [rows, cols], with y = W·x. Throws Error naming the tensor if it is missing or has another shape.
  virtual Matrix matrix(const std::string& name, int64_t rows, int64_t cols) = 0;
  /// Returns the weight of a norm or a bias as floats: [n].
  virtual std::vector<float> vector(const std::string& name, int64_t n) = 0;
  /// Returns `count` matrices of [rows, cols] stored in one tensor, such as those of experts: [count · rows, cols].
  virtual Matrix stack(const std::string& name, int64_t count, int64_t rows, int64_t cols) = 0;
  /// Returns a matrix as floats: [rows, cols].
  std::vector<float> matrix_floats(const std::string& name, int64_t rows, int64_t cols);
};

/// Tensors of a mapped GGUF file. Matrices are not copied; the file must outlive them.
class GgufWeights final : public WeightSource {
 public:
  explicit GgufWeights(const Gguf& file) : file_(file) {}
  bool has(const std::string& name) const override { return file_.find_tensor(name) != nullptr; }
  Matrix matrix(const std::string& name, int64_t rows, int64_t cols) override;
  std::vector<float> vector(const std::string& name, int64_t n) override;
  Matrix stack(const std::string& name, int64_t count, int64_t rows, int64_t cols) override;

 private:
  const Gguf& file_;
};

/// Random tensors of one weight type, for measurements without a file. They are scaled so that activations stay
/// near 1.
class RandomWeights final : public WeightSource {
 public:
  RandomWeights(WeightType type, bool tied_output) : type_(type), tied_output_(tied_output) {}
  bool has(const std::string& name) const override;
  Matrix matrix(const std::string& name, int64_t rows, int64_t cols) override;
  std::vector<float> vector(const std::string& name, int64_t n) override;
  Matrix stack(const std::string& name, int64_t count, int64_t rows, int64_t cols) override {
    return matrix(name, count * rows, cols);
  }
  /// Returns the memory that the matrices point into; it must outlive them.
  std::vector<AlignedBuffer<std::byte>> take() { return std::move(owned_); }

 private:
  WeightType type_;
  bool tied_output_;
  uint64_t state_ = 0x9e3779b97f4a7c15;
  std::vector<AlignedBuffer<std::byte>> owned_;
};

}  // namespace fathom
