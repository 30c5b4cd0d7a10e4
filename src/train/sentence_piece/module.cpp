// The shared library of module.h, the only target that links SentencePiece.
#include "train/sentence_piece/module.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <exception>

namespace fathom::train {
namespace {

class Sentences final : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& texts) : texts_(texts) {}
  bool done() const override { return at_ == texts_.size(); }
  void Next() override { ++at_; }
  const std::string& value() const override { return texts_[at_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& texts_;
  size_t at_ = 0;
};

/// Runs `act`. Returns its error as text; empty: success.
template <class Act>
std::string outcome(const Act& act) {
  try {
    const sentencepiece::util::Status status = act();
    return status.ok() ? "" : status.ToString();
  } catch (const std::exception& error) {
    return error.what();
  }
}

std::string train(const std::unordered_map<std::string, std::string>& arguments,
                  const std::vector<std::string>& texts, std::string& model) {
  return outcome([&] {
    Sentences sentences(texts);
    return sentencepiece::SentencePieceTrainer::Train(arguments, &sentences, &model);
  });
}

std::string pieces(const std::string& model, std::vector<SentencePieceModule::Piece>& pieces) {
  return outcome([&] {
    sentencepiece::SentencePieceProcessor processor;
    auto status = processor.LoadFromSerializedProto(model);
    if (!status.ok()) return status;
    for (int id = 0; id < processor.GetPieceSize(); ++id) {
      pieces.push_back({processor.IdToPiece(id), processor.GetScore(id), processor.IsUnknown(id),
                        processor.IsControl(id), processor.IsByte(id)});
    }
    return status;
  });
}

std::string encode(const std::string& model, const std::vector<std::string>& texts,
                   std::vector<std::vector<int32_t>>& ids) {
  return outcome([&] {
    sentencepiece::SentencePieceProcessor processor;
    auto status = processor.LoadFromSerializedProto(model);
    ids.resize(texts.size());
    for (size_t i = 0; i < texts.size() && status.ok(); ++i) status = processor.Encode(texts[i], &ids[i]);
    return status;
  });
}

constexpr SentencePieceModule kModule{train, pieces, encode};

}  // namespace
}  // namespace fathom::train

extern "C" const fathom::train::SentencePieceModule* fathom_sentence_piece_module() {
  return &fathom::train::kModule;
}
