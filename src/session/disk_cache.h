#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "formats/context_file.h"
#include "memory/sequence.h"

namespace fathom {

/// A folder of blocks of tokens that were read, which all processes of a user share. The key of a block is a hash
/// of everything that its pages depend on: the model, the methods, and all tokens up to its end. Each block is a
/// context file (write_tokens) that appears complete or not at all, so processes may be killed at any moment. The
/// least recently used blocks are deleted when the folder exceeds its quota. A cache never makes a pass fail: a
/// block that cannot be read is deleted and read again, and if a block cannot be written (full disk, no
/// permission), a note says so once and no more are written. Not thread-safe.
class DiskCache {
 public:
  /// folder: of all models, created when the first block is written; quota: bytes.
  DiskCache(std::string folder, int64_t quota);

  /// Returns $XDG_CACHE_HOME/fathom, or ~/.cache/fathom. Throws Error if neither variable is set.
  static std::string default_folder();

  /// Restores the longest prefix of `tokens` that is stored, in blocks of `block` tokens, into an empty sequence.
  /// space: a hash of everything but the tokens. Returns the number of restored tokens, less than tokens.size(). If
  /// the sequence has recurrent layers, they are restored as well.
  int64_t restore(Sequence& sequence, std::span<const int32_t> tokens, uint64_t fingerprint, uint64_t space,
                  int64_t block);
  /// Stores the complete blocks of a sequence that are not stored yet. A block of a sequence with recurrent layers
  /// can only be stored while their states at its end are known. info: describes the model and the methods.
  void store(const Sequence& sequence, uint64_t space, int64_t block, const ContextInfo& info);

  /// A stored block.
  struct Block {
    std::string path;
    int64_t bytes = 0;
    int64_t used = 0;  // seconds since 1970 of its last use
  };
  /// Lists all blocks, the least recently used first. Throws Error if the folder cannot be read.
  static std::vector<Block> list(const std::string& folder);
  /// Deletes the least recently used blocks until at most `quota` bytes are left. Returns the deleted blocks.
  static std::vector<Block> prune(const std::string& folder, int64_t quota);

 private:
  std::string path_of(uint64_t fingerprint, uint64_t key) const;
  void keep_quota();

  std::string folder_;
  int64_t quota_;
  bool writable_ = true;
};

}  // namespace fathom
