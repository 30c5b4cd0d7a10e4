#pragma once

#include <atomic>
#include <type_traits>

#include "kernels/kernels.h"

namespace fathom::test {

/// Counts the calls through the process-wide table, kernels(), while the object lives; their results stay the same.
/// One object at a time.
class WatchedKernels {
 public:
  WatchedKernels() {
    calls_ = 0;
    own_ = kernels();
    watch<&Kernels::quantize_activations>();
    watch<&Kernels::pack_activations>();
    watch<&Kernels::matvec>();
    watch<&Kernels::matmul>();
    watch<&Kernels::multiply>();
    watch<&Kernels::multiply_bf16>();
    watch<&Kernels::attend>();
    watch<&Kernels::score_page>();
    watch<&Kernels::largest_bounds>();
    watch<&Kernels::write_page>();
    watch<&Kernels::rms_norm>();
    watch<&Kernels::layer_norm>();
    watch<&Kernels::rotate_pairs>();
    watch<&Kernels::swiglu>();
    watch<&Kernels::geglu>();
    watch<&Kernels::swiglu_oai>();
    watch<&Kernels::gelu>();
    watch<&Kernels::silu>();
    watch<&Kernels::relu_squared>();
    watch<&Kernels::softplus>();
    watch<&Kernels::causal_conv>();
    watch<&Kernels::selective_scan>();
    watch<&Kernels::ssd_scan>();
    watch<&Kernels::ssd_chunk>();
    watch<&Kernels::ssd_products>();
    watch<&Kernels::gated_group_norm>();
    watch<&Kernels::add>();
    watch<&Kernels::softmax>();
    watch<&Kernels::exponentials>();
    watch<&Kernels::scale>();
  }
  ~WatchedKernels() { process_wide() = own_; }
  WatchedKernels(const WatchedKernels&) = delete;

  int64_t calls() const { return calls_; }

 private:
  /// The tables are created as non-const objects.
  static Kernels& process_wide() { return const_cast<Kernels&>(kernels()); }

  template <auto kMember, class Function>
  struct Counted;
  template <auto kMember, class Result, class... Arguments>
  struct Counted<kMember, Result (*)(Arguments...)> {
    static Result call(Arguments... arguments) {
      ++calls_;
      return (own_.*kMember)(arguments...);
    }
  };
  template <auto kMember>
  static void watch() {
    auto& function = process_wide().*kMember;
    if (function) function = Counted<kMember, std::remove_reference_t<decltype(function)>>::call;
  }

  static inline Kernels own_;
  static inline std::atomic<int64_t> calls_ = 0;
};

}  // namespace fathom::test
