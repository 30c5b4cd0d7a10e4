#include "kernels/amx.h"
#include "kernels/amx_tiles.h"

namespace fathom {

#if FATHOM_AMX

/// Four tiles of sums hide the latency of a product (52 cycles, one started every 16). The two tiles of rows and
/// two tiles of columns stay constant.
FATHOM_AMX_TARGET int64_t amx_peak_bf16(int64_t n, float* sink) {
  alignas(64) float corner[kTileRows][16] = {};
  constexpr int64_t kProducts = 4, kPerProduct = 16 * 16 * 32;
  int64_t done = 0;
  const TileScope tiles;  // all zero: the speed does not depend on the values
  for (; done < n; done += kProducts * kPerProduct) {
    tile_dp_bf16<0, 4, 6>();
    tile_dp_bf16<1, 4, 7>();
    tile_dp_bf16<2, 5, 6>();
    tile_dp_bf16<3, 5, 7>();
  }
  tile_store<3>(corner, sizeof(corner[0]));
  *sink += corner[0][0];
  return done;
}

#else

int64_t amx_peak_bf16(int64_t /*n*/, float* /*sink*/) { return 0; }

#endif

}  // namespace fathom
