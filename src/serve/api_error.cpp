#include "serve/api_error.h"

#include <cstdio>
#include <new>

namespace fathom::serve {
namespace {

ApiError internal_error(const char* what) {
  std::fprintf(stderr, "fathom: %s\n", what);
  return {500, "the request failed; the log of the server says why"};
}

}  // namespace

ApiError public_error(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const ApiError& error) {
    return error;
  } catch (const Error& error) {
    switch (error.kind()) {
      case Error::Kind::kUsage:
        return {400, error.what()};
      case Error::Kind::kOutOfMemory:
      case Error::Kind::kInterrupted:
        return {503, error.what()};
      default:
        return internal_error(error.what());
    }
  } catch (const std::bad_alloc&) {
    return {503, "out of memory"};
  } catch (const std::exception& error) {
    return internal_error(error.what());
  }
}

}  // namespace fathom::serve
