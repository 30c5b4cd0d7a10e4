// The reader of context files must report every defect as an Error, whatever the bytes. Checksums are not compared,
// because random changes would not get past them.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/aligned.h"
#include "base/error.h"
#include "formats/context_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fathom::AlignedBuffer<std::byte> bytes(size);  // a mapped file is aligned
  if (size > 0) std::memcpy(bytes.data(), data, size);
  try {
    const fathom::ContextFile file({bytes.data(), size}, "fuzz", false);
    int64_t sum = 0;
    for (size_t layer = 0; layer < file.info().layers.size(); ++layer) {
      for (int head = 0; head < file.info().layers[layer].heads; ++head)
        for (const fathom::ContextEntry& entry : file.table(static_cast<int>(layer), head).entries)
          sum += entry.filled;
      if (file.info().layers[layer].state_floats > 0)
        sum += std::ssize(file.states(static_cast<int>(layer)).floats);
    }
    if (sum < 0) std::abort();
    file.verify();
  } catch (const fathom::Error&) {
  }
  return 0;
}
