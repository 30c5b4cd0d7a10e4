#pragma once

#include <string>
#include <utility>

#include "base/error.h"

namespace fathom::serve {

/// An error of a request: the status of the response, and a code that programs can recognise.
class ApiError : public Error {
 public:
  ApiError(int status, const std::string& message, std::string code = "")
      : Error(message), status_(status), code_(std::move(code)) {}
  int status() const { return status_; }
  const std::string& code() const { return code_; }

 private:
  int status_;
  std::string code_;
};

}  // namespace fathom::serve
