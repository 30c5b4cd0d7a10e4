#pragma once

#include <memory>

#include "eval/rng.h"
#include "train/net.h"

namespace fathom::train {

/// The frozen model that something is trained for.
struct FrozenBase {
  std::string name{};        // general.name of the file
  std::unique_ptr<Net> net;  // with its weights
  int32_t placeholder = -1;  // token id of placeholders: the vocabulary's unknown token; < 0: there is none
  int32_t end = -1;          // token id of the end of a text; < 0: there is none
  uint64_t seed = 0;         // of random initial values
};

/// Parameters that are trained beside a frozen model.
class SideNet : public Trainable {
 public:
  int64_t vocabulary() const override { return base_->vocabulary(); }
  Loss step_loss(const LossOptions& options) final;
  Net& base() { return *base_; }
  const Net& base() const { return *base_; }

 protected:
  /// type: general.type of the file, which is also the prefix of its other metadata. kind: as in the file.
  SideNet(const char* type, const char* kind, FrozenBase from);

  /// A part of a batch for part_loss().
  struct Part {
    const NetWeights& weights;        // of the base
    const at::Tensor& tokens;         // [sequences, length + 1]
    const at::Tensor& token_weights;  // [sequences, length]
    eval::Rng& rng;
    Agreement* agreement;  // not null: an evaluation
  };
  /// Returns Σ weight·loss over the tokens of a part.
  virtual at::Tensor part_loss(const Part& part) = 0;

  /// Sets type, architecture, name, kind, and the shape of the base.
  void set_base_metadata(GgufWriter& writer) const;
  /// Returns a metadata key of this type of file, such as "draft.steps".
  std::string key(const std::string& name) const { return type_ + ("." + name); }
  /// Returns a matrix of this net in the compute type.
  at::Tensor matrix(const std::string& name, at::ScalarType type) const { return parameter(name).to(type); }
  /// Returns a tensor with the values of a parameter, for initialisation.
  at::Tensor initial(const std::string& name) const { return parameter(name).detach(); }

 private:
  std::string type_, kind_, name_;
  std::unique_ptr<Net> base_;
};

}  // namespace fathom::train
