#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace fathom::train {

/// SentencePiece in a separate shared library. The system's SentencePiece contains a protobuf whose symbols collide
/// with those of libtorch in one process. The shared library is loaded so that it resolves its own symbols first.
/// The functions return an error text; empty: success.
struct SentencePieceModule {
  /// Trains on `texts`. arguments: those of SentencePieceTrainer. model: receives the bytes of the model file.
  std::string (*train)(const std::unordered_map<std::string, std::string>& arguments,
                       const std::vector<std::string>& texts, std::string& model);

  struct Piece {
    std::string text;
    float score = 0;
    bool unknown = false, control = false, byte = false;
  };
  /// Sets `pieces` to the pieces of a model, by id.
  std::string (*pieces)(const std::string& model, std::vector<Piece>& pieces);

  /// Sets `ids` to the ids of each text.
  std::string (*encode)(const std::string& model, const std::vector<std::string>& texts,
                        std::vector<std::vector<int32_t>>& ids);
};

/// The symbol that the library exports.
inline constexpr char kSentencePieceSymbol[] = "fathom_sentence_piece_module";

/// Loads the library from the program's folder, once. Throws Error if that fails.
const SentencePieceModule& sentence_piece_module();

}  // namespace fathom::train
