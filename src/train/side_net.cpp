#include "train/side_net.h"

#include "base/error.h"

namespace fathom::train {

SideNet::SideNet(const char* type, const char* kind, FrozenBase from)
    : Trainable(from.net->ops()),
      type_(type),
      kind_(kind),
      name_(std::move(from.name)),
      base_(std::move(from.net)) {}

Trainable::Loss SideNet::step_loss(const LossOptions& options) {
  return
      [this, weights = base_->frozen_weights(options.type), rng = eval::Rng(options.seed, kind_, 0, options.step),
       agreement = options.agreement](const at::Tensor& tokens, const at::Tensor& token_weights) mutable {
        return part_loss({weights, tokens, token_weights, rng, agreement});
      };
}

void SideNet::set_base_metadata(GgufWriter& writer) const {
  const ModelConfig& c = base_->config().model;
  writer.set_string("general.type", type_);
  writer.set_string("general.architecture", "fathom-" + type_);
  writer.set_string("general.name", name_);
  writer.set_string(key("kind"), kind_);
  writer.set(key("width"), GgufType::kU32, c.width);
  writer.set(key("vocabulary"), GgufType::kU32, c.vocabulary);
  writer.set(key("layers"), GgufType::kU32, int64_t{c.layers});
  writer.set_string(key("base"), c.name);
}

}  // namespace fathom::train
