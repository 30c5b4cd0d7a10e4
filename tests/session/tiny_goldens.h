#pragma once

#include <span>

namespace fathom::test {

/// Returns the names (test::golden) of small models: one of each architecture, llamas with several weight types.
inline std::span<const char* const> tiny_goldens() {
  static constexpr const char* kNames[] = {"tiny-llama-q4_k_m",
                                           "tiny-llama-iq4_xs",
                                           "tiny-gpt2-f16",
                                           "tiny-qwen2-f16",
                                           "tiny-qwen3-f16",
                                           "tiny-mamba-f16",
                                           "tiny-mamba2-f16",
                                           "architectures/tiny-gemma3-f16",
                                           "architectures/tiny-gpt-oss-f16",
                                           "architectures/tiny-qwen3moe-f16",
                                           "architectures/tiny-falcon-h1-f16"};
  return kNames;
}

}  // namespace fathom::test
