#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace fathom::train {

/// SentencePiece behind a wall: the system's library brings its own protobuf, whose symbols collide with those of
/// libtorch's in one process. A module of its own links it, and is loaded so that it sees its own symbols first.
/// The functions return what went wrong; empty when nothing did.
struct SentencePieceModule {
  /// Trains on `texts`. arguments: the library's own. model: its file's bytes.
  std::string (*train)(const std::unordered_map<std::string, std::string>& arguments,
                       const std::vector<std::string>& texts, std::string& model);

  struct Piece {
    std::string text;
    float score = 0;
    bool unknown = false, control = false, byte = false;
  };
  /// The pieces of a model, by id.
  std::string (*pieces)(const std::string& model, std::vector<Piece>& pieces);

  /// The ids that the library gives for each text.
  std::string (*encode)(const std::string& model, const std::vector<std::string>& texts,
                        std::vector<std::vector<int32_t>>& ids);
};

/// The module's one symbol.
inline constexpr char kSentencePieceSymbol[] = "fathom_sentence_piece_module";

/// Loads the module, which lies beside the program, once. Throws Error if it is not there.
const SentencePieceModule& sentence_piece_module();

}  // namespace fathom::train
